"""The options of one call, merged from the constructor, `model_kwargs` and the call's arguments."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, NonNegativeInt, ValidationError, model_validator

from langchain_petals.configuration.argument_errors import suggestion, validation_message
from langchain_petals.engine.request import Sampling
from langchain_petals.errors import InvalidRequestError, PromptTooLongError
from langchain_petals.grammars import Constraint, json_grammar, lark_grammar, regex_grammar, schema_check, schema_rule
from langchain_petals.schemas import closed_schema_of, object_schema_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from typing_extensions import Self

DEFAULT_MAX_NEW_TOKENS = 256

OTHER_NAMES = {"max_tokens": "max_new_tokens"}
"""Further names of options, which users of LangChain know."""

CONSTRAINT_OPTIONS = ("json_schema", "regex", "grammar")
"""Options that constrain the text of an answer; a call can have one of them."""


def stop_sequences(value: Any) -> Any:
    """Return a list for a string (empty for an empty one) or None, and other values unchanged."""
    if value is None or isinstance(value, str):
        return [value] if value else []
    return value


# Beyond these limits, logits overflow in single precision.
_MIN_TEMPERATURE, _MAX_TEMPERATURE, _MAX_PENALTY = 1e-5, 1e6, 1e3

# Each answer is a row, and each beam copies the logits. Larger numbers are mistakes, and would fill the memory.
_MAX_ANSWERS, _MAX_BEAMS = 10_000, 256

LONGEST_WAIT = 10**9  # seconds; Python's locks do not accept ten times as much

Seconds = Annotated[float, Field(gt=0, le=LONGEST_WAIT, allow_inf_nan=False)]
"""A time limit in seconds."""


def _schema_of(source: Any) -> dict[str, Any]:
    found = object_schema_of(source)
    schema = closed_schema_of(found)
    if found.strict:
        json_grammar(schema)  # raises for what it cannot enforce
    return schema


JsonSchema = Annotated[dict[str, Any], BeforeValidator(_schema_of)]
"""A JSON schema, or a class or tool that has one; its objects are closed unless it allows further properties."""


class GenerationOptions(BaseModel):
    """The options of one call, merged from the constructor (`PetalsParameters`), `model_kwargs` and the call.

    Each prompt becomes `n` `Request`s with these options, one for each row.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    temperature: float = Field(default=0.7, ge=0, le=_MAX_TEMPERATURE)
    top_p: float | None = Field(default=0.9, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0)
    min_p: float | None = Field(default=None, gt=0, le=1)
    typical_p: float | None = Field(default=None, gt=0, le=1)
    repetition_penalty: float | None = Field(default=None, ge=1 / _MAX_PENALTY, le=_MAX_PENALTY)
    no_repeat_ngram_size: int = Field(default=0, ge=0)
    bad_words_ids: tuple[Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)], ...] | None = None
    min_new_tokens: int = Field(default=0, ge=0)
    do_sample: bool = True
    max_new_tokens: int | None = Field(default=None, ge=1)
    max_length: int | None = Field(default=None, ge=1)
    n: int = Field(default=1, ge=1, le=_MAX_ANSWERS)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    num_beams: int = Field(default=1, ge=1, le=_MAX_BEAMS)
    logprobs: bool = False
    top_logprobs: int | None = Field(default=None, ge=0)
    stop: Annotated[tuple[str, ...], BeforeValidator(stop_sequences)] = ()
    json_schema: JsonSchema | None = None
    regex: str | None = None
    grammar: str | None = None
    timeout: Seconds | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_length is not None and self.max_new_tokens is not None:
            msg = "max_length (prompt and answer together) and max_new_tokens (the answer) are both set; set one"
            raise ValueError(msg)
        if "" in self.stop:
            msg = "a stop sequence is empty, which would end every answer before it begins; remove it"
            raise ValueError(msg)
        if self.top_logprobs is not None and not self.logprobs:
            msg = "top_logprobs needs logprobs=True"
            raise ValueError(msg)
        if self.num_beams > 1 and (self.n > 1 or self.logprobs or self.min_p is not None or self.seed is not None):
            msg = "num_beams > 1 does not go together with n > 1, logprobs, min_p or seed; leave those out"
            raise ValueError(msg)
        if self.constraint is not None and self.num_beams > 1:
            msg = "num_beams > 1 does not go together with json_schema, regex or grammar; set num_beams=1"
            raise ValueError(msg)
        return self

    @property
    def constraint(self) -> Constraint | None:
        """The constraint on the text of an answer; None for free text.

        Raises:
            InvalidRequestError: More than one is given, or it cannot be expressed as a grammar.
        """
        if sum(getattr(self, name) is not None for name in CONSTRAINT_OPTIONS) > 1:
            msg = "json_schema, regex and grammar are different ways to say what an answer looks like; set one of them"
            raise InvalidRequestError(msg)
        if self.json_schema is not None:
            return Constraint(json_grammar(self.json_schema, strict=False))
        if self.regex is not None:
            return Constraint(regex_grammar(self.regex))
        return None if self.grammar is None else Constraint(lark_grammar(self.grammar))

    @property
    def warnings(self) -> Iterator[str]:
        """Warnings about keywords of the schema that the grammar does not enforce."""
        if self.json_schema is not None:
            warning = schema_rule(self.json_schema, "json_schema", strict=False).warning
            if warning is not None:
                yield f"In json_schema, {warning}; an answer that breaks it comes with a warning and a schema_error."

    def problem_of(self, text: str) -> str | None:
        """Return how an answer breaks keywords of the schema that the grammar does not enforce, or None."""
        if self.json_schema is None or not schema_rule(self.json_schema, "json_schema", strict=False).left_out:
            return None
        return schema_check(self.json_schema).problem(json.loads(text))

    def sampling(self, row: int) -> Sampling:
        """Return the sampling options of answer `row` (of `n`) to a prompt."""
        return Sampling(
            temperature=self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=self.top_k or None,
            min_p=self.min_p,
            typical_p=self.typical_p,
            repetition_penalty=self.repetition_penalty or 1.0,
            no_repeat_ngram_size=self.no_repeat_ngram_size,
            bad_words_ids=self.bad_words_ids or (),
            min_new_tokens=self.min_new_tokens,
            greedy=not self.do_sample or self.temperature < _MIN_TEMPERATURE,
            seed=None if self.seed is None else self.seed + row,
        )

    def budget(self, prompt_tokens: int, context_length: int | None) -> int:
        """Return the maximum number of new tokens after a prompt; a `context_length` of None is no limit.

        Raises:
            PromptTooLongError: There is no room for a new token.
        """
        limits = [limit for limit in (self.max_length, context_length) if limit is not None]
        room = min(limits) - prompt_tokens if limits else None
        if room is not None and room < 1:
            raise PromptTooLongError(prompt_tokens, min(limits))
        wanted = self.max_new_tokens or (room if self.max_length else DEFAULT_MAX_NEW_TOKENS)
        return min(each for each in (wanted, room) if each is not None)


