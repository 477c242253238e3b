"""Converts TypedDicts to a form that pydantic describes completely.

LangChain's own conversion requires every key, does not convert a TypedDict that contains itself, and refuses keys that
pydantic classes use as attributes. Pydantic does all of that, but before Python 3.12 it refuses `typing.TypedDict`, and
it ignores LangChain's descriptions of keys: `Annotated[type, default, "description"]`, with `...` where there is no
default, and the descriptions in the docstring.
"""

from __future__ import annotations

import inspect
import re
import textwrap
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import Field
from typing_extensions import NotRequired, ReadOnly, Required, TypedDict, get_type_hints, is_typeddict

_ARGUMENTS = re.compile(r"^(?:Args|Attributes):\n((?:[ \t].*(?:\n|\Z)|\n)+)", re.MULTILINE)
_ARGUMENT = re.compile(r"^(\w+)(?: \([^)]*\))?:(.*(?:\n(?:[ \t].*|$))*)", re.MULTILINE)


def described_typed_dict(typed_dict: Any) -> Any:
    """Return a copy of a TypedDict, and of those in it, whose keys have descriptions and defaults as pydantic fields.

    Raises:
        NameError: A type in it cannot be found by its name.
        TypeError: Something in it is no type.
    """
    return _copy_type(typed_dict, {})


def _copy_type(hint: Any, copies: dict[Any, Any]) -> Any:
    """Return a type with copies of the TypedDicts in it; `copies` holds those made so far."""
    if is_typeddict(hint):
        if hint not in copies:
            copies[hint] = TypedDict(hint.__name__, {})  # type: ignore[operator]
            _copy_keys(hint, copies)  # now, since a key may lead back to this TypedDict
        return copies[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        parts = (_copy_type(hint.__origin__, copies), *hint.__metadata__)
        return Annotated[parts]
    if not arguments or origin is Literal:
        return hint
    copied = tuple(_copy_type(each, copies) for each in arguments)
    return Union[copied] if origin in (Union, types.UnionType) else origin[copied]  # noqa: UP007 - any number of types


def _copy_keys(typed_dict: Any, copies: dict[Any, Any]) -> None:
    copy = copies[typed_dict]
    copy.__module__, copy.__qualname__ = typed_dict.__module__, typed_dict.__qualname__
    copy.__doc__, descriptions = _documentation(typed_dict)
    required_keys = set()
    for key, annotation in get_type_hints(typed_dict, include_extras=True).items():
        hint: Any = annotation
        required = key in typed_dict.__required_keys__
        while get_origin(hint) in (Required, NotRequired, ReadOnly):
            required = required if get_origin(hint) is ReadOnly else get_origin(hint) is Required
            (hint,) = get_args(hint)
        default: Any = ...
        description = descriptions.get(key)
        if get_origin(hint) is Annotated and _is_langchains(hint.__metadata__):
            default, description = (*hint.__metadata__, description)[:2]
            hint = hint.__origin__
        copy.__annotations__[key] = Annotated[_copy_type(hint, copies), Field(default, description=description)]
        if required and default is ...:
            required_keys.add(key)
    copy.__required_keys__ = frozenset(required_keys)


def _documentation(typed_dict: Any) -> tuple[str | None, dict[str, str]]:
    """Return the description of a TypedDict, and of its keys, in its docstring (Google style)."""
    documentation = inspect.cleandoc(typed_dict.__doc__ or "")
    section = _ARGUMENTS.search(documentation)
    if section is None:
        return documentation or None, {}
    descriptions = {key: " ".join(text.split()) for key, text in _ARGUMENT.findall(textwrap.dedent(section[1]))}
    return documentation[: section.start()].strip(), descriptions


def _is_langchains(metadata: tuple[Any, ...]) -> bool:
    """Whether the metadata of an `Annotated` are LangChain's default and description, not pydantic's."""
    default, *description = metadata
    is_default = default is ... or default is None or isinstance(default, (str, int, float, bool, list, dict))
    return is_default and (not description or [type(each) for each in description] == [str])
