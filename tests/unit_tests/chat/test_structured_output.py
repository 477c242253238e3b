"""`with_structured_output`: the schemas that each method takes and refuses."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
from typing import TYPE_CHECKING, Annotated, Any, Optional, get_args

import jsonschema
import pytest
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, v1
from pydantic.dataclasses import dataclass as pydantic_dataclass
from saying_model import SayingModel
from typing_extensions import NotRequired, TypedDict

from langchain_petals import ChatPetals
from langchain_petals.chat.response_format import ResponseFormat
from langchain_petals.chat.structured_output import Method
from langchain_petals.chat.tools.formats import HERMES
from langchain_petals.errors import InvalidRequestError
from langchain_petals.schemas.object_schema import closed_schema_of

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

methods = pytest.mark.parametrize("method", get_args(Method))

PLAIN = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 9}}, "required": ["name"]}
FUNCTION = {"name": "Person", "description": "A person.", "parameters": PLAIN}


class Person(BaseModel):
    """A person."""

    name: str = Field(max_length=9)


class OldestPerson(Person):
    """A person who may have an age."""

    age: int | None = None


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def saying(tokenizer: Any, text: str, **fields: Any) -> ChatPetals:
    """Return a chat model that says a text."""
    own = {"client": SayingModel(tokenizer, text), "tokenizer": tokenizer, "temperature": 0, "chat_template": "chatml"}
    return ChatPetals(model="saying", **own | fields)


@pytest.fixture
def chat(random_model: LlamaForCausalLM, merging_tokenizer: PreTrainedTokenizerFast) -> ChatPetals:
    """Return a chat model that talks nonsense."""
    fields: dict[str, Any] = {"temperature": 1, "seed": 3, "max_tokens": 120, "chat_template": "chatml"}
    return ChatPetals(model="random", client=random_model, tokenizer=merging_tokenizer, **fields)


@methods
@pytest.mark.parametrize(
    "schema",
    [
        pytest.param(PLAIN, id="a schema without title"),
        pytest.param(FUNCTION, id="a function"),
        pytest.param({"type": "function", "function": FUNCTION}, id="a tool"),
        pytest.param({"name": "Person", "schema": PLAIN, "strict": True}, id="a named schema"),
        pytest.param({"type": "json_schema", "json_schema": {"name": "Person", "schema": PLAIN}}, id="a format"),
        pytest.param({"name": "Person", "input_schema": PLAIN}, id="Anthropic's"),
    ],
)
def test_a_json_schema_gives_dictionaries(chat: ChatPetals, method: Any, schema: dict[str, Any]) -> None:
    if method != "json_mode":  # of which a model that talks nonsense finds no end
        jsonschema.validate(chat.with_structured_output(schema, method=method).invoke("Who?"), PLAIN)
    traced = chat.with_structured_output(schema, method=method).first.kwargs["ls_structured_output_format"]["schema"]  # type: ignore[attr-defined]
    assert traced["title"] == ("answer" if schema is PLAIN else "Person")
    assert traced["properties"] == PLAIN["properties"]


@pytest.mark.parametrize("schema", [{"type": "nothing"}, {"$ref": "#/$defs/Gone"}])
def test_a_meaningless_schema_of_an_answer_is_refused(chat: ChatPetals, schema: dict[str, Any]) -> None:
    """A tool's schema may come from elsewhere and is not refused; this one is written by the caller."""
    with pytest.raises(InvalidRequestError, match="#/properties/a"):
        chat.with_structured_output({"type": "object", "properties": {"a": schema}})


