"""How constructors take arguments: their names, the meaning of None, and the errors for wrong ones."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, get_args

from langchain_core.load.serializable import Serializable
from pydantic import ConfigDict, ValidationError, model_validator

from langchain_petals.calls import without_frames
from langchain_petals.configuration.argument_errors import positional_message, suggestion, validation_message
from langchain_petals.configuration.options import NAMES
from langchain_petals.errors import InvalidRequestError, PetalsError
from langchain_petals.hub import KEY_FIELDS, check_names, with_hidden_key


class ArgumentChecks(Serializable):
    """Base of classes whose constructors raise `PetalsError`s that name the wrong argument and hold no key."""

    model_config = ConfigDict(populate_by_name=True, extra="forbid", arbitrary_types_allowed=True)

    _of_calls: ClassVar[frozenset[str]] = frozenset()
    """Arguments of a call that are not generation options."""

    def __init__(self, *arguments: Any, **fields: Any) -> None:
        """Make an object, which loads its model on first use, or now with `preload=True`.

        Raises:
            InvalidRequestError: An argument is unknown, of a wrong type or out of range, or contradicts another one.
            PetalsError: With `preload=True`, the model cannot be loaded.
        """
        fields = with_hidden_key(fields)  # from here on, no frame holds the key as plain text
        if arguments:
            message = positional_message(type(self).__name__, arguments[0])
            del arguments  # the key may be in it
            raise InvalidRequestError(message)
        problems: list[PetalsError] = []
        try:
            super().__init__(**fields)
            self._complete()
        except ValidationError as error:  # the error holds all arguments, and so the key
            message = validation_message(error, unknown_name=self._unknown_argument, secrets=KEY_FIELDS)
            problems.append(InvalidRequestError(message))
        except PetalsError as error:
            problems.append(without_frames(error))
        if problems:
            raise problems.pop()  # its traceback holds this frame, so no variable may hold the error

    def _complete(self) -> None:
        """Do the work that must wait until all arguments are checked."""

    @model_validator(mode="before")
    @classmethod
    def _collect_extra(cls, values: Any) -> Any:
        """Drop None where a field does not allow it, and move options that are not fields to `model_kwargs`."""
        if not isinstance(values, dict):
            return values
        check_names(values)
        for alias, name in cls._aliases().items():
            if values.get(alias) is not None and values.get(name) is not None:
                msg = f"{alias} and {name} are both given, but are two names of one argument; give it once"
                raise InvalidRequestError(msg)
        known = cls._argument_names()
        values = {name: value for name, value in values.items() if value is not None or cls._can_be_none(name)}
        others = {name: value for name, value in values.items() if name not in known}
        if not others:
            return values
        if wrong := others.keys() - NAMES:
            raise InvalidRequestError("; ".join(map(cls._unknown_argument, sorted(wrong))))
        own = {name: value for name, value in values.items() if name in known}
        more = own.get("model_kwargs", {})
        if not isinstance(more, Mapping):  # pydantic reports it
            return own
        if twice := [name for name in others if more.get(name) is not None]:
            msg = f"{', '.join(sorted(twice))} given twice, as an argument and in model_kwargs; give it once"
            raise InvalidRequestError(msg)
        for name in others:
            warnings.warn(
                f"{name} is no field of {cls.__name__}; it was moved to model_kwargs and is checked there.",
                stacklevel=5,  # this function, the constructors of pydantic, LangChain and this class, the caller
            )
        return {**own, "model_kwargs": {**more, **others}}

    @classmethod
    def _aliases(cls) -> dict[str, str]:
        return {field.alias: name for name, field in cls.model_fields.items() if field.alias}

    @classmethod
    def _argument_names(cls) -> set[str]:
        return {*cls.model_fields, *cls._aliases()}

    @classmethod
    def _can_be_none(cls, argument: str) -> bool:
        field = cls.model_fields.get(cls._aliases().get(argument, argument))
        if field is None:
            return argument not in NAMES
        return field.annotation is Any or type(None) in get_args(field.annotation)

    @classmethod
    def _unknown_argument(cls, name: str) -> str:
        if name in cls._of_calls:
            return f"{name} is given with a call, or by bind, and not to the constructor of {cls.__name__}"
        names, rest = cls._argument_names() | NAMES, f"help({cls.__name__}) shows its arguments"
        return f"{name!r} is no argument of {cls.__name__}{suggestion(name, names, rest)}"
