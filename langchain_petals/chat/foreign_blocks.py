"""Reads content blocks of other providers: their kind, and the text in them."""

from __future__ import annotations

import json
import re
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

Block = dict[str, Any]

# Bedrock and Google give the kind as the only key, not as a type. A dictionary with other keys is a tool's data.
_KINDS_AS_KEYS = frozenset(
    [
        *("image", "video", "audio", "document", "inline_data", "file_data", "guard_content", "citations_content"),
        *("tool_use", "tool_result", "function_call", "function_response", "reasoning_content", "search_result"),
        *("executable_code", "code_execution_result", "cache_point", "json"),
    ]
)
_BESIDE_KINDS = frozenset(["thought", "thought_signature", "video_metadata", "media_resolution"])

_IMAGE, _AUDIO, _VIDEO, _FILE = "an image", "audio", "a video", "a file"
_MEDIA = {
    **dict.fromkeys(["image", "image_url", "input_image", "output_image", "image_file"], _IMAGE),
    **dict.fromkeys(["image_generation_call", "computer_screenshot"], _IMAGE),
    **dict.fromkeys(["audio", "audio_url", "input_audio", "output_audio"], _AUDIO),
    **dict.fromkeys(["video", "video_url", "input_video"], _VIDEO),
    **dict.fromkeys(["file", "input_file", "document", "document_url", "media", "resource", "blob"], _FILE),
    **dict.fromkeys(["text-plain", "inline_data", "file_data", "container_upload"], _FILE),
}
_BY_MIME = {"image": _IMAGE, "audio": _AUDIO, "video": _VIDEO}
_MIME_KEYS = ("mime_type", "mimeType", "media_type", "mediaType")
_DATA_KEYS = frozenset(["data", "base64", "blob", "bytes"])

# the key under which a block holds blocks or a text
_CONTAINERS = {
    "citation": "cited_text",
    "citations_content": "content",
    "custom_tool_call_output": "output",
    "function_call_output": "output",
    "guard_content": "text",
    "message": "content",
    "search_result": "content",
}

# kinds whose key holds a text or a value, not a dictionary with the content
_NOT_WRAPPED = frozenset(["text", "refusal", "reasoning", "thinking", "json"])

_CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])")
_DEEPEST = 16  # wrappers in wrappers


def opened(block: Block, *, typed: bool = False) -> tuple[str, Block]:
    """Return the kind of a block (empty if it has none), and the dictionary with its content.

    The block may be wrapped as `non_standard`. With `typed`, only its `type` counts as its kind.
    """
    for _ in range(_DEEPEST):
        if block.get("type") != "non_standard":
            break
        value = block.get("value")
        block = value if isinstance(value, dict) else {"type": "text", "text": value}
    kind = block.get("type")
    if typed:
        return (kind if isinstance(kind, str) else ""), block
    if not isinstance(kind, str) or not kind:
        kind = _kind_by_key(block)
    content = block.get(kind)
    kind = _in_snake_case(kind)
    return kind, content if isinstance(content, dict) and kind not in _NOT_WRAPPED else block


def _kind_by_key(block: Block) -> str:
    names = {_in_snake_case(str(key)): key for key in block}
    others = set(names) - _BESIDE_KINDS - {"type"}
    if isinstance(block.get("text"), str | dict):
        return "thought" if block.get("thought") is True else "text"
    if len(others) == 1 and (kind := others.pop()) in _KINDS_AS_KEYS:
        return names[kind] if kind == "json" or isinstance(block[names[kind]], dict) else ""
    return ""


def _in_snake_case(name: str) -> str:
    return _CAMEL_CASE.sub("_", name).lower()


def is_data(block: Any) -> bool:
    """Return whether this is a value that a tool returned, and not a content block."""
    if not isinstance(block, dict):
        return True
    kind, _ = opened(block)
    record = kind == "text" and "type" not in block and len(set(map(str, block)) - _BESIDE_KINDS) > 1
    return not kind or record  # for instance a text with a score