@methods
@pytest.mark.parametrize("schema", [list[Person], {"name": "Person"}, add])
def test_a_schema_that_describes_no_object_is_refused(chat: ChatPetals, method: Any, schema: Any) -> None:
    with pytest.raises(InvalidRequestError, match="JSON schema"):
        chat.with_structured_output(schema, method=method)


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize("named", [False, True])
def test_strict_schema_that_no_grammar_expresses_is_refused_at_once(
    chat: ChatPetals, method: Any, *, named: bool
) -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {"x": {"not": {}}}}
    strict = None if named else True
    with pytest.raises(InvalidRequestError, match=r"'not' at #/properties/x cannot be enforced"):
        chat.with_structured_output(
            {"name": "N", "schema": schema, "strict": True} if named else schema, method=method, strict=strict
        )


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize("schema", [Person, PLAIN])
@pytest.mark.parametrize("strict", [None, True, False])
def test_strict_false_allows_further_properties(chat: ChatPetals, method: Any, schema: Any, *, strict: bool) -> None:
    bound = chat.with_structured_output(schema, method=method, strict=strict).first  # type: ignore[attr-defined]
    kwargs = {name: value for name, value in bound.kwargs.items() if name != "ls_structured_output_format"}
    constraint = ResponseFormat.from_call(kwargs).constraint(HERMES)
    assert constraint is not None
    assert ('"additionalProperties": false' in (constraint.grammar or "")) == (strict is not False)


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("function_calling", {"tools": [add]}),
        ("function_calling", {"tool_choice": "any"}),
        ("function_calling", {"parallel_tool_calls": True}),
        ("json_schema", {"response_format": {"type": "text"}}),
        ("json_mode", {"response_format": {"type": "text"}}),
    ],
)
def test_options_that_the_method_sets_are_refused(chat: ChatPetals, method: Any, more: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match=f"{next(iter(more))} cannot be given beside method='{method}'"):
        chat.with_structured_output(Person, method=method, **more)


def test_function_calling_refuses_schemas_of_other_types_than_object(chat: ChatPetals) -> None:
    with pytest.raises(InvalidRequestError, match=r"'answer' is no object.*json_schema"):
        chat.with_structured_output({"type": "array"}, method="function_calling")
    assert isinstance(chat.with_structured_output({"type": "array", "maxItems": 1}).invoke("Which?"), list)


class Colour(enum.Enum):
    """A colour."""

    RED = "red"


class Strict(BaseModel):
    """Takes in Python what it is, and in JSON how that is written."""

    model_config = ConfigDict(strict=True)

    day: dt.date
    colour: Colour
    pair: tuple[int, int]


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_strict_pydantic_classes_are_parsed_as_json(chat: ChatPetals, method: Any) -> None:
    structured = chat.with_structured_output(Strict, method=method)
    assert isinstance(structured.invoke("When?"), Strict)
    assert isinstance(list(structured.stream("When?"))[-1], Strict)


class OldPerson(v1.BaseModel):
    """A person."""

    name: str = v1.Field(max_length=9)


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_classes_of_pydantic_1_are_taken(chat: ChatPetals, method: Any) -> None:
    assert isinstance(chat.with_structured_output(OldPerson, method=method).invoke("Who?"), OldPerson)


@pytest.mark.parametrize(
    "response_format",
    [
        {"type": "json_schema", "json_schema": {"name": "Person", "schema": PLAIN}},
        {"type": "json_schema", "json_schema": PLAIN},
        {"type": "json_object", "schema": PLAIN},
    ],
)
def test_schema_of_a_response_format_is_kept_wherever_it_stands(
    chat: ChatPetals, response_format: dict[str, Any]
) -> None:
    jsonschema.validate(json.loads(chat.invoke("Who?", response_format=response_format).text), PLAIN)


def test_response_format_with_a_misspelt_schema_is_refused(chat: ChatPetals) -> None:
    misspelt = {"type": "json_schema", "json_schema": {"name": "Person", "shema": PLAIN}}
    with pytest.raises(InvalidRequestError, match="'shema'"):
        chat.invoke("Who?", response_format=misspelt)


@pytest.mark.parametrize("response_format", [Person, {"type": "json_schema", "json_schema": PLAIN}])
def test_strict_beside_a_response_format_says_whether_it_is_closed(response_format: Any) -> None:
    for strict, closed in ((None, True), (True, True), (False, False)):
        form = ResponseFormat.from_call({"response_format": response_format, "strict": strict})
        assert form.schema is not None
        assert ("additionalProperties" in form.schema) == closed


def test_the_prompt_describes_a_named_schema(chat: ChatPetals) -> None:
    named = {"name": "Person", "description": "In French.", "schema": PLAIN}
    bound = chat.with_structured_output(named).first  # type: ignore[attr-defined]
    form = ResponseFormat.from_call({"response_format": bound.kwargs["response_format"]})
    assert form.schema is not None
    assert form.schema["description"] == "In French."


def test_json_mode_refuses_schemas_of_other_types_than_object(chat: ChatPetals) -> None:
    with pytest.raises(InvalidRequestError, match="objects only"):
        chat.with_structured_output({"type": "array"}, method="json_mode")


