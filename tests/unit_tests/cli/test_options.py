"""What options of the command become."""

from __future__ import annotations

import pytest
import typer

from langchain_petals.cli.options import connection_fields


def test_addresses_may_be_repeated_and_separated_by_commas_or_spaces() -> None:
    assert connection_fields(None, ["a, b", "c d"], None) == {"initial_peers": ["a", "b", "c", "d"]}
    assert connection_fields("m", None, "p") == {"model": "m", "dht_prefix": "p"}
    assert connection_fields() == {}
    assert connection_fields(None, [], None) == {}


def test_no_address_at_all_does_not_mean_the_public_swarm() -> None:
    with pytest.raises(typer.BadParameter, match="--initial-peers has no address"):
        connection_fields(None, [""], None)
