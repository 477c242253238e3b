"""The Jinja environment of chat templates: transformers' variables and filters, each of them metered.

A chat template comes with a model from the hub, so it cannot be trusted. Jinja's sandbox keeps it away from
Python's internals, but not from the processor and the memory: two nested loops over `range(99999)` run for hours, and
`'a' * 10**10` fills the machine. Here every operation that can loop or grow is counted, in the same process:

- The syntax tree is rewritten once, so that each round of a loop, each output, container, comparison and slice passes
  through a `Meter`. Jinja's own hooks do the same for each call, filter and operator.
- The inputs and results of operations are measured. An operation that could make a large value from small ones
  (`'a' * n`, `replace`, widths) is measured before it runs.
- A few filters and methods are removed: these limits cannot bound them, and no prompt needs them.
"""

from __future__ import annotations

import datetime as dt
import inspect
import json
import re
from functools import lru_cache
from string import Formatter
from typing import TYPE_CHECKING, Any, cast

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.filters import do_sum
from jinja2.runtime import LoopContext, Macro, TemplateReference
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Cycler, Joiner, Namespace, pass_context
from jinja2.visitor import NodeTransformer
from markupsafe import soft_str

from langchain_petals.chat.templates.meter import Meter, refuse_if

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from jinja2.parser import Parser
    from jinja2.runtime import Context

# The longest published chat templates have some 25,000 characters.
LONGEST_SOURCE = 40_000

# `random` would make prompts that differ from call to call. The others take quadratic time, and no prompt needs them.
_LEFT_OUT_FILTERS = ("random", "pprint", "striptags", "urlize", "wordwrap")
# Two of these make bytes, which have other methods and operators; `translate` can make a long text of one character.
_LEFT_OUT_METHODS = ("encode", "to_bytes", "translate")
# Objects of other types (functions, classes, generators) have no attribute that a prompt needs.
_DATA = (str, int, float, list, tuple, dict)
_JINJA_OBJECTS = (Cycler, Joiner, LoopContext, Macro, Namespace, TemplateReference)
# These pass their arguments to filters and tests.
_APPLYING = ("map", "reject", "rejectattr", "select", "selectattr")
# These only pass on or return their arguments.
_HANDING_ON = frozenset(["d", "default", "get", *_APPLYING])
# These run Python code for each item.
_ITERATING = frozenset(["groupby", "join", "max", "min", "sort", "unique", *_APPLYING])

_MOST_ITEMS = _LARGEST_ARGUMENT = 100_000  # Jinja's own limit for the length of a range
_LARGEST_IN_RANGE = 2**53  # larger numbers can be chosen so that their hashes collide
_LARGEST_WORK = 10**8  # characters of a text times those of an argument; the time of `strip` and `rfind`
_LARGEST_WIDTH = 999
_LONGEST_ATTRIBUTE = 256  # a filter looks up each part between dots and commas, in each item
_LONGEST_INDENT = 256
_LONGEST_TIME_FORMAT = 100

# A width of more than three digits or one from an argument; or a key with parentheses inside, which may hide a width.
_WIDE_PERCENT = re.compile(r"%(?:\([^()]*\))?[^a-zA-Z%(]*(?:\d{4}|\*)|%\((?![^()]*\))")
_WIDE_BRACES = re.compile(r"\d{4}|\{")
_WIDE_TIME = re.compile(r"%[^a-zA-Z%]*\d{3}")
_TOO_WIDE = "formats with too large or a computed width"
# Placeholders of untrusted text come from this range (see `sanitizing`); JSON must not escape them.
_ESCAPED_IN_ASCII = re.compile(r"[^\x00-\x7f\U000f0000-\U000ffffd]")


class _OpaqueNamespace(Namespace):
    """A namespace whose text does not show its values, since it may contain itself."""

    def __repr__(self) -> str:
        return "<Namespace>"


class _GenerationBlock(Extension):
    """`{% generation %}` marks the model's own text for training; a prompt is rendered as if it were not there."""

    tags = {"generation"}  # noqa: RUF012 - as Extension declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        parser.stream.skip()
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Metering(NodeTransformer):
    """Wraps all expressions that can loop or grow in the metering filters."""

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        super().generic_visit(node, *args, **kwargs)
        if isinstance(node, nodes.For):
            node.iter = _through("metered rounds", cast("nodes.Expr", node.iter))
        elif isinstance(node, nodes.Output):
            parts = (
                nodes.Const(part.data, lineno=part.lineno) if isinstance(part, nodes.TemplateData) else part
                for part in node.nodes
            )
            node.nodes = [_through("metered output", part) for part in parts]
        elif isinstance(node, nodes.Concat):
            return _through("join", _through("metered value", nodes.List(node.nodes, lineno=node.lineno)))
        elif (
            isinstance(node, (nodes.List, nodes.Dict, nodes.Compare, nodes.Test))
            or (isinstance(node, nodes.Tuple) and node.ctx == "load")
            or (isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice))
        ):
            return _through("metered value", node)
        return node


