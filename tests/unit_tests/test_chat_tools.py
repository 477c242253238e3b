"""Tool calls and structured output parse and fit their schemas, whatever the model."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import jsonschema
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from pydantic import BaseModel, Field
from pydantic.v1 import BaseModel as BaseModelV1
from pydantic.v1 import constr
from typing_extensions import TypedDict

from langchain_petals import ChatPetals
from langchain_petals.chat.tools.formats import FORMATS
from langchain_petals.errors import InvalidRequestError, OutputLimitError

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

QUESTION = "What is two plus three?"


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def paint(color: Literal["red", "green"], *, thick: bool = False) -> str:
    """Paint something."""
    return f"{color} {thick}"


class Person(BaseModel):
    """A person."""

    name: str = Field(max_length=12)
    age: int | None = None


class PersonV1(BaseModelV1):
    """A person."""

    name: constr(max_length=12)  # type: ignore[valid-type]


class PersonDict(TypedDict):
    """A person."""

    name: Annotated[str, Field(max_length=12)]


@pytest.fixture
def make_chat(random_model: LlamaForCausalLM, merging_tokenizer: PreTrainedTokenizerFast) -> Callable[..., ChatPetals]:
    """Return a factory of chat models that talk nonsense."""

    def make(**fields: Any) -> ChatPetals:
        own = {"client": random_model, "tokenizer": merging_tokenizer, "temperature": 1, "seed": 3, "max_tokens": 120}
        return ChatPetals(model="random", **{"chat_template": "chatml", **own, **fields})

    return make


@pytest.mark.parametrize("tool_format", FORMATS)
@pytest.mark.parametrize("seed", range(3))
def test_a_forced_call_fits_its_schema(make_chat: Callable[..., ChatPetals], tool_format: str, seed: int) -> None:
    chat = make_chat(tool_format=tool_format, seed=seed).bind_tools([add, paint], tool_choice="any")
    answer = chat.invoke(QUESTION)
    assert answer.tool_calls
    assert answer.response_metadata["finish_reason"] in ("tool_calls", "length")  # some never stop calling
    for call in answer.tool_calls:
        tools: dict[str, Any] = {"add": RunnableLambda(add), "paint": paint}
        schema = tools[call["name"]].get_input_jsonschema()
        if call["name"] == "add":
            assert set(call["args"]) == {"a", "b"}
            assert all(isinstance(value, int) for value in call["args"].values())
        else:
            jsonschema.validate(call["args"], schema)
        assert call["id"]
    assert not answer.content
    assert not answer.invalid_tool_calls


@pytest.mark.parametrize(
    "choice", ["add", {"type": "function", "function": {"name": "add"}}, {"type": "tool", "name": "add"}]
)
def test_a_named_tool_is_called(make_chat: Callable[..., ChatPetals], choice: Any) -> None:
    chat = make_chat().bind_tools([paint, add], tool_choice=choice)
    assert [call["name"] for call in chat.invoke(QUESTION).tool_calls] == ["add"]


@pytest.mark.parametrize("tool_format", FORMATS)
def test_streamed_parts_make_the_same_calls(make_chat: Callable[..., ChatPetals], tool_format: str) -> None:
    chat = make_chat(tool_format=tool_format, temperature=0).bind_tools([add, paint], tool_choice="any")
    whole = chat.invoke(QUESTION)
    chunks: list[Any] = list(chat.stream(QUESTION))
    assert max(len(chunk.tool_call_chunks) for chunk in chunks) == 1
    assert len([chunk for chunk in chunks if chunk.tool_call_chunks]) > 2, "arguments come as they are decoded"
    joined: Any = chunks[0]
    for chunk in chunks[1:]:
        joined += chunk
    calls = [[(call["name"], call["args"]) for call in message.tool_calls] for message in (joined, whole)]
    assert calls[0] == calls[1]
    assert joined.content == whole.content
    assert joined.response_metadata["finish_reason"] == whole.response_metadata["finish_reason"]

    async def streamed() -> list[Any]:
        return [part async for part in chat.astream(QUESTION)]

    assert len(asyncio.run(streamed())) == len(chunks)


def test_tool_choice_none_forbids_calls(make_chat: Callable[..., ChatPetals]) -> None:
    answer = make_chat().bind_tools([add], tool_choice="none").invoke(QUESTION)
    assert not answer.tool_calls
    assert answer.content


def test_an_answer_without_calls_is_text(make_chat: Callable[..., ChatPetals]) -> None:
    chat = make_chat(temperature=0)
    answer = chat.bind_tools([add]).invoke(QUESTION)
    assert not answer.tool_calls
    assert answer.content
    assert answer.response_metadata["finish_reason"] in ("stop", "length")


@pytest.mark.parametrize(
    ("tools", "choice", "reason"),
    [
        ([add], "subtract", r"names no bound tool \(bound: 'add'\)"),
        ([], "any", "needs tools"),
        (
            [
                {
                    "name": "f",
                    "description": "",
                    "strict": True,
                    "parameters": {"properties": {"x": {"type": "string", "pattern": "(?=a)"}}},
                }
            ],
            None,
            "the schema of tool 'f' cannot be used",
        ),
    ],
)
def test_a_schema_that_cannot_be_guaranteed_is_refused_by_bind_tools(
    make_chat: Callable[..., ChatPetals], tools: Any, choice: Any, reason: str
) -> None:
    with pytest.raises(InvalidRequestError, match=reason):
        make_chat().bind_tools(tools, tool_choice=choice)


def test_too_small_a_token_limit_raises_an_error_with_the_partial_text(make_chat: Callable[..., ChatPetals]) -> None:
    chat = make_chat(max_tokens=5).bind_tools([add], tool_choice="any")
    with pytest.raises(OutputLimitError, match="cannot be completed within 5 new token"):
        chat.invoke(QUESTION)


@pytest.mark.parametrize("tool_format", FORMATS)
def test_an_agent_loop_goes_on_from_the_same_tokens(make_chat: Callable[..., ChatPetals], tool_format: str) -> None:
    chat = make_chat(tool_format=tool_format, temperature=0)
    bound = chat.bind_tools([add, paint], tool_choice="any", parallel_tool_calls=False)
    pool = chat._get_engine().pool
    pool.clear()
    messages: list[Any] = [SystemMessage("Be kind."), HumanMessage(QUESTION)]
    held = 0
    for result in "565656":
        answer = bound.invoke(messages)
        assert answer.usage_metadata is not None
        assert answer.usage_metadata["input_token_details"]["cache_read"] == held
        messages += [answer, *(ToolMessage(result, tool_call_id=call["id"]) for call in answer.tool_calls)]
        [session] = pool._idle
        held = session.position


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize("schema", [Person, PersonV1, PersonDict, Person.model_json_schema()])
def test_structured_output_fits_its_schema(make_chat: Callable[..., ChatPetals], method: Any, schema: Any) -> None:
    model = make_chat().with_structured_output(schema, method=method)
    parsed = model.invoke(QUESTION)
    if isinstance(schema, type) and issubclass(schema, (BaseModel, BaseModelV1)):
        assert isinstance(parsed, schema)
    else:
        assert isinstance(parsed["name"], str)
    *_, last = model.stream(QUESTION)
    assert type(last) is type(parsed)


def test_json_mode_gives_an_object(make_chat: Callable[..., ChatPetals]) -> None:
    parsed = make_chat().with_structured_output(method="json_mode").invoke(QUESTION)
    assert isinstance(parsed, dict)


def test_include_raw_returns_message_and_object(make_chat: Callable[..., ChatPetals]) -> None:
    result = make_chat().with_structured_output(Person, include_raw=True).invoke(QUESTION)
    assert isinstance(result["raw"], AIMessage)
    assert result["parsed"] == Person.model_validate_json(result["raw"].text)
    assert result["parsing_error"] is None


def test_the_prompt_describes_the_schema_and_the_tools(make_chat: Callable[..., ChatPetals]) -> None:
    chat = make_chat()
    plain = chat.get_num_tokens_from_messages([HumanMessage(QUESTION)])
    assert chat.get_num_tokens_from_messages([HumanMessage(QUESTION)], tools=[add]) > plain + 50
    raw = chat.with_structured_output(Person, include_raw=True).invoke(QUESTION)["raw"]
    assert raw.usage_metadata["input_tokens"] > plain + 50


def test_a_response_format_may_stand_beside_tools(make_chat: Callable[..., ChatPetals]) -> None:
    schema = Person.model_json_schema()
    response_format = {"type": "json_schema", "json_schema": {"name": "Person", "schema": schema}}
    for seed in range(8):
        answer = make_chat(seed=seed, temperature=2).bind_tools([add], response_format=response_format).invoke(QUESTION)
        if answer.tool_calls:
            assert answer.tool_calls[0]["name"] == "add"
        else:
            jsonschema.validate(json.loads(answer.text), schema)
    with pytest.raises(InvalidRequestError, match="is none of a pydantic class"):
        make_chat().invoke(QUESTION, response_format={"type": "yaml"})


def test_streamed_objects_grow(make_chat: Callable[..., ChatPetals]) -> None:
    model = make_chat(temperature=0).with_structured_output(Person.model_json_schema())
    objects = list(model.stream(QUESTION))
    assert len(objects) > 1
    assert all(isinstance(each, dict) for each in objects)
    assert objects[-1] == model.invoke(QUESTION)


def test_strict_is_refused_with_json_mode(make_chat: Callable[..., ChatPetals]) -> None:
    with pytest.raises(InvalidRequestError, match="strict does nothing with method"):
        make_chat().with_structured_output(method="json_mode", strict=True)
