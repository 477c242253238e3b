"""Records traffic to a hub with names instead of ports, and without secrets.

Only listed headers are recorded, so that a new one cannot hold a secret. Texts that look like a key of the hub are
replaced everywhere.

To record again: .venv/bin/pytest --record-mode=rewrite tests/unit_tests/hub/test_hub.py
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vcr.request import Request

HUB, CDN = "http://hub.test", "http://cdn.test"
"""Names of the hub and its CDN in cassettes."""

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
        places: Addresses of running servers, each with its name in cassettes.
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
