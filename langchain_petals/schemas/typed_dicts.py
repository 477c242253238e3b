"""TypedDicts as pydantic classes: both describe an object, and pydantic knows how to write that as a JSON schema.

`pydantic.TypeAdapter` knows TypedDicts too, but not `typing.TypedDict` before Python 3.12, and not LangChain's way to
say more of a key: `Annotated[type, default, "description"]`, with `...` where there is no default.
"""

from __future__ import annotations

import inspect
import re
import textwrap
import types
from typing import Annotated, Any, ForwardRef, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Field, create_model
from pydantic.errors import PydanticUserError
from typing_extensions import NotRequired, ReadOnly, Required, get_type_hints, is_typeddict

from langchain_petals.errors import InvalidRequestError

_ARGUMENTS = re.compile(r"^(?:Args|Attributes):\n((?:[ \t].*(?:\n|\Z)|\n)+)", re.MULTILINE)
_ARGUMENT = re.compile(r"^(\w+)(?: \([^)]*\))?:(.*(?:\n(?:[ \t].*|$))*)", re.MULTILINE)


def class_of_typed_dict(typed_dict: Any) -> type[BaseModel]:
    """Return a pydantic class whose JSON schema is that of a TypedDict.

    Args:
        typed_dict: It may contain others, and itself.

    Raises:
        InvalidRequestError: One of its keys has a type that pydantic cannot describe.
    """
    rebuilding = _Rebuilding()
    try:
        root = rebuilding.name(typed_dict)
        for model in rebuilding.models.values():
            model.model_rebuild(_types_namespace=rebuilding.models)
    except (PydanticUserError, NameError, TypeError) as error:
        msg = f"no JSON schema can be made of {typed_dict.__name__}: {error}"
        raise InvalidRequestError(msg) from error
    return rebuilding.models[root]


class _Rebuilding:
    """The classes for a TypedDict and all that it refers to, by their names."""

    def __init__(self) -> None:
        self._names: dict[Any, str] = {}
        self.models: dict[str, type[BaseModel]] = {}

    def name(self, typed_dict: Any) -> str:
        """Return the name of the class for a TypedDict, building it at first."""
        if typed_dict not in self._names:
            taken = sum(each.__name__ == typed_dict.__name__ for each in self._names)
            name = self._names[typed_dict] = typed_dict.__name__ + (f"_{taken + 1}" if taken else "")
            keys = get_type_hints(typed_dict, include_extras=True).items()
            documentation, said = _documentation(typed_dict)
            # names of its own, since a key may be called what a pydantic class has already
            fields: Any = {
                f"field_{index}": self._field(key, hint, said.get(key), required=key in typed_dict.__required_keys__)
                for index, (key, hint) in enumerate(keys)
            }
            self.models[name] = create_model(name, __doc__=documentation, **fields)
        return self._names[typed_dict]

    def _field(self, key: str, hint: Any, description: str | None, *, required: bool) -> tuple[Any, Any]:
        """Return the type of a key's value, and what else pydantic has to know of it."""
        while get_origin(hint) in (Required, NotRequired, ReadOnly):
            required = required if get_origin(hint) is ReadOnly else get_origin(hint) is Required
            (hint,) = get_args(hint)
        default: Any = ...
        if get_origin(hint) is Annotated and _is_langchains(hint.__metadata__):
            default, description = (*hint.__metadata__, description)[:2]
            hint = hint.__origin__
        absent: dict[str, Any] = {}
        if default is not ...:
            absent["default"] = default
        elif not required:
            absent["default_factory"] = lambda: None  # unlike a default, it is not in the schema
        return self._rebuilt(hint), Field(alias=key, description=description, **absent)

    def _rebuilt(self, hint: Any) -> Any:
        """Return a type in which classes stand for TypedDicts."""
        if is_typeddict(hint):
            return ForwardRef(self.name(hint))
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is Annotated:
            parts = (self._rebuilt(hint.__origin__), *hint.__metadata__)
            return Annotated[parts]
        if not arguments or origin is Literal:
            return hint
        rebuilt = tuple(self._rebuilt(each) for each in arguments)
        return Union[rebuilt] if origin in (Union, types.UnionType) else origin[rebuilt]  # noqa: UP007 - of any number


def _documentation(typed_dict: Any) -> tuple[str | None, dict[str, str]]:
    """Return what a TypedDict's docstring (in Google's style) says of it, and of its keys."""
    if not typed_dict.__doc__:
        return None, {}
    documentation = inspect.cleandoc(typed_dict.__doc__)
    section = _ARGUMENTS.search(documentation)
    if section is None:
        return documentation, {}
    said = {key: " ".join(text.split()) for key, text in _ARGUMENT.findall(textwrap.dedent(section[1]))}
    return documentation[: section.start()].strip(), said


def _is_langchains(metadata: tuple[Any, ...]) -> bool:
    """Whether `Annotated` has LangChain's default and description, or what pydantic understands."""
    default, *description = metadata
    is_default = default is ... or default is None or isinstance(default, (str, int, float, bool, list, dict))
    return is_default and (not description or [type(each) for each in description] == [str])
