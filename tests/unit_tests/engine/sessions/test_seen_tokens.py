"""A session's tokens grow without being copied at each step."""

from __future__ import annotations

from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from langchain_petals.engine.sessions.seen_tokens import SeenTokens


@given(steps=st.lists(st.integers(1, 600) | st.just(1), max_size=12), rows=st.integers(1, 3), data=st.data())
def test_seen_tokens_are_those_added_in_the_last_order_without_those_cut(
    steps: list[int], rows: int, data: st.DataObject
) -> None:
    seen, expected = SeenTokens(), torch.empty(rows, 0, dtype=torch.int64)
    for number, step in enumerate(steps):
        ids = torch.arange(rows * step).reshape(rows, step) + 1000 * number
        orders = st.none() | st.lists(st.integers(0, rows - 1), min_size=rows, max_size=rows).map(torch.tensor)
        order = data.draw(orders)
        expected = torch.cat([expected if order is None else expected[order], ids], dim=1)
        assert torch.equal(seen.with_more(ids, order), expected)
        seen.add(ids, order)
        if data.draw(st.booleans()):
            length = data.draw(st.integers(0, expected.shape[1]))
            seen.cut(length)
            expected = expected[:, :length]
        assert len(seen) == expected.shape[1]
        assert torch.equal(seen.rows[:, : len(seen)], expected) or len(seen) == 0
        assert seen.first_row == expected[0].tolist()


def test_adding_tokens_does_not_copy_earlier_ones() -> None:
    seen, places = SeenTokens(), []
    for token in range(8_000):
        seen.add(torch.tensor([[token]]))
        places.append(seen.rows.data_ptr())
    moved = sum(one != other for one, other in pairwise(places))
    assert moved <= 5
    assert seen.first_row == list(range(8_000))