OPTION_NAMES = frozenset(GenerationOptions.model_fields)
NAMES = OPTION_NAMES | set(OTHER_NAMES)
"""All names of options."""

_NEVER_NONE = frozenset(
    name for name, field in GenerationOptions.model_fields.items() if type(None) not in get_args(field.annotation)
)


def _unknown_option(name: str) -> str:
    return f"{name!r} is no generation option{suggestion(name, NAMES)}"


def added_up(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge option layers. A later layer overrides an earlier one, and None in a layer means not set.

    `max_new_tokens` and `max_length` replace each other: only the one in the later layer is kept. So do `json_schema`,
    `regex` and `grammar`.
    """
    chosen: dict[str, Any] = {}
    for layer in layers:
        options = {OTHER_NAMES.get(name, name): value for name, value in layer.items() if value is not None}
        if "max_length" in options:
            chosen["max_new_tokens"] = None
        elif "max_new_tokens" in options:
            chosen["max_length"] = None
        if not options.keys().isdisjoint(CONSTRAINT_OPTIONS):
            chosen |= dict.fromkeys(CONSTRAINT_OPTIONS)
        chosen |= options
        for name in layer:
            chosen.setdefault(OTHER_NAMES.get(name, name), None)
    return {name: value for name, value in chosen.items() if value is not None or name not in _NEVER_NONE}


def resolve_options(
    *layers: Mapping[str, Any], unknown_name: Callable[[str], str] = _unknown_option
) -> GenerationOptions:
    """Merge and check option layers; see `added_up`.

    Raises:
        InvalidRequestError: An option is unknown, out of range or contradicts another; names it.
    """
    try:
        return GenerationOptions(**added_up(*layers))
    except ValidationError as error:
        given = {OTHER_NAMES[name]: name for layer in layers for name in layer if name in OTHER_NAMES}
        message = validation_message(error, unknown_name=unknown_name, given=given)
    raise InvalidRequestError(message)
