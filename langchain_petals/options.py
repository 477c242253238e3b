"""What can be said about one generation, and how constructor, `model_kwargs` and call arguments add up to it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, NonNegativeInt, ValidationError, model_validator

from langchain_petals.engine.grammars import check_of, express, json_grammar, lark_grammar, regex_grammar
from langchain_petals.engine.request import Constraint, Sampling
from langchain_petals.errors import InvalidRequestError, PromptTooLongError
from langchain_petals.schemas import closed_schema_of, form_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from typing_extensions import Self

DEFAULT_MAX_NEW_TOKENS = 256

OTHER_NAMES = {"max_tokens": "max_new_tokens"}
"""Further names of options that LangChain's users know."""

_FORMS = ("json_schema", "regex", "grammar")

CUT_SHORT = (
    "The token limit ended an answer before the model came to its end: it fits its form, but a part of it is cut off "
    "or made up. Raise max_tokens, or look at finish_reason."
)
"""What a user has to know of an answer of a given form that was ended early."""


def _schema_of(form: Any) -> dict[str, Any]:
    found = form_of(form)
    schema = closed_schema_of(found)
    if found.strict:
        json_grammar(schema)  # refuses what it cannot keep to
    return schema


JsonSchema = Annotated[dict[str, Any], BeforeValidator(_schema_of)]
"""A JSON schema, whose objects have no other properties than it names unless it says so; from whatever has one."""


class GenerationOptions(BaseModel):
    """All that can be said about one generation; the sum of constructor, `model_kwargs` and call arguments."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = Field(default=0.7, ge=0)
    top_p: float | None = Field(default=0.9, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0)
    min_p: float | None = Field(default=None, gt=0, le=1)
    typical_p: float | None = Field(default=None, gt=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0)
    no_repeat_ngram_size: int = Field(default=0, ge=0)
    bad_words_ids: tuple[Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)], ...] | None = None
    min_new_tokens: int = Field(default=0, ge=0)
    do_sample: bool = True
    max_new_tokens: int | None = Field(default=None, ge=1)
    max_length: int | None = Field(default=None, ge=1)
    n: int = Field(default=1, ge=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    num_beams: int = Field(default=1, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(default=None, ge=0)
    stop: tuple[str, ...] = ()
    json_schema: JsonSchema | None = None
    regex: str | None = None
    grammar: str | None = None
    timeout: float | None = Field(default=None, gt=0)

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
        """What the answer has to look like.

        Raises:
            InvalidRequestError: It is said in more than one way, or cannot be expressed as a grammar.
        """
        if sum(getattr(self, name) is not None for name in _FORMS) > 1:
            msg = "json_schema, regex and grammar are different ways to say what an answer looks like; set one of them"
            raise InvalidRequestError(msg)
        if self.json_schema is not None:
            return Constraint(json_grammar(self.json_schema, strict=False))
        if self.regex is not None:
            return Constraint(regex_grammar(self.regex))
        return None if self.grammar is None else Constraint(lark_grammar(self.grammar))

    @property
    def warnings(self) -> Iterator[str]:
        """What a user has to know of the schema: what the grammar does not keep to."""
        if self.json_schema is not None:
            warning = express(self.json_schema, "json_schema", strict=False).warning
            if warning is not None:
                yield f"In json_schema, {warning}; an answer that breaks it comes with a warning and a schema_error."

    def problem_of(self, text: str) -> str | None:
        """Return what is wrong with an answer that a grammar could not see to; None if nothing is."""
        if self.json_schema is None or not express(self.json_schema, "json_schema", strict=False).left_out:
            return None
        return check_of(self.json_schema).problem(json.loads(text))

    def sampling(self, row: int) -> Sampling:
        """Return how to choose the tokens of answer `row` (of `n`) to a prompt."""
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
            greedy=not self.do_sample or self.temperature == 0,
            seed=None if self.seed is None else self.seed + row,
        )

    def budget(self, prompt_tokens: int, context_length: int | None) -> int:
        """Return how many new tokens there may be after a prompt.

        Args:
            prompt_tokens: Tokens of the prompt.
            context_length: Tokens that the model can hold, None for no limit.

        Raises:
            PromptTooLongError: There is room for none.
        """
        limits = [limit for limit in (self.max_length, context_length) if limit is not None]
        room = min(limits) - prompt_tokens if limits else None
        if room is not None and room < 1:
            raise PromptTooLongError(prompt_tokens, min(limits))
        wanted = self.max_new_tokens or (room if self.max_length else DEFAULT_MAX_NEW_TOKENS)
        return min(each for each in (wanted, room) if each is not None)


OPTION_NAMES = frozenset(GenerationOptions.model_fields)


def merged(*layers: Mapping[str, Any]) -> GenerationOptions:
    """Add up options, each layer overriding the ones before it.

    Of the two limits on the length, `max_new_tokens` and `max_length`, the one in the later layer counts; likewise of
    `json_schema`, `regex` and `grammar`.

    Raises:
        InvalidRequestError: An option is unknown, out of range or contradicts another; names it.
    """
    chosen: dict[str, Any] = {}
    for layer in layers:
        options = {OTHER_NAMES.get(name, name): value for name, value in layer.items()}
        if options.get("max_length") is not None:
            chosen["max_new_tokens"] = None
        elif options.get("max_new_tokens") is not None:
            chosen["max_length"] = None
        if any(options.get(name) is not None for name in _FORMS):
            chosen |= dict.fromkeys(_FORMS)
        chosen |= options
    stop = chosen.get("stop") or ()
    chosen["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
    try:
        return GenerationOptions(**chosen)
    except ValidationError as error:
        raise InvalidRequestError("; ".join(map(_explained, error.errors()))) from None


def _explained(problem: Any) -> str:
    name = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"{name!r} is no generation option; there are {', '.join(sorted(OPTION_NAMES | set(OTHER_NAMES)))}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{name}: {message} (got {problem['input']!r})" if name else message
