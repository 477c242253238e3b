"""The type of one message on its way to a chat template."""

from __future__ import annotations

from typing import Any

Turn = dict[str, Any]
"""A message as chat templates take it: `role` and `content`, and perhaps `name`, `tool_calls`, `tool_call_id` and
`reasoning_content`."""
