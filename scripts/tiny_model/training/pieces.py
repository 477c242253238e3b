"""The tokens of the tiny model beyond single bytes: the syntax of tool calls, and parts of characters.

Some pieces are syntax that never holds a value (`", "arguments": {`), so that a description of a tool has some 20
tokens, while names are still spelt in letters. Others are the beginnings of characters of other scripts. Four in five
pairs of Chinese characters share their first byte, so a model that copies single bytes loses its place. With a token
for the first two of three bytes it does not.
"""

from __future__ import annotations

STRUCTURE = (
    # JSON
    *(
        '{"',
        '": "',
        '", "',
        '": ',
        '"}',
        ', "',
        '": {"',
        '"}, "',
        '": {',
        "}}",
        '"}}',
        "{}",
        "{}}",
        '["',
        '"]',
        '": ["',
    ),
    *('"], "', "}, {", '": [', '"}]', "[{", "[]", "true", "false", "null", '": true', '": false', '": null'),
    # calls
    *("<tool_call>", "</tool_call>", "\n</tool_call>", '{"name": "', '", "arguments": {"', '", "arguments": {}}'),
    # tools
    *("# Tools", '", "description": "', '", "parameters": {"properties": {"', '", "parameters": {"type": "object", '),
    *(
        '", "parameters": {"properties": {}, "type": "object"}}',
        '"properties": {"',
        '"properties": {}',
        '"required": ["',
    ),
    *('"type": "object"', '], "type": "object"}', '"], "type": "object"}}', '"], "type": "object"}', '"]}}', "}, "),
    *('"type": "string"', '"type": "integer"', '"type": "number"', '"type": "boolean"', '"type": "array"'),
    *('": {"type": "string"}', '": {"type": "integer"}', '": {"type": "number"}', '": {"type": "boolean"}'),
    *('": {"items": {"type": "string"}, "type": "array"}', '": {"items": {"type": "integer"}, "type": "array"}'),
    *('": {"description": "', '", "type": "string"}', '", "type": "integer"}', '", "type": "number"}'),
    *('", "type": "boolean"}', '": {"default": ', '": {"enum": ["', '", "enum": ["', '"], "type": "string"}'),
    *('": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": null', '"default": ', ', "type": "integer"}'),
    *(', "type": "string"}', ', "type": "boolean"}', '"description": "', '"title": "', '", "title": "', '"items": '),
    *('"minimum": ', '"maximum": ', '"exclusiveMaximum": ', '"exclusiveMinimum": ', '"required"', '"type": "'),
    *(
        ', "properties": {"',
        ', "required": ["',
        ', "type": "object"',
        ', "default": null',
        '", "properties": {"',
        '": {"anyOf": [',
    ),
    *('": {"title": "', ', "additionalProperties": false}', "Answer with a JSON object that fits this schema:\n"),
)


def _two_bytes(first: int, last: int) -> list[bytes]:
    """Return the first two bytes of all characters of three bytes from `first` to `last`."""
    return sorted({chr(code).encode()[:2] for code in range(first, last + 1)})


SCRIPTS: tuple[bytes, ...] = (
    # whole characters: Latin with accents, Greek, Cyrillic, Hebrew, Arabic, Japanese syllables and punctuation
    *(
        chr(code).encode()
        for first, last in (
            *((0xC0, 0x17F), (0x386, 0x3CE), (0x401, 0x45F), (0x5D0, 0x5EA), (0x60C, 0x669)),
            *((0x3001, 0x3002), (0x3041, 0x3096), (0x30A1, 0x30FC)),
        )
        for code in range(first, last + 1)
    ),
    # beginnings of characters: symbols, Chinese, Korean, wide forms, emoji
    *_two_bytes(0x2000, 0x2FFF),
    *_two_bytes(0x3000, 0x303F),
    *_two_bytes(0x4E00, 0x9FFF),
    *_two_bytes(0xAC00, 0xD7A3),
    *_two_bytes(0xFF00, 0xFFEF),
    *(bytes([0xF0, 0x9F, third]) for third in range(0x80, 0xC0)),
    "\u200d".encode(),
    "\ufe0f".encode(),
)

PIECES: tuple[bytes, ...] = (*(text.encode() for text in STRUCTURE), *SCRIPTS)
