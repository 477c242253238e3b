"""How traffic to a hub is recorded: under names instead of ports, and without anything secret.

Headers are taken over by name, so that a new one cannot bring a secret in; whatever looks like a key of the hub is
blotted out wherever it stands.

To record anew: .venv/bin/pytest --record-mode=rewrite tests/unit_tests/hub/test_hub.py
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vcr.request import Request

HUB, CDN = "http://hub.test", "http://cdn.test"
"""What the hub and its CDN are called in cassettes."""

SECRET = re.compile(r"hf_\w{6,}|Bearer\s+\S+|(?<=Signature=)\w+")
BLOT = "REDACTED"

_REQUEST_HEADERS = {"accept-encoding", "range"}
_ANSWER_HEADERS = {
    "accept-ranges",
    "content-length",
    "content-range",
    "content-type",
    "etag",
    "location",
    "x-error-code",
    "x-error-message",
    "x-linked-etag",
    "x-linked-size",
    "x-repo-commit",
}


def vcr_settings(places: Mapping[str, str]) -> dict[str, Any]:
    """Return VCR's configuration.

    Args:
        places: What is running, by address, and what it is called in cassettes.
    """

    def renamed(text: str) -> str:
        for address, name in places.items():
            text = text.replace(address, name)
        return SECRET.sub(BLOT, text)

    def clean_request(request: Request) -> Request:
        request.uri = renamed(request.uri)
        request.headers = {name: value for name, value in request.headers.items() if name.lower() in _REQUEST_HEADERS}
        return request

    def clean_answer(answer: dict[str, Any]) -> dict[str, Any]:
        headers = {
            name: [renamed(value) for value in values]
            for name, values in answer["headers"].items()
            if name.lower() in _ANSWER_HEADERS
        }
        body = re.sub(rb"hf_\w{6,}", BLOT.encode(), answer["body"]["string"])
        return answer | {"headers": headers, "body": {"string": body}}

    return {
        "before_record_request": clean_request,
        "before_record_response": clean_answer,
        "decode_compressed_response": True,
        "match_on": ["method", "uri"],
    }
