"""The exception tree: what is what, what may be retried, and what the messages say."""

from __future__ import annotations

import pickle
import re
from typing import TYPE_CHECKING

import pytest
from langchain_core import exceptions as langchain

from langchain_petals import errors

if TYPE_CHECKING:
    from collections.abc import Iterator

# what each is beside a PetalsError
KINDS: dict[str, tuple[type[BaseException], ...]] = {
    "AccessDeniedError": (errors.ModelLoadError, langchain.ModelPermissionDeniedError, OSError),
    "BlocksMissingError": (errors.SwarmError, langchain.ModelConnectionError),
    "DeadlineExceededError": (langchain.ModelTimeoutError, TimeoutError),
    "HubUnreachableError": (errors.ModelLoadError, langchain.ModelConnectionError),
    "InvalidKeyError": (errors.AccessDeniedError, langchain.ModelAuthenticationError),
    "InvalidRequestError": (langchain.ModelInvalidRequestError, ValueError),
    "LocalSwarmError": (RuntimeError,),
    "MissingChatTemplateError": (errors.InvalidRequestError,),
    "ModelLoadError": (OSError,),
    "ModelNotFoundError": (errors.ModelLoadError, langchain.ModelNotFoundError),
    "OutputLimitError": (langchain.ModelError, ValueError),
    "PetalsError": (Exception,),
    "PetalsNotInstalledError": (ImportError,),
    "PromptTooLongError": (langchain.ContextOverflowError, ValueError),
    "SpanFailedError": (errors.SwarmError, langchain.ModelAPIError),
    "SwarmError": (),
    "SwarmUnreachableError": (errors.SwarmError, langchain.ModelConnectionError),
    "UnsupportedModelError": (langchain.ModelInvalidRequestError, ValueError),
}
RETRYABLE = {
    "BlocksMissingError",
    "DeadlineExceededError",
    "HubUnreachableError",
    "SpanFailedError",
    "SwarmUnreachableError",
}


def test_public_names_are_sorted_and_complete() -> None:
    defined = {
        name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert errors.__all__ == sorted(defined)
    assert set(errors.__all__) == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_each_error_has_its_documented_base_classes(name: str) -> None:
    error = getattr(errors, name)
    assert issubclass(error, errors.PetalsError)
    assert all(issubclass(error, kind) for kind in KINDS[name])


@pytest.mark.parametrize("name", KINDS)
def test_the_errors_of_network_and_time_may_be_retried(name: str) -> None:
    assert getattr(getattr(errors, name), "is_retryable", False) == (name in RETRYABLE)


@pytest.mark.parametrize("name", KINDS)
def test_each_error_has_a_docstring(name: str) -> None:
    assert getattr(errors, name).__doc__


def test_the_tree_in_the_docstring_matches_the_classes() -> None:
    assert errors.__doc__ is not None
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in errors.__doc__.splitlines():
        found = re.match(r"    ((?:[|`] ?-? ?| )*)(\w+Error)\b", line)
        if found:
            depth = len(found[1]) // 3
            path[depth:] = [found[2]]
            parents[found[2]] = path[depth - 1] if depth else ""
    assert set(parents) == set(KINDS)
    for name, parent in parents.items():
        if parent:
            assert getattr(errors, parent) in getattr(errors, name).__bases__


def examples() -> Iterator[tuple[errors.PetalsError, str]]:
    """Yield errors that write their messages themselves, with what is in those."""
    yield errors.PromptTooLongError(12, 10), r"12 tokens.*holds 10.*Shorten the prompt"
    yield errors.BlocksMissingError([3, 4], "tiny"), r"'tiny' holds block\(s\) 3, 4\. Wait .*start one.*initial_peers"
    yield (
        errors.SpanFailedError(2, 5, 4, ConnectionError("gone")),
        r"Blocks 2:5 failed 4 time\(s\).*ConnectionError: gone.*raise max_retries",
    )
    yield errors.DeadlineExceededError(1.5, 7), r"timeout of 1\.5 s passed after 7 generated token.*Raise timeout"
    yield errors.MissingChatTemplateError("my/model", ["chatml", "zephyr"]), "my/model ships no.*chatml, zephyr"
    yield errors.OutputLimitError(5, generated="{", needed=9), r"within 5 new.*found has 9\).*Raise max_new_tokens"
    yield errors.OutputLimitError(5, generated="{", steered=False), r"within 5 new.*simpler or shorter patterns.*'{'"


@pytest.mark.parametrize(("error", "message"), list(examples()), ids=lambda each: type(each).__name__)
def test_messages_say_what_to_do(error: errors.PetalsError, message: str) -> None:
    assert re.search(message, str(error))


@pytest.mark.parametrize("error", [error for error, _ in examples()], ids=lambda each: type(each).__name__)
def test_errors_pass_between_processes(error: errors.PetalsError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