class Employee(TypedDict):
    """Somebody who may have a boss."""

    name: NotRequired[str]
    boss: Optional[Employee]  # noqa: UP045 - as people write it


@methods
def test_typed_dict_may_contain_itself_and_leave_keys_out(chat: ChatPetals, method: Any) -> None:
    bound = chat.with_structured_output(Employee, method=method).first  # type: ignore[attr-defined]
    assert bound.kwargs["ls_structured_output_format"]["schema"]["title"] == "Employee"
    schema = closed_schema_of(Employee)
    jsonschema.validate({"boss": {"name": "Ada", "boss": None}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"boss": {"name": "Ada", "boss": "Bob"}}, schema)


@pytest.mark.parametrize("schema", [Person, PLAIN])
def test_answer_that_calls_a_tool_has_no_object(byte_tokenizer: PreTrainedTokenizerFast, schema: Any) -> None:
    said = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'
    chat = saying(byte_tokenizer, said)
    structured = chat.with_structured_output(schema, tools=[add], include_raw=True)
    result = structured.invoke("What is one plus two?")
    assert (result["parsed"], result["parsing_error"]) == (None, None)
    assert [call["args"] for call in result["raw"].tool_calls] == [{"a": 1, "b": 2}]
    assert chat.with_structured_output(schema, tools=[add]).invoke("What is one plus two?") is None


@dataclasses.dataclass
class Place:
    """A place."""

    name: Annotated[str, Field(max_length=9)]
    founded: dt.date | None = None
    rivers: list[str] = dataclasses.field(default_factory=list)


@pydantic_dataclass
class Town:
    """A town."""

    name: Annotated[str, Field(max_length=9)]
    next: Optional[Town] = None  # noqa: UP045 - as people write it


@pydantic_dataclass
class Aliased:
    """Known by other names."""

    called: Annotated[str, Field(max_length=9)] = Field(alias="name")
    seed: dataclasses.InitVar[int] = 0


def test_dataclass_with_aliases_is_taken(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    structured = saying(byte_tokenizer, '{"name": "Oslo", "seed": 5}').with_structured_output(Aliased)
    assert structured.invoke("Where?").called == "Oslo"


@methods
@pytest.mark.parametrize("kind", [Place, Town])
def test_dataclass_is_taken(byte_tokenizer: PreTrainedTokenizerFast, method: Any, kind: Any) -> None:
    said = '{"name": "Oslo"}'
    if method == "function_calling":
        said = f'<tool_call>\n{{"name": "{kind.__name__}", "arguments": {said}}}\n</tool_call>'
    structured = saying(byte_tokenizer, said).with_structured_output(kind, method=method)
    assert structured.invoke("Where?") == kind(name="Oslo")
    assert list(structured.stream("Where?"))[-1] == kind(name="Oslo")


def test_dataclass_is_a_response_format(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    chat = saying(byte_tokenizer, '{"name": "Oslo", "founded": "1048-01-01"}')
    answer = chat.invoke("Where?", response_format=Place)
    assert json.loads(answer.text) == {"name": "Oslo", "founded": "1048-01-01"}


@pytest.mark.parametrize("title", ["auto", "none", "any", "required", "required tool"])
def test_title_is_no_tool_choice(byte_tokenizer: PreTrainedTokenizerFast, title: str) -> None:
    chat = saying(byte_tokenizer, "I would rather talk.", max_tokens=400)
    structured = chat.with_structured_output(PLAIN | {"title": title}, method="function_calling")
    assert isinstance(structured.invoke("Who?")["name"], str)


class Told(BaseModel):
    """Reads what a function tells apart, though more than one class fits."""

    pet: Annotated[
        Annotated[Person, Tag("person")] | Annotated[OldestPerson, Tag("oldest")],
        Discriminator(lambda value: "oldest" if "age" in value else "person"),
    ]
    marks: set[int] = set()


@pytest.mark.parametrize("strict", [None, True])
def test_function_tells_classes_apart_and_sets_lose_duplicates(
    byte_tokenizer: PreTrainedTokenizerFast,
    strict: bool | None,  # noqa: FBT001 - pytest passes it by name
) -> None:
    chat = saying(byte_tokenizer, '{"pet": {"name": "Ada"}, "marks": [5, 5]}')
    told = chat.with_structured_output(Told, strict=strict).invoke("Who?")
    assert told == Told(pet=Person(name="Ada"), marks={5})
