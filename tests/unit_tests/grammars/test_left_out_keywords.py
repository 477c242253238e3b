"""Keywords that grammars cannot enforce: strict schemas are refused, other answers are checked after generation."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from langchain_core.exceptions import OutputParserException
from random_session import answered, text
from saying_model import SayingModel

from langchain_petals import ChatPetals, Petals
from langchain_petals.chat.tools.formats import FORMATS
from langchain_petals.chat.tools.invalid_calls import arguments_of, problem_of
from langchain_petals.engine.request import Request, Sampling
from langchain_petals.errors import InvalidRequestError
from langchain_petals.grammars import Constraint
from langchain_petals.grammars.builders import json_grammar, schema_check, schema_rule

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedTokenizerFast


def an_object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties]}


TEXT, NUMBER = {"type": "string"}, {"type": "integer"}
CARD = an_object(kind={"enum": ["cash", "card"]}) | {
    "if": {"properties": {"kind": {"const": "card"}}},
    "then": {"properties": {"number": TEXT}, "required": ["number"]},
    "else": {"not": {"required": ["number"]}},
}
OPTIONAL = an_object(a=NUMBER, b=NUMBER) | {"required": []}
SHAPES = {
    "$defs": {"Side": an_object(size=NUMBER), "Radius": an_object(size={"type": "number"})},
    "oneOf": [{"$ref": "#/$defs/Side"}, {"$ref": "#/$defs/Radius"}],
}

# keyword, schema, a value that breaks it and one that does not
KEYWORDS: dict[str, tuple[str, dict[str, Any], Any, Any]] = {
    "look-ahead": ("pattern", {"type": "string", "pattern": "^(?!-)[a-z-]+$"}, "-ab", "ab-"),
    "look-behind": ("pattern", {"type": "string", "pattern": "(?<!x)y$"}, "xy", "ay"),
    "back-reference": ("pattern", {"type": "string", "pattern": r"^(\w)\1$"}, "ab", "aa"),
    "not a value": ("not", {"type": "string", "not": {"const": "no"}}, "no", "yes"),
    "not a kind": ("not", {"not": {"type": "integer"}}, 5, "5"),
    "if, then": ("required", CARD, {"kind": "card"}, {"kind": "card", "number": "5"}),
    "if, else": ("not", CARD, {"kind": "cash", "number": "5"}, {"kind": "cash"}),
    "contains": ("contains", {"type": "array", "items": NUMBER, "contains": {"minimum": 5}}, [1, 2], [1, 7]),
    "contains two": ("minContains", {"type": "array", "contains": {"const": 1}, "minContains": 2}, [1], [1, 1]),
    "dependent keys": ("dependentRequired", OPTIONAL | {"dependentRequired": {"a": ["b"]}}, {"a": 1}, {"b": 1}),
    "old dependent keys": ("dependencies", OPTIONAL | {"dependencies": {"a": ["b"]}}, {"a": 1}, {"a": 1, "b": 2}),
    "dependent schemas": (
        "required",
        OPTIONAL | {"dependentSchemas": {"a": {"required": ["b"]}}},
        {"a": 1},
        {"a": 1, "b": 2},
    ),
    "unevaluated": (
        "unevaluatedProperties",
        {"allOf": [an_object(a=NUMBER), an_object(b=NUMBER)], "unevaluatedProperties": False},
        {"a": 1, "b": 2, "c": 3},
        {"a": 1, "b": 2},
    ),
    "unique": ("uniqueItems", {"type": "array", "items": NUMBER, "uniqueItems": True}, [1, 1], [1, 2]),
    "one of two numbers": ("oneOf", {"oneOf": [{"type": "integer"}, {"type": "number"}]}, 3, 3.5),
    "one of two keys": (
        "oneOf",
        OPTIONAL | {"oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
        {"a": 1, "b": 2},
        {"a": 1},
    ),
    "one of two references": ("oneOf", SHAPES, {"size": 3}, {"size": 3.5}),
    "one of two formats": (
        "oneOf",
        {"oneOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}]},
        None,
        "2024-02-29",
    ),
    "keys": ("pattern", {"type": "object", "propertyNames": {"pattern": "^(?!x)"}}, {"x": 1}, {"y": 1}),
    "patterns of keys": (
        "type",
        {"type": "object", "patternProperties": {"^(?!x)": TEXT}, "additionalProperties": {"type": "boolean"}},
        {"y": True},
        {"x": True, "y": "a"},
    ),
    "patterns that overlap": (
        "type",
        {"type": "object", "patternProperties": {"^a": TEXT, "a$": NUMBER}, "additionalProperties": False},
        {"ab": 5},
        {"ab": "x", "ba": 5},
    ),
    "many keys": ("minProperties", {"type": "object", "minProperties": 3}, {"a": 1, "b": 1}, {"a": 1, "b": 1, "c": 1}),
    "an old draft": (
        "dependentRequired",
        OPTIONAL | {"dependentRequired": {"a": ["b"]}, "$schema": "http://json-schema.org/draft-04/schema#"},
        {"a": 1},
        {"b": 1},
    ),
    "an unknown dialect": (
        "not",
        {"not": {"type": "integer"}, "$schema": "https://spec.openapis.org/oas/3.1/dialect/base"},
        5,
        "5",
    ),
    "a JavaScript group name": ("pattern", {"type": "string", "pattern": r"^(?<y>\d)-\k<y>$"}, "1-2", "1-1"),
    "old tuple": (
        "uniqueItems",
        {"type": "array", "items": [NUMBER, NUMBER], "additionalItems": False, "uniqueItems": True},
        [1, 1],
        [1, 2],
    ),
    "a forbidden property": (
        "not",
        an_object(a=NUMBER) | {"if": {}, "then": {"properties": {"b": False}}},
        {"a": 1, "b": 2},
        {"a": 1},
    ),
    "prices": (
        "uniqueItems",
        an_object(price={"type": "number", "multipleOf": 0.01}, tags={"type": "array", "uniqueItems": True}),
        {"price": 19.99, "tags": [1, 1]},
        {"price": 19.99, "tags": [1]},
    ),
    "a reference": (
        "not",
        {"$ref": "#/$defs/A", "$defs": {"A": {"type": "string", "not": {"const": "n"}}}},
        "n",
        "m",
    ),
    "closed, and two keys": (
        "minProperties",
        OPTIONAL | {"additionalProperties": False, "minProperties": 2},
        {"a": 1},
        {"a": 1, "b": 1},
    ),
}
each_keyword = pytest.mark.parametrize(
    ("keyword", "schema", "wrong", "right"), [pytest.param(*each, id=name) for name, each in KEYWORDS.items()]
)


@pytest.fixture
def saying(byte_tokenizer: PreTrainedTokenizerFast) -> Callable[..., ChatPetals]:
    """Return a factory of chat models that write a given text."""

    def make(said: str, **fields: Any) -> ChatPetals:
        own = {"client": SayingModel(byte_tokenizer, said), "tokenizer": byte_tokenizer, "chat_template": "chatml"}
        return ChatPetals(model="saying", temperature=0, max_tokens=400, **own | fields)

    return make


def written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def call(value: Any) -> str:
    return f'<tool_call>\n{{"name": "f", "arguments": {{"x": {written(value)}}}}}\n</tool_call>'


def tool(schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    definitions = {key: value for key, value in schema.items() if key == "$defs"}
    schema = {key: value for key, value in schema.items() if key != "$defs"}
    return {"name": "f", "description": "D.", "parameters": an_object(x=schema) | definitions, **more}


NOW = {"name": "now", "description": "Tell the time.", "parameters": {"type": "object", "properties": {}}}


# ---- tools


@each_keyword
def test_call_that_breaks_a_keyword_is_invalid(
    saying: Callable[..., ChatPetals], keyword: str, schema: dict[str, Any], wrong: Any, right: Any
) -> None:
    chat = saying(call(right))
    with pytest.warns(UserWarning, match="will be checked after generation") as told:
        bound = chat.bind_tools([NOW, tool(schema)])
    assert len(told) == 1
    assert [each["args"] for each in bound.invoke("hi").tool_calls] == [{"x": right}]
    if wrong is None:
        return
    with pytest.warns(UserWarning, match="tool 'f'"):
        bound = saying(call(wrong)).bind_tools([NOW, tool(schema)])
    answer = bound.invoke("hi")
    assert answer.tool_calls == []
    [invalid] = answer.invalid_tool_calls
    assert json.loads(invalid["args"]) == {"x": wrong}
    assert f"keyword {keyword!r} at $.x" in (invalid["error"] or "")
    first, *rest = bound.stream("hi")
    streamed = sum(rest, first)
    assert streamed.tool_calls == []
    [invalid] = streamed.invalid_tool_calls
    assert arguments_of(invalid) == {"x": wrong}
    assert f"keyword {keyword!r} at $.x" in problem_of(invalid)


@each_keyword
def test_strict_tool_with_an_unsupported_keyword_is_refused(
    saying: Callable[..., ChatPetals], keyword: str, schema: dict[str, Any], wrong: Any, right: Any
) -> None:
    del keyword, wrong, right
    for bind in (
        lambda: saying("").bind_tools([NOW, tool(schema)], strict=True),
        lambda: saying("").bind_tools([NOW, tool(schema, strict=True)]),
    ):
        with pytest.raises(
            InvalidRequestError, match=r"the schema of tool 'f' cannot be used.*#/(properties/x|\$defs/A)"
        ) as refused:
            bind()
        assert "coerce_one_of" not in str(refused.value)


def test_warning_names_each_keyword_and_its_path_once(saying: Callable[..., ChatPetals]) -> None:
    chat = saying("Hello.")
    schema = an_object(a={"not": NUMBER}, b={"type": "array", "items": {"type": "string", "pattern": "(?=x)"}})
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(3):  # as an agent does at each step
            chat.bind_tools([tool(schema), NOW]).invoke("hi")
    [warning] = told
    assert "'not' at #/properties/x/properties/a" in str(warning.message)
    assert "'pattern' at #/properties/x/properties/b/items" in str(warning.message)


def test_tools_given_with_a_call_cause_the_warning(saying: Callable[..., ChatPetals]) -> None:
    with pytest.warns(UserWarning, match="'not' at #/properties/x"):
        saying(call("a")).invoke("hi", tools=[tool({"not": NUMBER})])


def test_model_sees_the_keywords_that_the_grammar_leaves_out(saying: Callable[..., ChatPetals]) -> None:
    with pytest.warns(UserWarning, match="uniqueItems"):
        bound: Any = saying("").bind_tools([tool({"type": "array", "uniqueItems": True})])
    parameters = bound.kwargs["tools"][0]["function"]["parameters"]
    assert parameters["properties"]["x"] == {"type": "array", "uniqueItems": True}


@pytest.mark.parametrize("tool_format", FORMATS)
def test_invalid_call_leaves_the_other_calls_valid(saying: Callable[..., ChatPetals], tool_format: str) -> None:
    wire = FORMATS[tool_format]
    calls = [{"name": "f", "args": {"x": value}, "id": None} for value in ("yes", "no", "perhaps")]
    said = wire.render(calls if tool_format in ("hermes", "mistral") else calls[1:2])
    with pytest.warns(UserWarning, match="'not'"):
        bound = saying(said, tool_format=tool_format).bind_tools([tool({"type": "string", "not": {"const": "no"}})])
    answer = bound.invoke("hi")
    valid = [each["args"]["x"] for each in answer.tool_calls]
    assert valid == (["yes", "perhaps"] if tool_format in ("hermes", "mistral") else [])
    assert [json.loads(each["args"]) for each in answer.invalid_tool_calls] == [{"x": "no"}]


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"$ref": "#/$defs/Gone"}, "'#/$defs/Gone' is not in the schema"),
        ({"$ref": "https://example.com/schema.json"}, "is not in the schema"),
        ({"type": "any"}, "no valid JSON schema"),
        ({"type": "string", "pattern": r"^\cA"}, "no regular expression"),
    ],
)
def test_invalid_keyword_is_reported_and_ignored(
    saying: Callable[..., ChatPetals], schema: dict[str, Any], reason: str
) -> None:
    with pytest.warns(UserWarning, match="tool 'f'") as told:
        bound = saying(call("a")).bind_tools([tool(schema)])
    assert reason in str(told[0].message)
    assert "ignored" in str(told[0].message)
    assert [each["args"] for each in bound.invoke("hi").tool_calls] == [{"x": "a"}]


# ---- structured output


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@each_keyword
def test_answer_that_breaks_a_keyword_is_a_parsing_error(  # noqa: PLR0917 - pytest passes them by name
    saying: Callable[..., ChatPetals], method: Any, keyword: str, schema: dict[str, Any], wrong: Any, right: Any
) -> None:
    parameters = tool(schema)["parameters"] | {"title": "f"}

    def model(value: Any, **more: Any) -> Any:
        chat = saying(written({"x": value}) if method == "json_schema" else call(value))
        with pytest.warns(UserWarning, match="will be checked after generation") as told:
            structured = chat.with_structured_output(parameters, method=method, **more)
        assert len(told) == 1
        return structured

    assert model(right).invoke("hi") == {"x": right}
    if wrong is None:
        return
    for read in (lambda: model(wrong).invoke("hi"), lambda: list(model(wrong).stream("hi"))):
        with pytest.raises(OutputParserException, match=rf"keyword '{keyword}' at \$\.x"):
            read()
    result = model(wrong, include_raw=True).invoke("hi")
    assert result["parsed"] is None
    assert isinstance(result["parsing_error"], OutputParserException)
    [streamed] = model(wrong, include_raw=True).stream("hi")
    assert isinstance(streamed["parsing_error"], OutputParserException)


def test_raw_answer_that_breaks_a_keyword_causes_a_warning(
    saying: Callable[..., ChatPetals], byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    schema = an_object(x={"not": NUMBER})
    response_format = {"type": "json_schema", "json_schema": {"name": "N", "schema": schema}}
    chat = saying('{"x": 5}')
    with pytest.warns(UserWarning, match="not") as told:
        answer = chat.invoke("hi", response_format=response_format)
    assert ["will be checked" in str(each.message) for each in told] == [True, False]
    assert "breaks its schema: keyword 'not' at $.x" in str(told[1].message)
    assert "'not' at $.x" in answer.response_metadata["schema_error"]
    with pytest.warns(UserWarning, match="'not' at #/properties/x cannot be guaranteed"):
        llm = Petals(
            client=SayingModel(byte_tokenizer, '{"x": 5}'), tokenizer=byte_tokenizer, temperature=0, json_schema=schema
        )
    for read in (lambda: llm.generate(["hi"]).generations[0][0].text, lambda: "".join(llm.stream("hi"))):
        with pytest.warns(UserWarning, match=r"breaks its json_schema: keyword 'not' at \$\.x") as told:
            assert read() == '{"x": 5}'
        assert len(told) == 1


# ---- loosened grammars, and checks


@each_keyword
def test_loosened_grammar_allows_valid_values(
    byte_tokenizer: PreTrainedTokenizerFast, keyword: str, schema: dict[str, Any], wrong: Any, right: Any
) -> None:
    del keyword
    constraint = Constraint(json_grammar(tool(schema)["parameters"], strict=False))
    for value in [right] if wrong is None else [right, wrong]:
        said = written({"x": value})
        request = Request([40], 100, Sampling(greedy=True), constraint=constraint)
        assert text(answered(byte_tokenizer, request, said=[*said.encode()])) == said
    assert schema_check(schema).problem(right) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"oneOf": [{"type": "integer"}, {"type": "string"}]},
        {"oneOf": [{"const": 1, "title": "One"}, {"const": 2, "title": "Two"}]},
        {"oneOf": [{"enum": ["a", "b"]}, {"type": "string", "pattern": "^c"}]},
        {"oneOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}], "$defs": {"A": TEXT, "B": NUMBER}},
        {
            "oneOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}],
            "$defs": {"A": an_object(kind={"const": "a"}), "B": an_object(kind={"const": "b"}, x=NUMBER)},
        },
        {
            "oneOf": [
                an_object(cat=TEXT) | {"additionalProperties": False},
                an_object(dog=TEXT) | {"additionalProperties": False},
            ]
        },
        {"not": False},
        {"type": "array", "uniqueItems": False},
        {"if": {"type": "string"}},
        {"then": {"type": "string"}},
        {"contains": {"type": "string"}, "minContains": 0},
        {"dependentRequired": {}, "unevaluatedProperties": {}},
        {"type": "string", "minLength": 1.0, "maxLength": 3.0},
    ],
)
def test_fully_enforced_schema_leaves_nothing_out(schema: dict[str, Any]) -> None:
    found = schema_rule(schema, "json_schema", strict=True)
    assert (found.left_out, found.warning) == ((), None)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "minimum": 5, "maximum": 3},
        {"type": "string", "pattern": "^a$", "format": "date"},
        {"allOf": [{"type": "string"}, {"type": "integer"}]},
        {"$dynamicRef": "#x"},
        {"enum": []},
    ],
)
def test_unsatisfiable_schema_affects_only_its_tool(saying: Callable[..., ChatPetals], schema: dict[str, Any]) -> None:
    with pytest.warns(UserWarning, match="tool 'f'"):
        bound = saying('<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>').bind_tools([tool(schema), NOW])
    assert [each["name"] for each in bound.invoke("hi").tool_calls] == ["now"]


def test_conditions_are_not_closed(saying: Callable[..., ChatPetals]) -> None:
    """A closed `not` would allow what it forbids, and a closed `then` could not add properties."""
    schema = an_object(a=NUMBER, b=NUMBER) | {"not": {"properties": {"a": {"const": 1}}}}
    with pytest.warns(UserWarning, match="'not'"):
        bound = saying(call({"a": 1, "b": 2})).bind_tools([tool(schema)])
    assert bound.invoke("hi").tool_calls == []


def test_references_are_not_fetched() -> None:
    """Sockets are disabled in these tests; jsonschema by itself would open one."""
    schema = {"not": {"$ref": "https://example.com/schema.json"}, "properties": {"x": {"$ref": "http://localhost/x"}}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "'not'" in (schema_check(schema).problem({"x": 1}) or "")


def test_unsupported_patterns_of_keys_refuse_no_key() -> None:
    check = schema_check({"patternProperties": {r"^\cA": {"type": "null"}}, "additionalProperties": False})
    assert check.problem({"a": 1}) is None


def test_patterns_beyond_the_time_limit_count_as_not_matched() -> None:
    """The time limit applies to all strings of a value together; without it this test would not end."""
    check = schema_check({"items": {"type": "string", "pattern": "^(?=a)(a|aa)+$(?!c)"}})
    assert check.problem(["aaa"]) is None
    assert "'pattern'" in (check.problem(["a" * 200 + "b"] * 50) or "")


def test_check_of_branches_that_overlap_at_every_depth_is_bounded() -> None:
    """Without a bound this test would not end."""
    node = [an_object(v={"$ref": "#/$defs/N"}), an_object(v={"$ref": "#/$defs/N"}) | {"minProperties": 1}, NUMBER]
    check = schema_check({"$ref": "#/$defs/N", "$defs": {"N": {"oneOf": node}}})
    value: Any = 1
    for _ in range(60):
        value = {"v": value}
    assert "takes too long" in (check.problem(value) or "")


@pytest.mark.parametrize(
    ("schema", "value", "problem"),
    [
        ({"$id": "https://x.com/s.json", "$ref": "s.json#/definitions/A"}, "n", "keyword 'not' at $"),
        ({"$id": "https://x.com/s.json", "$ref": "s.json#/definitions/B"}, "n", None),
        ({"$ref": "#a"}, "n", "keyword 'not' at $"),
    ],
)
def test_references_are_followed_within_the_document(schema: dict[str, Any], value: Any, problem: str | None) -> None:
    definitions = {"A": {"type": "string", "not": {"const": "n"}, "$anchor": "a"}}
    found = schema_check(schema | {"definitions": definitions, "$defs": definitions}).problem(value)
    assert (found or "").startswith(problem or "")
    assert (found is None) == (problem is None)


def test_object_that_needs_more_than_it_names_is_not_closed(saying: Callable[..., ChatPetals]) -> None:
    schema = {"type": "object", "properties": {"a": NUMBER}, "required": ["a", "zz"]}
    bound = saying(call({"a": 1, "zz": 2})).bind_tools([tool(schema)])
    assert [each["args"] for each in bound.invoke("hi").tool_calls] == [{"x": {"a": 1, "zz": 2}}]


def test_discriminator_decides_between_branches_that_both_fit(saying: Callable[..., ChatPetals]) -> None:
    base = an_object(kind=TEXT)
    branches = {name: {"allOf": [base, {"properties": {"size": NUMBER}}]} for name in ("Cat", "Dog")}
    references = [{"$ref": f"#/$defs/{name}"} for name in branches]
    schema = {"oneOf": references, "discriminator": {"propertyName": "kind"}, "$defs": branches}
    bound = saying(call({"kind": "Cat"})).bind_tools([tool(schema)])
    assert [each["args"] for each in bound.invoke("hi").tool_calls] == [{"x": {"kind": "Cat"}}]


def test_one_left_out_keyword_leaves_the_rest_of_a_large_schema_enforced() -> None:
    parts = {f"p{number}": {"type": "string", "maxLength": 5} for number in range(100)}
    schema = an_object(**parts, odd={"type": "any"}, both={"allOf": [TEXT, NUMBER]}, inner=an_object(x={"type": "any"}))
    found = schema_rule(schema, "json_schema", strict=False)
    assert [str(each) for each in found.left_out] == ["'allOf' at #/properties/both"]
    assert len(found.ignored) == 2
    assert found.rule.count('"maxLength": 5') == 100


def test_check_agrees_with_jsonschema() -> None:
    for schema, wrong, right in (each[1:] for each in KEYWORDS.values()):
        older = {"dependencies", "$schema"} & schema.keys() or isinstance(schema.get("items"), list)
        if not older and "?<y>" not in str(schema):  # not keywords of older drafts, nor a JavaScript pattern
            validator = jsonschema.Draft202012Validator(schema)
            assert wrong is None or not validator.is_valid(wrong)
            assert validator.is_valid(right) or right in ("2024-02-29", KEYWORDS["prices"][3])
