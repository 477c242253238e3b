"""Constrained answers that the token limit ended early: they fit their schema, but are not complete."""

from __future__ import annotations

import asyncio
import json
import warnings
from typing import TYPE_CHECKING, Any, get_args

import pytest
from langchain.agents import create_agent
from pydantic import BaseModel
from saying_model import SayingModel
from typing_extensions import TypedDict

from langchain_petals import ChatPetals, Petals
from langchain_petals.chat.structured_output import Method
from langchain_petals.chat.tools.formats import FORMATS
from langchain_petals.errors import OutputLimitError

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedTokenizerFast

PERSON = {"name": "Ada Lovelace", "age": 36, "bio": "wrote the first program, and a great many letters and notes"}
CUT = r"ended by the limit of \d+ new token\(s\) before the model finished it"


class Person(BaseModel):
    """A person."""

    name: str
    age: int
    bio: str


class PersonDict(TypedDict):
    """A person."""

    name: str
    age: int
    bio: str


def written(method: str, name: str = "Person") -> str:
    text = json.dumps(PERSON)
    call = {"name": name, "arguments": PERSON}
    return text if method != "function_calling" else f"<tool_call>\n{json.dumps(call)}\n</tool_call>"


@pytest.fixture
def saying(byte_tokenizer: PreTrainedTokenizerFast) -> Callable[..., ChatPetals]:
    """Return a factory of chat models that say a text; a token of theirs is a byte."""

    def make(said: str, **fields: Any) -> ChatPetals:
        own = {"client": SayingModel(byte_tokenizer, said), "tokenizer": byte_tokenizer, "chat_template": "chatml"}
        return ChatPetals(model="saying", temperature=0, **own | fields)

    return make


# ---- structured answers


@pytest.mark.parametrize("method", get_args(Method))
@pytest.mark.parametrize("schema", [Person, PersonDict, Person.model_json_schema()])
@pytest.mark.parametrize("room", [-40, -1, 1])
def test_structured_answer_that_was_cut_raises(
    saying: Callable[..., ChatPetals], method: Any, schema: Any, room: int
) -> None:
    said = written(method, "PersonDict" if schema is PersonDict else "Person")
    model = saying(said, max_tokens=len(said) + room).with_structured_output(schema, method=method)
    if room > 0:
        assert dict(model.invoke("Who?")) == PERSON
        return
    for read in (
        lambda: model.invoke("Who?"),
        lambda: list(model.stream("Who?")),
        lambda: asyncio.run(model.ainvoke("Who?")),
    ):
        with pytest.raises(OutputLimitError, match=CUT) as cut:
            read()
        assert cut.value.ended_early
        assert {**cut.value.partial, "bio": ""} == {**PERSON, "bio": ""}
        assert str(PERSON["bio"]).startswith(cut.value.partial["bio"])
        assert json.loads(cut.value.generated) == cut.value.partial


@pytest.mark.parametrize("method", get_args(Method))
def test_a_cut_answer_is_a_parsing_error_beside_the_raw_answer(saying: Callable[..., ChatPetals], method: Any) -> None:
    said = written(method)
    chat = saying(said, max_tokens=len(said) - 9)
    model = chat.with_structured_output(Person, method=method, include_raw=True)
    for result in (model.invoke("Who?"), *model.stream("Who?")):
        assert result["parsed"] is None
        assert isinstance(result["parsing_error"], OutputLimitError)
        assert result["raw"].response_metadata["finish_reason"] == "length"


# ---- calls


def save(text: str, times: int = 1) -> str:
    """Save a text."""
    return f"{text} {times}"


@pytest.mark.parametrize("choice", ["auto", "any", "save"])
@pytest.mark.parametrize("tool_format", FORMATS)
@pytest.mark.parametrize("missing", [3, 20])
def test_call_that_was_cut_is_an_invalid_one(
    saying: Callable[..., ChatPetals], tool_format: str, choice: str, missing: int
) -> None:
    wanted = {"text": "rm -rf /tmp/build/cache/old/and/more/of/it"}
    said = FORMATS[tool_format].render([{"name": "save", "args": wanted, "id": None}])
    for room in (len(said) + 1, len(said) - missing):
        chat = saying(said, tool_format=tool_format, max_tokens=room).bind_tools([save], tool_choice=choice)
        answer = chat.invoke("hi")
        first, *rest = chat.stream("hi")
        streamed = sum(rest, first)
        if room > len(said):
            assert [call["args"] for call in (*answer.tool_calls, *streamed.tool_calls)] == [wanted, wanted]
            continue
        assert answer.tool_calls == streamed.tool_calls == []
        [invalid] = answer.invalid_tool_calls
        assert invalid["name"] == "save"
        assert "the token limit ended this call before the model did" in (invalid["error"] or "")
        assert wanted["text"].startswith(json.loads(invalid["args"] or "")["text"])
        assert "the token limit ended this call" in (streamed.invalid_tool_calls[0]["args"] or "")


