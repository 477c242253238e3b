"""The token loop: the rows of a session in lockstep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from langchain_petals.engine.decoding.speculation import Speculation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from langchain_petals.engine.decoding.row import Row
    from langchain_petals.engine.sessions import Session


def decode(
    session: Session,
    rows: Sequence[Row],
    chunk_tokens: int,
    before_last: Callable[[], None],
    *,
    speculation: bool = False,
) -> None:
    """Run rows to their ends in lockstep.

    Servers take only rectangular input. So all rows are fed as far as the shortest one is known, then again: a row is
    known up to the end of its prompt, then up to the last token that was chosen or that its grammar forces. Attention
    is causal, so each row gets exactly the tokens that it would get alone. A finished row is fed its last token until
    all rows are done; its logits are ignored.

    Args:
        session: A session with one row for each of `rows`; new, or with tokens at the beginning of the prompts.
        rows: At least one; each has run ahead.
        chunk_tokens: Most tokens (rows times length) of one step; more of them need several steps.
        before_last: Called before the final piece is delivered. It may park the session, so that the caller's next
            request finds it.
        speculation: Whether a single row may send drafts, where the session can roll back.
    """
    speculating = Speculation(session, rows[0]) if speculation and len(rows) == 1 else None
    chunk = max(1, chunk_tokens // len(rows))
    position = session.position
    for row in rows:
        row.generation.reused_tokens = position
    while running := [row for row in rows if not row.done]:
        end = min(position + chunk, *(len(row.ids) for row in running))
        for row in running:
            row.generation.trips += 1
        if speculating is not None:
            position = speculating.step(end, chunk)
        else:
            logits = session.extend(torch.tensor([row.tokens(position, end) for row in rows]))[:, -1]
            position = end
            for row, scores in zip(rows, logits, strict=True):
                row.see(position, scores)
        if all(row.done for row in rows):
            before_last()
        for row in rows:
            row.deliver()
