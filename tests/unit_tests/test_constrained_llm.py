"""`Petals` with json_schema, regex and grammar: its calls, and the constraints that it refuses at once."""

from __future__ import annotations

import json
import re
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.load import dumps, loads
from pydantic import BaseModel, Field, create_model
from pydantic.v1 import BaseModel as BaseModelV1
from saying_model import SayingModel
from typing_extensions import TypedDict

from langchain_petals import Petals
from langchain_petals.errors import InvalidRequestError, OutputLimitError
from langchain_petals.schemas import closed, closed_schema_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedTokenizerFast

PROMPT = "Human: Who are you?\nAI:"


class Person(BaseModel):
    """Someone."""

    name: str = Field(max_length=12)
    age: int | None = None
    friends: list[Person] = []


class OldPerson(BaseModelV1):
    """Someone, as pydantic 1 knows them."""

    name: str


class Place(TypedDict):
    """Somewhere."""

    name: str
    tags: list[str]


def test_answer_fits_a_pydantic_class(petals_llm: Callable[..., Petals]) -> None:
    llm = petals_llm(json_schema=Person, max_new_tokens=60)
    answer = llm.invoke(PROMPT)
    assert Person.model_validate_json(answer).name is not None
    assert "".join(llm.stream(PROMPT)) == answer
    assert llm.batch([PROMPT, PROMPT]) == [answer, answer]


async def test_answer_fits_in_async_calls_too(petals_llm: Callable[..., Petals]) -> None:
    llm = petals_llm(json_schema=Person, max_new_tokens=60)
    answer = await llm.ainvoke(PROMPT)
    assert answer == llm.invoke(PROMPT)
    assert "".join([piece async for piece in llm.astream(PROMPT)]) == answer


def test_several_answers_all_fit_their_schema(petals_llm: Callable[..., Petals]) -> None:
    """Also if the token limit ended some of them; one warning says so."""
    llm = petals_llm(temperature=2, seed=1, n=4, max_new_tokens=40)
    with pytest.warns(UserWarning, match="token limit ended an answer") as told:
        [generations] = llm.generate([PROMPT], json_schema=Place).generations
    assert len(told) == 1
    answers = [json.loads(generation.text) for generation in generations]
    assert len(answers) == 4
    assert all(list(answer) == ["name", "tags"] for answer in answers)


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ({"regex": "[0-9]{3}|no"}, "^([0-9]{3}|no)$"),
        ({"grammar": 'start: "(" WORD ")"\nWORD: /[a-z]{1,5}/'}, r"^\([a-z]{1,5}\)$"),
        ({"json_schema": {"enum": [1, 22, 333]}}, "^(1|22|333)$"),
    ],
)
def test_constraint_of_call_or_object_applies(
    petals_llm: Callable[..., Petals], form: dict[str, Any], pattern: str
) -> None:
    for answer in (
        petals_llm(**form, max_new_tokens=9).invoke(PROMPT),
        petals_llm(max_new_tokens=9).invoke(PROMPT, **form),
    ):
        assert re.search(pattern, answer)


def class_called_same(kind: type) -> type[BaseModel]:
    return create_model("Same", a=(kind, ...))


async def test_cache_tells_classes_of_one_name_apart(petals_llm: Callable[..., Petals]) -> None:
    llm = petals_llm(cache=InMemoryCache(), max_new_tokens=20)
    for kind in (int, bool):
        for answer in (
            llm.invoke(PROMPT, json_schema=class_called_same(kind)),
            await llm.ainvoke(PROMPT, json_schema=class_called_same(kind)),
        ):
            assert type(json.loads(answer)["a"]) is kind


def test_constraint_of_a_call_replaces_that_of_the_object(petals_llm: Callable[..., Petals]) -> None:
    llm = petals_llm(json_schema=Person, max_new_tokens=40)
    assert set(llm.invoke(PROMPT, regex="a{3}")) == {"a"}


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ({"json_schema": {"name": "N", "schema": {"not": {}}, "strict": True}}, "Unimplemented keys"),
        ({"json_schema": int}, "a JSON schema, a pydantic class or a TypedDict is needed"),
        ({"regex": "("}, "unclosed group"),
        ({"grammar": "begin: /a/"}, "start"),
        ({"regex": "a", "grammar": "start: /a/"}, "set one of them"),
        ({"regex": "a", "model_kwargs": {"num_beams": 2}}, "num_beams=1"),
    ],
)
def test_constraint_that_cannot_be_guaranteed_is_refused_at_once(
    petals_llm: Callable[..., Petals], form: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidRequestError, match=reason):
        petals_llm(**form, max_new_tokens=9)
    call = form | form.get("model_kwargs", {})
    call.pop("model_kwargs", None)
    with pytest.raises(InvalidRequestError, match=reason):
        petals_llm(max_new_tokens=9).invoke(PROMPT, **call)


@pytest.mark.parametrize(("budget", "reason"), [(99, "stop"), (18, "length")])
def test_answer_that_the_token_limit_ended_warns(
    petals_llm: Callable[..., Petals], tiny_tokenizer: PreTrainedTokenizerFast, budget: int, reason: str
) -> None:
    wanted = '{"name": "Ada Lovelace, of London, who wrote programs"}'
    llm = petals_llm(client=SayingModel(tiny_tokenizer, wanted), json_schema=OldPerson, max_new_tokens=budget)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        [[generation]] = llm.generate([PROMPT]).generations
        assert "".join(llm.stream(PROMPT)) == generation.text
    assert len(told) == (0 if reason == "stop" else 2)
    assert generation.generation_info is not None
    assert generation.generation_info["finish_reason"] == reason
    assert (json.loads(generation.text) == json.loads(wanted)) == (reason == "stop")


def test_token_limit_that_is_too_small_raises(petals_llm: Callable[..., Petals]) -> None:
    with pytest.raises(OutputLimitError, match=r"within 1 new token\(s\) \(the shortest found has 2\)"):
        petals_llm(json_schema=Person, max_new_tokens=1).invoke(PROMPT)


def test_constraint_is_part_of_the_cache_key_and_survives_serialisation() -> None:
    llm = Petals(model="no/where", json_schema=Person)
    assert llm._identifying_params["json_schema"] == closed_schema_of(Person)
    again = loads(
        dumps(llm), valid_namespaces=["langchain_petals"], allowed_objects=[Petals], secrets_map={"HF_TOKEN": "x"}
    )
    assert again.json_schema == llm.json_schema


@pytest.mark.parametrize("form", [Person, OldPerson, Place])
def test_objects_of_classes_have_no_other_properties(form: Any) -> None:
    schema = closed_schema_of(form)
    schema = schema.get("$defs", {}).get("Person", schema)
    assert schema["additionalProperties"] is False
    assert "name" in schema["properties"]


def test_schema_is_closed_where_it_says_nothing() -> None:
    schema = {
        "properties": {
            "default": {"type": "object", "properties": {}},
            "open": {"properties": {}, "additionalProperties": True},
            "map": {"type": "object"},
        },
        "default": {"properties": {}},
    }
    result = closed(schema)
    assert result["additionalProperties"] is False
    assert result["properties"]["default"]["additionalProperties"] is False
    assert result["properties"]["open"]["additionalProperties"] is True
    assert result["properties"]["map"] == {"type": "object"}
    assert result["default"] == {"properties": {}}