def text_of(value: Any) -> str:
    """Return the text in a value, which may be nested in dictionaries and lists."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return next((text_of(value[key]) for key in ("text", "value", "thinking", "reasoning") if key in value), "")
    if isinstance(value, list | tuple):
        return "".join(map(text_of, value))
    return "" if value is None else str(value)


def reasoning_of(content: Block) -> str:
    """Return the text of a block of reasoning; empty if it is encrypted."""
    for key in ("reasoning", "thinking", "reasoning_content", "reasoning_text", "reasoningText", "text", "content"):
        if text := text_of(content.get(key)):
            return text
    summary = content.get("summary")
    return "\n\n".join(map(text_of, summary)) if isinstance(summary, list) else text_of(summary)


def inside(kind: str, content: Block) -> list[Any]:
    """Return the texts and blocks inside a block."""
    if _MEDIA.get(kind) in _BY_MIME.values():
        return []
    if kind == "document" and isinstance(source := content.get("source"), dict):
        return _listed(
            source.get("data") if source.get("type") == "text" else source.get("content", source.get("text"))
        )
    found = _listed(content.get(_CONTAINERS.get(kind, "text")))
    if kind == "search_result" and found:
        heading = [text for key in ("title", "source") if (text := text_of(content.get(key)))]
        return [*(f"{text}\n" for text in heading), *found]
    return found


def _listed(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return list(value)
    return [value] if value and isinstance(value, str | dict) else []


def as_json(value: Any, leave_out: Callable[[str], str]) -> str:
    """Return a value as JSON; `leave_out` gets the name of each image or file, and returns the text in its place."""

    def readable(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [readable(item) for item in value]
        if not isinstance(value, dict):
            return leave_out(_FILE) if isinstance(value, bytes) else value
        kind, content = opened(value)
        if (kind in _MEDIA or _mime(content)) and _holds_data(content):
            return leave_out(name_of(kind, content))
        return {key: readable(item) for key, item in value.items()}

    try:
        return json.dumps(readable(value), ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):  # a key of another type, or a value that contains itself
        return str(value)


def is_media(kind: str, content: Block) -> bool:
    """Return whether a block is an image, a recording or a file."""
    return kind in _MEDIA or _holds_data(content)


def _holds_data(content: Block) -> bool:
    """Return whether a block holds bytes, perhaps encoded as text."""
    return not _DATA_KEYS.isdisjoint(content) or any(
        isinstance(value, bytes) or (isinstance(value, str) and value.startswith("data:")) for value in content.values()
    )


def name_of(kind: str, content: Block) -> str:
    """Return a name for a block that is left out, for instance "an image"."""
    by_mime = _BY_MIME.get(_mime(content).partition("/")[0])
    if by_mime or kind in _MEDIA:
        return by_mime or _MEDIA[kind]
    return f"a block of type {kind!r}" if kind else "a block without a type"


def _mime(content: Block) -> str:
    return next((content[key] for key in _MIME_KEYS if isinstance(content.get(key), str)), "")


class LeftOut:
    """Collects names of blocks that are left out of a conversation, for one warning."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}

    def add(self, role: str, name: str) -> str:
        """Record a block by its name and the role of its message; return a line that replaces it."""
        self._names.setdefault(role, set()).add(name)
        return f"[{name[0].upper()}{name[1:]} was left out: this model reads text only.]"

    def warn(self) -> None:
        """Warn if a block was left out. The text is the same for each turn of a conversation: Python shows it once."""
        if not self._names:
            return
        places = {"assistant": "AI messages", "tool": "tools' results"}
        parts = [f"{', '.join(sorted(names))} in {places[role]}" for role, names in sorted(self._names.items())]
        warnings.warn(
            f"Petals serves models of text only. The prompt leaves out {'; '.join(parts)}.",
            stacklevel=3,  # the caller of `turns_from_messages`, the same in each turn
        )
