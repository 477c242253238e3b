"""A session on a model in this process gives the logits that the model gives for all tokens at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from langchain_petals.engine.sessions.local_session import LocalSession

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import LlamaForCausalLM

IDS = torch.tensor([[5, 11, 42, 7, 9], [6, 12, 43, 8, 10]])


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("cuts", [[], [1], [4], [1, 2, 3, 4]])
def test_logits_do_not_depend_on_how_the_tokens_come(babbler: LlamaForCausalLM, rows: int, cuts: Sequence[int]) -> None:
    ids = IDS[:rows]
    session = LocalSession(babbler)
    for chunk in torch.tensor_split(ids, list(cuts), dim=1):
        logits = session.extend(chunk)
    with torch.inference_mode():
        whole = babbler(ids).logits[:, -1]
    torch.testing.assert_close(logits, whole, rtol=1e-4, atol=1e-4)
    assert (session.position, session.ids) == (5, ids[0].tolist())


def test_local_session_reserves_only_what_it_holds(babbler: LlamaForCausalLM) -> None:
    session = LocalSession(babbler)
    assert (session.position, session.ids, session.reserved) == (0, [], 0)
    session.extend(IDS[:1])
    session.resume(5, 10**9)
    assert session.reserved == 5
    assert session.max_length > 10**9


def test_close_drops_the_cache(babbler: LlamaForCausalLM) -> None:
    session = LocalSession(babbler)
    session.extend(IDS)
    session.close()
    session.close()
    assert session._cache is None