def _through(name: str, node: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _meter(context: Context) -> Meter:
    # No template can use this variable, since its name contains a space.
    meter: Meter = context.parent["the meter"]
    return meter


@pass_context
def _metered(context: Context, value: Any) -> Any:
    return _meter(context).charge(value)


@pass_context
def _metered_output(context: Context, value: Any) -> str:
    meter = _meter(context)
    meter.size(value)
    text = str(value)
    meter.spend(len(text))
    return text


@pass_context
def _metered_rounds(context: Context, iterable: Iterable[Any]) -> Iterator[Any]:
    return _meter(context).rounds(iterable)


def _metered_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that measures its input and result; it takes the context, so compiling does not run it."""
    passed = getattr(function, "jinja_pass_arg", None)  # what Jinja passes to the filter before the value
    names = list(inspect.signature(function).parameters)[1 if passed is None else 2 :]

    @pass_context
    def wrapper(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        meter = _meter(context)
        _check_step(meter, name, value, {**dict(zip(names, args, strict=False)), **kwargs})
        first = {"context": context, "eval_context": context.eval_ctx, "environment": context.environment}
        leading = [] if passed is None else [first[passed.name]]
        return meter.charge(function(*leading, value, *args, **kwargs))

    return wrapper


def _check_step(meter: Meter, name: str, receiver: Any, given: Mapping[Any, Any]) -> None:
    """Refuse a call of a filter or method whose result would be too large, or which would take too long.

    `receiver` is the value that it is applied to. `given` holds a filter's arguments by name, a method's by position.
    """
    meter.spend()
    too_large = f"uses {name} with too large a value"
    size, sizes = meter.size(receiver), [meter.size(value) for value in given.values()]
    if name == "replace":
        old, new = (str(given.get(key, given.get(position))) for position, key in enumerate(("old", "new")))
        meter.expect(str(receiver).count(old) * len(new))
    elif name == "join":
        meter.expect(_length(receiver) * max(map(_length, given.values()), default=0))
    elif name in ("format", "format_map"):
        meter.expect(_fields_in_braces(receiver) * (_LARGEST_WIDTH + sum(sizes)))
    elif name not in _HANDING_ON:
        numbers = [abs(value) for value in given.values() if isinstance(value, int)]
        texts = [len(value) for value in given.values() if isinstance(value, str)]
        width = max([*numbers, *(texts if name == "indent" else ())], default=0)
        lines = len(receiver.splitlines()) + receiver.count("\t") if isinstance(receiver, str) and width else 1
        meter.expect(width * lines)
        refuse_if(width > _LARGEST_ARGUMENT, too_large)
        refuse_if(isinstance(receiver, str) and size * max(texts, default=0) > _LARGEST_WORK, too_large)
    refuse_if(_length(given.get("attribute")) > _LONGEST_ATTRIBUTE, too_large)
    refuse_if(name in _ITERATING and _length(receiver) > _MOST_ITEMS, too_large)


def _length(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") else 1


def _fields_in_braces(text: str) -> int:
    specs = [spec for _, _, spec, _ in Formatter().parse(text) if spec is not None]
    refuse_if(any(map(_WIDE_BRACES.search, specs)), _TOO_WIDE)
    return len(specs)


def _fields_of_percent(text: str) -> int:
    text = text.replace("%%", "")
    refuse_if(_WIDE_PERCENT.search(text), _TOO_WIDE)
    return text.count("%")


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with operators and calls that are counted."""

    intercepted_binops = frozenset(["+", "-", "*", "**", "%"])

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if attr in _LEFT_OUT_METHODS or (isinstance(obj, str) and not hasattr(str, attr)):  # Markup has more
            return False
        return isinstance(obj, (_DATA, _JINJA_OBJECTS)) and super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        meter = _meter(context)
        if operator == "*":
            for value, times in ((left, right), (right, left)):
                if isinstance(times, int) and isinstance(value, (str, list, tuple)):
                    meter.expect(times * max(1, len(value), meter.size(value)))
            if isinstance(left, int) and isinstance(right, int):
                meter.check_bits(left.bit_length() + right.bit_length())
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            meter.check_bits(left.bit_length() * max(0, right))
        elif operator == "%" and isinstance(left, str):
            meter.expect(_fields_of_percent(left) * (_LARGEST_WIDTH + meter.size(right)))
        return meter.charge(super().call_binop(context, operator, left, right))

    def unsafe_undefined(self, obj: Any, attribute: str) -> jinja2.Undefined:
        # Jinja's own method returns a value that raises when it is used, but not when it is printed.
        msg = f"the chat template may not use {attribute!r} of {type(obj).__name__!r}"
        raise SecurityError(msg)

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        meter = _meter(context)
        # Jinja replaces str.format by a function that wraps it
        method = getattr(obj, "__wrapped__", obj)
        if hasattr(method, "__self__"):
            _check_step(meter, method.__name__, method.__self__, {**dict(enumerate(args)), **kwargs})
        else:
            meter.spend()
        return meter.charge(super().call(context, obj, *args, **kwargs))


@pass_context
def _format(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
    environment = cast("_Environment", context.environment)
    return environment.call_binop(context, "%", soft_str(value), kwargs or args)


@pass_context
def _sum(context: Context, iterable: Iterable[Any], attribute: str | int | None = None, start: Any = 0) -> Any:
    # a sum of lists takes quadratic time, so each list is charged
    meter = _meter(context)
    return meter.charge(do_sum(context.environment, map(meter.charge, iterable), attribute, start))


@pass_context
def _tojson(  # noqa: PLR0917 - templates pass them in this order, as transformers has them
    context: Context,
    value: Any,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002
) -> str:
    meter = _meter(context)
    meter.size(value)
    longest = max(indent or 0, *map(len, separators or ("",)))
    refuse_if(longest > _LONGEST_INDENT, f"indents JSON by more than {_LONGEST_INDENT} characters")
    encoder = json.JSONEncoder(ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)
    text = encoder.encode(value) if indent is None else "".join(map(meter.charge, encoder.iterencode(value)))
    if ensure_ascii:
        text = _ESCAPED_IN_ASCII.sub(lambda match: json.dumps(match[0])[1:-1], text)
    return cast("str", meter.charge(text))


def _range(*numbers: int) -> range:
    beyond = any(abs(number) > _LARGEST_IN_RANGE for number in numbers)
    refuse_if(beyond, f"uses range with a number beyond {_LARGEST_IN_RANGE}")
    return safe_range(*numbers)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(time_format: str) -> str:
    too_long = len(time_format) > _LONGEST_TIME_FORMAT or _WIDE_TIME.search(time_format)
    refuse_if(too_long, "formats the time with too long a format")
    return dt.datetime.now().astimezone().strftime(time_format)


@lru_cache(maxsize=1)
def _environment() -> _Environment:
    """Return the environment that all templates share; it holds configuration only."""
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _GenerationBlock]
    )
    filters = environment.filters
    environment.filters = {
        **{name: _metered_filter(name, filters[name]) for name in filters.keys() - _LEFT_OUT_FILTERS},
        "format": _format,
        "sum": _sum,
        "tojson": _tojson,
        "metered value": _metered,
        "metered output": _metered_output,
        "metered rounds": _metered_rounds,
    }
    environment.globals = {
        "cycler": Cycler,
        "dict": dict,
        "joiner": Joiner,
        "namespace": _OpaqueNamespace,
        "raise_exception": _raise_exception,
        "range": _range,
        "strftime_now": _strftime_now,
    }
    return environment


class SandboxedTemplate:
    """A template that renders within limits; an invalid or too long source raises `jinja2.TemplateError`."""

    def __init__(self, source: str) -> None:
        refuse_if(len(source) > LONGEST_SOURCE, f"has more than {LONGEST_SOURCE} characters")
        environment = _environment()
        try:
            tree = environment.parse(source)
            self.variables = frozenset(name.name for name in tree.find_all(nodes.Name) if name.ctx == "load")
            self._template = environment.from_string(_Metering().visit(tree))
        except (RecursionError, MemoryError, SyntaxError, ValueError) as error:
            msg = f"the chat template cannot be compiled: {type(error).__name__}: {error}"
            raise jinja2.TemplateError(msg) from error

    def render(self, variables: Mapping[str, Any]) -> str:
        """Return the rendered text; every error is a `jinja2.TemplateError`."""
        try:
            return self._template.render({**variables, "the meter": Meter(dict(variables))})
        except jinja2.TemplateError:
            raise
        except Exception as error:  # a template can cause any of Python's errors
            msg = f"{type(error).__name__}: {error}"
            raise jinja2.TemplateRuntimeError(msg) from error
