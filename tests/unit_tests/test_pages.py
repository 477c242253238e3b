"""The pages of the documentation: their places in the navigation, and what is too wide."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
NAVIGATION = re.findall(r'"([\w/-]+\.md)"', (ROOT / "zensical.toml").read_text(encoding="utf-8"))
WIDEST = 88
"""Characters of a line of code that a page shows without moving sideways."""


def code_lines(page: str) -> list[str]:
    """Return the lines of a page's code blocks."""
    blocks = re.findall(r"^( *)(```+)[^\n`]*\n(.*?)^\1\2$", page, re.MULTILINE | re.DOTALL)
    return [line.removeprefix(indent) for indent, _, block in blocks for line in block.splitlines()]


def test_every_page_is_in_the_navigation_once() -> None:
    pages = sorted(page.relative_to(DOCS).as_posix() for page in PAGES if page.is_relative_to(DOCS))
    assert sorted(NAVIGATION) == pages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_line_of_code_is_wider_than_a_page(page: Path) -> None:
    assert [line for line in code_lines(page.read_text(encoding="utf-8")) if len(line) > WIDEST] == []


def test_code_is_found_in_lists_and_in_longer_fences_too() -> None:
    page = "x\n```python\na\n```\ny\n\n1. z\n\n    ```sh\n    b\n    ```\n\n````\n```\nc\n```\n````\n"
    assert code_lines(page) == ["a", "b", "```", "c", "```"]
