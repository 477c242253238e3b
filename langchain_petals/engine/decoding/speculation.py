"""Steps of a single row that check a draft, and how the session forgets what was drafted wrong.

Such a step feeds the row's next tokens and a draft, and gives logits for each position from the last known token on.
With them, the row chooses one token after the other, as if each came from a step of its own, until it chooses another
token than the draft has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from langchain_petals.engine.decoding.drafts import Drafts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_petals.engine.decoding.row import Row
    from langchain_petals.engine.sessions import Session


class Speculation:
    """The steps of a row that has a session for itself.

    Args:
        session: The session.
        row: The row.
    """

    def __init__(self, session: Session, row: Row) -> None:
        self._session, self._row = session, row
        self._drafts = Drafts(session.step_costs)

    def step(self, end: int, chunk: int) -> int:
        """Feed the row's tokens up to a position, with a draft if that pays; let the row take what the logits bring.

        Args:
            end: A position behind that of the session, and at most the number of the row's tokens.
            chunk: Most tokens of the step.

        Returns:
            The position of the session after the step: it holds these tokens of the row, and no others.
        """
        row, begin = self._row, self._session.position
        is_known_so_far = end == len(row.ids)
        draft = self._draft(end, chunk) if is_known_so_far else []
        logits = self._session.extend(torch.tensor([row.ids[begin:end] + draft]), last=1 + len(draft))[0]
        chosen = self._choose(end, draft, logits)
        right = _agreeing(row.ids[end:], draft)
        accepted = sum(number < right for number in chosen)
        row.generation.accepted_tokens += accepted
        row.generation.drafted_tokens += len(draft) - (right - accepted)  # the others that are right are forced
        if is_known_so_far:
            self._drafts.note(end - begin, len(draft), max(0, len(chosen) - 1))
        # as without drafts, the last token of an answer is not fed: nothing comes after it
        position = min(end + right, max(end, len(row.ids) - 1))
        if position < end + len(draft):
            self._session.roll_back(position)
        return position

    def _draft(self, end: int, chunk: int) -> list[int]:
        session, row = self._session, self._row
        if not session.can_roll_back:
            return []
        fresh = end - session.position
        # the token after a draft is chosen, too
        most = min(row.longest - end - 1, session.max_length - end, chunk - fresh)
        return self._drafts.next(row.ids, fresh, most, row.follow)

    def _choose(self, end: int, draft: Sequence[int], logits: torch.Tensor) -> list[int]:
        """Let the row choose tokens as far as the draft is right; return which of the new tokens it has chosen."""
        row, chosen, known = self._row, list[int](), 0
        while known <= len(draft):
            row.see(end + known, logits[known])
            new = row.ids[end:]
            if len(new) == known:  # it has ended
                break
            chosen.append(known)
            known = len(new)  # with what is forced after the chosen one
            if row.done or new != draft[:known]:
                break
        return chosen


def _agreeing(new: Sequence[int], draft: Sequence[int]) -> int:
    """Return how many tokens at the beginning of a draft are those that came."""
    pairs = enumerate(zip(new, draft, strict=False))
    return next((number for number, (came, guessed) in pairs if came != guessed), min(len(new), len(draft)))
