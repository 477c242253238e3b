"""Values from the DHT that strangers have stored."""

from __future__ import annotations

import logging

import pytest

from langchain_petals.engine.network.hivemind_parts import MSGPackSerializer, StrangersValues


def test_values_are_decoded_as_hivemind_encodes_them() -> None:
    value = (2, 1.5, {"start_block": 0, "adapters": ("a", "b"), "next_pings": {"x": 0.1}})
    assert StrangersValues.loads(MSGPackSerializer.dumps(value)) == value


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", b"\x81\x01\x02", b"\xff" * 9, b"\xd4\x07a", b"\x92" * 3000],
    ids=["nothing", "no code", "a number for a name", "two values", "an unknown type", "deep"],
)
def test_what_cannot_be_decoded_is_no_announcement_and_not_logged(
    data: bytes, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    assert not StrangersValues.loads(data)
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]
    assert capfd.readouterr() == ("", "")
