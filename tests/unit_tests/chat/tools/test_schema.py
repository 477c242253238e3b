"""Conversion of tools, and the schemas of their arguments."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable
from typing import Annotated, Any, Optional

import jsonschema
import pytest
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import InjectedToolArg, StructuredTool
from langchain_core.tools import tool as langchain_tool
from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field, RootModel, create_model, v1
from pydantic.alias_generators import to_camel
from typing_extensions import NotRequired, TypedDict

from langchain_petals.chat.tools.schema import arguments_schema, openai_tool
from langchain_petals.errors import InvalidRequestError


def tool(name: str, parameters: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    schema = {} if parameters is None else {"parameters": parameters}
    return {"type": "function", "function": {"name": name, **schema, **more}}


def test_arguments_are_closed_unless_strict_is_false() -> None:
    parameters = {"type": "object", "properties": {"x": {"type": "object", "properties": {}}, "y": {"type": "object"}}}
    closed = arguments_schema({"parameters": parameters})
    assert closed["additionalProperties"] is closed["properties"]["x"]["additionalProperties"] is False
    assert "additionalProperties" not in closed["properties"]["y"]
    assert arguments_schema({"parameters": parameters, "strict": False}) == parameters
    assert arguments_schema({"parameters": parameters | {"additionalProperties": True}})["additionalProperties"] is True
    assert arguments_schema({}) == {"type": "object", "properties": {}, "additionalProperties": False}


@pytest.mark.parametrize(
    "given",
    [
        {"type": "web_search_preview"},
        {"type": "web_search_preview_2025_03_11"},
        {"type": "bash_20250124", "name": "bash"},
        {"type": "custom", "name": "free"},
        {"type": "function", "function": "now"},
        {"type": "function", "function": {"parameters": {}}},
    ],
)
def test_tool_of_a_provider_is_refused(given: Any) -> None:
    with pytest.raises(InvalidRequestError, match="is no tool that this model could call: give a function"):
        openai_tool(given)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (
            {"type": "function", "function": {"name": "f", "parameters": [1]}},
            "parameters of tool 'f' are no JSON schema",
        ),
        (tool("f", {"type": "array"}), "parameters of tool 'f' are of type 'array', and arguments are an object"),
        (RootModel[list[int]], "are of type 'array', and arguments are an object"),
        (5, "Unsupported function"),
        ({"type": "object", "properties": {}}, "top-level 'title'"),
    ],
)
def test_invalid_tool_is_refused_with_the_reason(given: Any, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=reason):
        openai_tool(given)


@pytest.mark.parametrize(
    "given",
    [
        tool("f", {"type": "object", "allOf": []}, description="D"),
        {"name": "f", "description": "D", "parameters": {"type": "object", "allOf": []}},
        {"name": "f", "description": "D", "input_schema": {"type": "object", "allOf": []}, "type": "custom"},
        {"name": "f", "description": "D", "inputSchema": {"type": "object", "allOf": []}},
        {"type": "function", "name": "f", "description": "D", "parameters": {"type": "object", "allOf": []}},
        {"title": "f", "description": "D", "type": "object", "allOf": []},
    ],
)
def test_dictionaries_of_all_providers_become_openai_tools(given: dict[str, Any]) -> None:
    expected = tool("f", {"type": "object", "allOf": []}, description="D")
    assert openai_tool(given) == openai_tool(openai_tool(given)) == expected
    assert openai_tool(given, strict=False) == tool("f", {"type": "object", "allOf": []}, description="D", strict=False)


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Add(BaseModel):
    """Add two numbers."""

    a: int
    b: int


class OldAdd(v1.BaseModel):
    """Add two numbers."""

    a: int
    b: int


class AddDict(TypedDict):
    """Add two numbers."""

    a: int
    b: int


class PlainAddDict(typing.TypedDict):  # which pydantic refuses before Python 3.12
    """Add two numbers."""

    a: int
    b: int


ADD = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("given", [add, langchain_tool(add), Add, OldAdd, AddDict, PlainAddDict])
def test_functions_and_classes_become_the_same_tool(given: Any) -> None:
    function = openai_tool(given)["function"]
    assert function["description"] == "Add two numbers."
    assert arguments_schema(function) == ADD


@pytest.mark.filterwarnings("ignore:This API is in beta")
def test_runnable_becomes_a_tool() -> None:
    runnable = RunnableLambda(lambda of: of["a"] + of["b"]).as_tool(Add, name="add", description="Add two numbers.")
    function = openai_tool(runnable)["function"]
    assert (function["name"], function["description"]) == ("add", "Add two numbers.")
    assert arguments_schema(function) == ADD


def test_contradicting_strict_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="strict=False contradicts tool 'f'"):
        openai_tool(tool("f", strict=True), strict=False)


# ---- classes that contain themselves


class Node(BaseModel):
    """A node."""

    value: int
    children: list[Node]


class OldNode(v1.BaseModel):
    """A node."""

    value: int
    child: Optional[OldNode] = None  # noqa: UP045 - version 1 knows no other way


OldNode.update_forward_refs()


class NodeDict(TypedDict):
    """A node."""

    value: int
    children: list[NodeDict]


def walk(tree: Node, most: int = 3) -> str:
    """Walk a tree.

    Args:
        tree: Where to walk.
        most: How far.
    """
    return f"{tree} {most}"


INNER_IS_RIGHT = {"value": 1, "children": [{"value": 2, "children": []}]}
INNER_IS_WRONG = {"value": 1, "children": ["two", {}]}


def accepts(given: Any, arguments: Any) -> bool:
    schema = arguments_schema(openai_tool(given)["function"])
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema).is_valid(arguments)


@pytest.mark.parametrize("given", [Node, NodeDict])
def test_class_that_contains_itself_is_enforced_at_every_depth(given: Any) -> None:
    assert accepts(given, INNER_IS_RIGHT)
    assert not accepts(given, INNER_IS_WRONG)
    assert openai_tool(given)["function"]["description"] == "A node."


def test_pydantic_v1_class_that_contains_itself_is_enforced_at_every_depth() -> None:
    assert accepts(OldNode, {"value": 1, "child": {"value": 2}})
    assert not accepts(OldNode, {"value": 1, "child": {"value": "two"}})


@pytest.mark.parametrize("given", [walk, langchain_tool(walk)])
def test_argument_that_contains_itself_is_enforced_at_every_depth(given: Any) -> None:
    assert accepts(given, {"tree": INNER_IS_RIGHT})
    assert not accepts(given, {"tree": INNER_IS_WRONG})
    assert "Walk a tree." in openai_tool(given)["function"]["description"]


# ---- TypedDicts


class Half(TypedDict, total=False):
    """Optional keys."""

    size: Annotated[int, ..., "How large."]


class Search(Half):
    """Look something up."""

    schema: Annotated[str, ..., "What it is about."]
    limit: Annotated[int, 10, "Most hits."]
    note: NotRequired[str]


def test_typed_dict_gives_required_keys_defaults_and_descriptions() -> None:
    function = openai_tool(Search)["function"]
    assert function["description"] == "Look something up."
    assert function["parameters"]["required"] == ["schema"]
    assert function["parameters"]["properties"] == {
        "size": {"type": "integer", "description": "How large."},
        "schema": {"type": "string", "description": "What it is about."},
        "limit": {"type": "integer", "description": "Most hits.", "default": 10},
        "note": {"type": "string"},
    }


class Trip(TypedDict):
    """A trip.

    By rail, mostly.

    Args:
        start: Where it begins:
            a town.
        end (str): Where it ends.
        by: Unused.

    Returns:
        Nothing.
    """

    start: str
    end: Annotated[str, ...]
    by: Annotated[str, ..., "What takes one there."]
    note: NotRequired[str]


def test_docstring_of_a_typed_dict_describes_its_keys() -> None:
    function = openai_tool(Trip)["function"]
    assert function["description"] == "A trip.\n\nBy rail, mostly."
    described = {key: schema.get("description") for key, schema in function["parameters"]["properties"].items()}
    assert described == {
        "start": "Where it begins: a town.",
        "end": "Where it ends.",
        "by": "What takes one there.",
        "note": None,
    }


def test_dictionary_with_the_schema_at_its_top_level_is_a_tool() -> None:
    properties = {"x": {"type": "integer"}}
    given = {"name": "f", "description": "D", "type": "object", "properties": properties, "required": ["x"]}
    parameters = {"type": "object", "properties": properties, "required": ["x"]}
    assert openai_tool(given) == tool("f", parameters, description="D")


class Uncallable(BaseModel):
    """A class with a type that JSON does not have."""

    then: Callable[[int], int]


@pytest.mark.parametrize("given", [functools.partial(walk, most=1), Uncallable])
def test_type_without_a_schema_is_refused(given: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"(cannot be a tool|no JSON schema)"):
        openai_tool(given)


# ---- names and aliases of arguments


class Inner(BaseModel):
    """A nested object."""

    model_config = ConfigDict(alias_generator=to_camel)

    some_size: int


class Aliased(BaseModel):
    """Arguments with aliases of all kinds."""

    a: int = Field(alias="A")
    b: int = Field(validation_alias="b-b", description="Another.")
    c: int = Field(validation_alias=AliasChoices("C", "CC"))
    d: int = Field(validation_alias=AliasPath("outer", "d"))
    e: int = Field(validation_alias=AliasPath("list", 1))
    inner: list[Inner] = Field(alias="Inner")
    own: int = Field(default=5, serialization_alias="other")
    secret: Annotated[str, InjectedToolArg] = "not for the model"


ALIASED_ARGUMENTS = {
    "A": 1,
    "b-b": 2,
    "C": 3,
    "Inner": [{"someSize": 4}],
    "own": 6,
    "outer": {"d": 7},
    "list": [0, 8],
}


def echo(**arguments: Any) -> dict[str, Any]:
    """Return the arguments."""
    return arguments


def test_arguments_have_their_aliases_as_names() -> None:
    given = StructuredTool.from_function(echo, args_schema=Aliased)
    schema = arguments_schema(openai_tool(given)["function"])
    jsonschema.validate(ALIASED_ARGUMENTS, schema)
    assert schema["properties"].keys() == ALIASED_ARGUMENTS.keys()
    assert set(schema["required"]) == ALIASED_ARGUMENTS.keys() - {"own"}
    assert schema["properties"]["b-b"] == {"type": "integer", "description": "Another."}
    taken = given.invoke(dict(ALIASED_ARGUMENTS))
    assert (taken["a"], taken["b"], taken["c"], taken["own"]) == (1, 2, 3, 6)
    assert taken["inner"] == [Inner(someSize=4)]


@pytest.mark.parametrize("populate", [False, True])
def test_alias_generator_names_arguments(populate: bool) -> None:  # noqa: FBT001 - pytest passes it by name
    config = ConfigDict(alias_generator=to_camel, populate_by_name=populate)
    model = create_model("Model", __config__=config, first_name=(str, ...), inner=(Inner, ...))
    for given in (model, StructuredTool.from_function(echo, name="echo", args_schema=model)):
        schema = arguments_schema(openai_tool(given)["function"])
        jsonschema.validate({"firstName": "Ada", "inner": {"someSize": 5}}, schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"first_name": "Ada", "inner": {"someSize": 5}}, schema)


def count(by_year: dict[int, int], tags: set[str]) -> str:
    """Count."""
    return f"{by_year} {tags}"


@pytest.mark.parametrize("given", [count, langchain_tool(count)])
def test_maps_and_sets_of_a_function_have_the_schemas_of_a_class(given: Any) -> None:
    properties = arguments_schema(openai_tool(given)["function"])["properties"]
    assert properties["by_year"]["propertyNames"] == {"pattern": r"^-?(?:0|[1-9]\d{0,17})$"}
    assert properties["tags"] == {"type": "array", "items": {"type": "string"}}


def test_dictionary_as_args_schema_is_used_unchanged() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}, "value": {"type": "integer"}}}
    schema = {"type": "object", "properties": {"node": {"$ref": "#/$defs/node"}}, "$defs": {"node": node}}
    given = StructuredTool(name="walk", description="Walk.", args_schema=schema, func=echo)
    assert accepts(given, {"node": {"next": {"value": 1}}})
    assert not accepts(given, {"node": {"next": {"value": "one"}}})


@dataclasses.dataclass
class Point:
    """A point."""

    x: int
    label: str = dataclasses.field(default="", metadata={"description": "What it is called."})
    near: list[Point] = dataclasses.field(default_factory=list)


def test_dataclass_is_a_tool() -> None:
    function = openai_tool(Point)["function"]
    assert (function["name"], function["description"]) == ("Point", "A point.")
    assert accepts(Point, {"x": 1, "near": [{"x": 2, "label": "b"}]})
    assert not accepts(Point, {"x": 1, "near": [{"x": "two"}]})