@pytest.mark.parametrize("tool_format", ["hermes", "mistral"])
def test_calls_before_the_one_that_was_cut_stay_valid(saying: Callable[..., ChatPetals], tool_format: str) -> None:
    calls: list[Any] = [{"name": "save", "args": {"text": text}, "id": None} for text in ("one", "two" * 20)]
    said = FORMATS[tool_format].render(calls)
    answer = saying(said, tool_format=tool_format, max_tokens=len(said) - 9).bind_tools([save]).invoke("hi")
    assert [call["args"] for call in answer.tool_calls] == [{"text": "one"}]
    assert ["twotwo" in (call["args"] or "") for call in answer.invalid_tool_calls] == [True]
    assert answer.response_metadata["finish_reason"] == "length"


def test_an_agent_does_not_run_a_cut_call(saying: Callable[..., ChatPetals]) -> None:
    ran: list[str] = []

    def delete(path: str) -> str:
        """Delete a folder."""
        ran.append(path)
        return "done"

    said = '<tool_call>\n{"name": "delete", "arguments": {"path": "/tmp/build/cache/old"}}\n</tool_call>'
    agent = create_agent(saying(said, max_tokens=len(said) - 9), [delete])
    *_, last = agent.invoke({"messages": [("human", "Clean up.")]})["messages"]
    *_, streamed = agent.stream({"messages": [("human", "Clean up.")]}, stream_mode=["messages", "values"])
    assert ran == []
    assert len(last.invalid_tool_calls) == 1
    assert streamed[1]["messages"][-1].tool_calls == []


# ---- raw text


@pytest.mark.parametrize(
    "form",
    [{"json_schema": Person}, {"regex": "[a-z]+"}, {"grammar": "start: /[a-z]+/"}],
    ids=["schema", "regex", "lark"],
)
@pytest.mark.parametrize("of_call", [False, True])
def test_raw_text_that_was_cut_is_valid_and_warns(
    byte_tokenizer: PreTrainedTokenizerFast,
    form: dict[str, Any],
    of_call: bool,  # noqa: FBT001 - pytest passes it by name
) -> None:
    said = json.dumps(PERSON) if "json_schema" in form else "a" * 99
    client = SayingModel(byte_tokenizer, said)
    llm = Petals(client=client, tokenizer=byte_tokenizer, temperature=0, max_tokens=60, **{} if of_call else form)
    call = form if of_call else {}
    for read in (
        lambda: llm.generate(["hi"], **call).generations[0][0],
        lambda: sum_of(list(llm._stream("hi", **call))),
        lambda: asyncio.run(llm.agenerate(["hi"], **call)).generations[0][0],
    ):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            generation = read()
        assert generation.generation_info["finish_reason"] == "length"
        assert ["The token limit ended an answer" in str(each.message) for each in told] == [True]
        if "json_schema" in form:
            Person.model_validate_json(generation.text)


def sum_of(chunks: list[Any]) -> Any:
    first, *rest = chunks
    return sum(rest, first)


def test_response_format_that_was_cut_is_valid_and_warns(saying: Callable[..., ChatPetals]) -> None:
    said = json.dumps(PERSON)
    chat = saying(said, max_tokens=len(said) - 9)
    for read in (
        lambda: chat.invoke("Who?", response_format=Person),
        lambda: sum_of(list(chat.stream("Who?", response_format=Person))),
    ):
        with pytest.warns(UserWarning, match="The token limit ended an answer") as told:
            answer = read()
        assert len(told) == 1
        assert answer.response_metadata["finish_reason"] == "length"
        Person.model_validate_json(answer.text)


def test_free_text_may_be_as_long_as_the_limit(saying: Callable[..., ChatPetals]) -> None:
    assert saying("Hello, hello!", max_tokens=5).bind_tools([save]).invoke("hi").text == "Hello"
