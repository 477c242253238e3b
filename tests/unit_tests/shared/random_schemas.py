"""Strategies for random schemas and sampling options."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from langchain_petals.engine.request import Sampling

KEYS = st.sampled_from(["a", "b", "a b", "ключ", '"'])
PATTERNS = st.sampled_from(
    [
        *(
            "^[a-c]+$",
            "[0-9]{2}",
            "^(x|yy)z?$",
            r"^\w{3}",
            "abc",
            r"\.(jpg|png)$",
            "^.*[!?]$",
            r"^[^@\s]+@[^@\s]+\.\w+$",
        ),
        *(r"^v\d+\.\d+$", r"^\d+ (EUR|USD)$", "^SELECT .* FROM .*;$", "é$", r"^(\w+ ){2}\w+$", r'^".*"$', "[A-Z]{2,}-"),
    ]
)
ANYTHING = st.one_of(st.none(), st.booleans(), st.integers(-999, 9999), st.text(max_size=5))


@st.composite
def leaves(draw: st.DrawFn) -> dict[str, Any]:
    """Return a schema of values without parts."""
    low, more = draw(st.integers(-30, 30)), draw(st.integers(0, 300))
    return draw(
        st.sampled_from(
            [
                {},
                {"type": "string"},
                {"type": "string", "minLength": abs(low) // 8, "maxLength": abs(low) // 8 + more // 50},
                {"type": "string", "pattern": draw(PATTERNS)},
                {"type": "string", "format": draw(st.sampled_from(["date", "time", "date-time", "uuid", "ipv4"]))},
                {"type": draw(st.sampled_from(["integer", "number"])), "minimum": low, "maximum": low + more},
                {"type": "integer", "exclusiveMinimum": low, "multipleOf": more % 7 + 1},
                {"type": draw(st.sampled_from(["boolean", "null", "integer", "number", "object", "array"]))},
                {"type": draw(st.lists(st.sampled_from(["null", "string", "integer"]), min_size=1, unique=True))},
                {"const": draw(ANYTHING)},
                {"enum": draw(st.lists(ANYTHING, min_size=1, max_size=4))},
            ]
        )
    )


def nested(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Return schemas of values whose parts have the schemas of `inner`."""
    return st.one_of(_arrays(inner), _objects(inner), _unions(inner))


@st.composite
def _arrays(draw: st.DrawFn, inner: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    least = draw(st.integers(0, 2))
    schema: dict[str, Any] = {"type": "array", "minItems": least, "maxItems": least + draw(st.integers(1, 3))}
    kind = draw(st.sampled_from(["list", "tuple", "both"]))
    if kind != "list":
        schema["prefixItems"] = draw(st.lists(inner, min_size=1, max_size=2))
    return (
        {"type": "array", "prefixItems": schema["prefixItems"], "items": False}
        if kind == "tuple"
        else (schema | {"items": draw(inner)})
    )


@st.composite
def _objects(draw: st.DrawFn, inner: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    properties = draw(st.dictionaries(KEYS, inner, max_size=3))
    required = [key for key in properties if draw(st.booleans())]
    schema = {"type": "object", "properties": properties, "required": required}
    return schema | draw(st.one_of(st.just({}), st.fixed_dictionaries({"additionalProperties": st.booleans() | inner})))


@st.composite
def _unions(draw: st.DrawFn, inner: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    if draw(st.booleans()):
        return {"anyOf": draw(st.lists(inner, min_size=1, max_size=3))}
    # recursion, with a way out
    link = {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}
    return {"type": "object", "properties": {"value": draw(inner), "next": link}, "required": ["value", "next"]}


SAMPLINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.5, 1.0, 3.0]),
    top_p=st.sampled_from([1.0, 0.8]),
    top_k=st.sampled_from([None, 1, 5]),
    min_p=st.sampled_from([None, 0.2]),
    typical_p=st.sampled_from([None, 0.5]),
    repetition_penalty=st.sampled_from([1.0, 1.5]),
    no_repeat_ngram_size=st.sampled_from([0, 2]),
    min_new_tokens=st.sampled_from([0, 9]),
    greedy=st.booleans(),
    seed=st.integers(0, 99),
)


def rooted(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema in which the references of `nested` lead somewhere."""
    if "#/$defs/node" in json.dumps(schema):
        return {"$ref": "#/$defs/node", "$defs": {"node": schema}}
    return schema
