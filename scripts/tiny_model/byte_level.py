"""The alphabet of byte-level tokenizers."""

from __future__ import annotations


def byte_characters() -> dict[int, str]:
    """Return the character that stands for each byte in a byte-level vocabulary, as GPT-2's tokenizer defined it.

    Visible characters of Latin-1 stand for themselves, all other bytes for characters from U+0100 on, in their order.
    """
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in sorted(visible)} | {byte: chr(256 + n) for n, byte in enumerate(hidden)}
