"""The page about errors: it is what its script writes, and it has every error."""

from __future__ import annotations

import pytest

import write_errors_page
from langchain_petals import errors


def test_the_page_is_what_the_script_writes() -> None:
    assert write_errors_page.PAGE.read_text(encoding="utf-8") == write_errors_page.page(), (
        "run python scripts/write_errors_page.py"
    )


def test_the_page_has_every_error_but_the_base_of_all() -> None:
    shown = [kind.__name__ for kinds in write_errors_page.GROUPS.values() for kind in kinds]
    assert sorted([*shown, "PetalsError"]) == errors.__all__


def test_every_error_that_is_raised_is_shown_with_a_text() -> None:
    shown = {type(error) for error in write_errors_page.examples()}
    bases = {errors.PetalsError, errors.SwarmError}
    assert shown | bases == {getattr(errors, name) for name in errors.__all__}


def test_what_markdown_would_take_for_marks_is_escaped() -> None:
    text = "in [a_b] * <c> of `langchain_petals`"
    assert write_errors_page.escaped(text) == r"in \[a\_b] \* \<c> of `langchain_petals`"


def test_an_error_that_does_not_tell_what_to_do_is_refused() -> None:
    class SilentError(errors.PetalsError):
        """Something happened."""

    with pytest.raises(ValueError, match="SilentError needs one paragraph that begins with 'What to do: '"):
        write_errors_page.described(SilentError)
