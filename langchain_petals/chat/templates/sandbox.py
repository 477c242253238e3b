"""The Jinja environment of chat templates: transformers' variables and filters, each of them metered.

A chat template comes with a model from the hub, so it is somebody else's program. Jinja's sandbox keeps it away from
Python's internals, but not from the processor and the memory: two nested loops over `range(99999)` run for hours, and
`'a' * 10**10` fills the machine. Here every operation that can loop or grow is counted, in the same process:

- the syntax tree is rewritten once, so that each round of a loop, each output, container, comparison and slice passes
  through a `Meter`; so does each call, filter and operator, by Jinja's own hooks;
- whatever could be large is measured before it is made (`'a' * n`, `replace`, widths in format strings);
- only the attributes and filters that chat templates have a use for exist.

So no single step is long, and after each the meter may end the render.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.runtime import LoopContext, Macro, TemplateReference
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, pass_context
from jinja2.visitor import NodeTransformer

from langchain_petals.chat.templates.meter import Meter, TemplateLimitError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from jinja2.parser import Parser
    from jinja2.runtime import Context

# The longest published chat templates have some 25,000 characters.
LONGEST_SOURCE = 40_000
# Characters that one render may produce on the way, for each character of the input and beside it.
CHARACTERS_PER_INPUT_CHARACTER = 64
CHARACTERS_BESIDE_INPUT = 16_000_000

_LONGEST_NEEDLE = 256  # of methods that take time in proportion to text x needle
_LONGEST_RANGE = 100_000  # Jinja's own limit
_LONGEST_TIME_FORMAT = 100

_STRING_METHODS = frozenset(
    [
        "capitalize",
        "casefold",
        "count",
        "endswith",
        "find",
        "format",
        "index",
        "isalnum",
        "isalpha",
        "isascii",
        "isdecimal",
        "isdigit",
        "islower",
        "isnumeric",
        "isspace",
        "istitle",
        "isupper",
        "join",
        "lower",
        "lstrip",
        "partition",
        "removeprefix",
        "removesuffix",
        "replace",
        "rfind",
        "rindex",
        "rpartition",
        "rsplit",
        "rstrip",
        "split",
        "splitlines",
        "startswith",
        "strip",
        "swapcase",
        "title",
        "upper",
    ]
)
_CONTAINER_METHODS = frozenset(["copy", "count", "get", "index", "items", "keys", "values"])
_SLOW_NEEDLES = frozenset(["rfind", "rindex", "rpartition", "rsplit", "strip", "lstrip", "rstrip", "trim"])
_FILTERS = [
    "abs",
    "attr",
    "capitalize",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "safe",
    "select",
    "selectattr",
    "sort",
    "string",
    "title",
    "trim",
    "unique",
    "upper",
    "wordcount",
]
# A width of four digits, or one that comes from an argument.
_WIDE_PERCENT = re.compile(r"%[^a-zA-Z%]*(\d{4}|\*)")
_WIDE_BRACES = re.compile(r"\{[^{}]*:[^{}]*(\d{4}|\{)")
_WIDE_TIME = re.compile(r"%[-_0^#]*\d{3}")
# Placeholders of untrusted text come from here (see untrusted.py); JSON must not escape them.
_ESCAPED_IN_ASCII = re.compile(r"[^\x00-\x7f\U000f0000-\U000ffffd]")


class _OpaqueNamespace(Namespace):
    """A namespace that does not write out what it holds, which may hold it."""

    def __repr__(self) -> str:
        return "<Namespace>"


class _GenerationBlock(Extension):
    """`{% generation %}` marks the model's own text for training; a prompt is rendered as if it were not there."""

    tags = {"generation"}  # noqa: RUF012 - as Extension declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        parser.stream.skip()
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Metering(NodeTransformer):
    """Sends what can loop or grow through the filters that count."""

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        super().generic_visit(node, *args, **kwargs)
        if isinstance(node, nodes.For):
            node.iter = _through("metered rounds", cast("nodes.Expr", node.iter))
        elif isinstance(node, nodes.Output):
            node.nodes = [_through("metered output", _expression(child)) for child in node.nodes]
        elif isinstance(node, nodes.Concat):
            parts = [_through("string", part) for part in node.nodes]
            return _sum_of(parts)
        elif (
            isinstance(node, (nodes.List, nodes.Dict, nodes.Compare, nodes.Test))
            or (isinstance(node, nodes.Tuple) and node.ctx == "load")
            or (isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice))
        ):
            return _through("metered value", node)
        return node


def _through(name: str, node: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _expression(node: nodes.Node) -> nodes.Expr:
    """Return what an output statement writes; plain text is a constant."""
    if isinstance(node, nodes.TemplateData):
        return nodes.Const(node.data, lineno=node.lineno)
    return cast("nodes.Expr", node)


def _sum_of(parts: list[nodes.Filter]) -> nodes.Expr:
    total: nodes.Expr = parts[0]
    for part in parts[1:]:
        total = nodes.Add(total, part, lineno=part.lineno)
    return total


def _meter(context: Context) -> Meter:
    # Not a template variable: names with a space cannot be written in a template.
    meter: Meter = context.parent["the meter"]
    return meter


@pass_context
def _metered(context: Context, value: Any) -> Any:
    return _meter(context).charge(value)


@pass_context
def _metered_output(context: Context, value: Any) -> str:
    meter = _meter(context)
    if isinstance(value, (list, tuple, dict)):
        meter.size(value)
    text = str(value)
    meter.spend(len(text))
    return text


@pass_context
def _metered_rounds(context: Context, iterable: Iterable[Any]) -> Iterator[Any]:
    meter = _meter(context)
    for item in iterable:
        meter.spend()
        yield item


def _metered_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that measures before and after; it takes the context, so that it is not run while compiling."""
    passes = getattr(function, "jinja_pass_arg", None)

    @pass_context
    def wrapper(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        meter = _meter(context)
        _check_arguments(meter, name, value, args, kwargs)
        first: dict[str | None, list[Any]] = {
            None: [],
            "context": [context],
            "eval_context": [context.eval_ctx],
            "environment": [context.environment],
        }
        leading = first[None if passes is None else passes.name]
        return meter.charge(function(*leading, value, *args, **kwargs))

    return wrapper


def _check_arguments(meter: Meter, name: str, receiver: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuse, before it is made, what a filter or a method would make of its arguments."""
    meter.spend()
    given = [*args, *kwargs.values()]
    for value in given:
        meter.size(value)
    if name == "replace" and len(given) > 1:
        old, new = str(given[0]), str(given[1])
        meter.spend(
            len(receiver) + receiver.count(old) * len(new) if isinstance(receiver, str) else meter.size(receiver)
        )
    elif name == "join":
        for separator, parts in ((receiver, given[0] if given else ""), (given[0] if given else "", receiver)):
            if isinstance(separator, str):
                meter.spend(len(separator) * (len(parts) if hasattr(parts, "__len__") else _LONGEST_RANGE))
    elif name == "indent":
        width = max((len(value) if isinstance(value, str) else int(value) for value in given), default=4)
        meter.spend(width * (receiver.count("\n") + 1))
    elif name == "format":
        # the method, or the filter of this name, which works like the operator
        _check_width(_WIDE_BRACES, receiver)
        _check_width(_WIDE_PERCENT, receiver)
        meter.spend((receiver.count("{") + receiver.count("%")) * sum(meter.size(value) for value in given))
    elif name in _SLOW_NEEDLES and any(isinstance(value, str) and len(value) > _LONGEST_NEEDLE for value in given):
        msg = f"the chat template uses {name} with more than {_LONGEST_NEEDLE} characters"
        raise TemplateLimitError(msg)


def _check_width(pattern: re.Pattern[str], text: str) -> None:
    if pattern.search(text):
        msg = "the chat template formats with too large or a computed width"
        raise TemplateLimitError(msg)


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with the attributes that templates need, and operators and calls that are counted."""

    intercepted_binops = frozenset(["+", "-", "*", "**", "%"])

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if not super().is_safe_attribute(obj, attr, value):
            return False
        if isinstance(obj, str):
            return attr in _STRING_METHODS
        if isinstance(obj, (dict, list, tuple)):
            return attr in _CONTAINER_METHODS
        return isinstance(obj, (Namespace, LoopContext, Macro, TemplateReference))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        meter = _meter(context)
        if operator == "*":
            for value, times in ((left, right), (right, left)):
                if isinstance(times, int) and isinstance(value, (str, list, tuple)):
                    meter.spend(max(0, times) * max(1, meter.size(value)))
            if isinstance(left, int) and isinstance(right, int):
                meter.check_bits(left.bit_length() + right.bit_length())
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            meter.check_bits(left.bit_length() * max(0, right))
        elif operator == "%" and isinstance(left, str):
            _check_width(_WIDE_PERCENT, left)
            meter.spend(left.count("%") * meter.size(right))
        elif operator == "+" and isinstance(left, str) and isinstance(right, str):
            meter.spend(len(left) + len(right))
            return left + right
        return meter.charge(super().call_binop(context, operator, left, right))

    def unsafe_undefined(self, obj: Any, attribute: str) -> jinja2.Undefined:
        # Jinja's own returns a value that raises when it is used, but not when it is printed.
        msg = f"the chat template may not use {attribute!r} of {type(obj).__name__!r}"
        raise SecurityError(msg)

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        meter = _meter(context)
        # Jinja wraps str.format, and leaves the method behind
        receiver = getattr(getattr(obj, "__wrapped__", obj), "__self__", None)
        if isinstance(receiver, (str, list, tuple, dict)):
            _check_arguments(meter, obj.__name__, receiver, args, kwargs)
        else:
            meter.spend()
        return meter.charge(super().call(context, obj, *args, **kwargs))


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
    encoder = json.JSONEncoder(ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)
    if indent is None:
        text = encoder.encode(value)
    else:
        pieces = []
        if indent > _LONGEST_NEEDLE:
            msg = f"the chat template indents by more than {_LONGEST_NEEDLE} characters"
            raise TemplateLimitError(msg)
        for piece in encoder.iterencode(value):
            meter.spend(len(piece))
            pieces.append(piece)
        text = "".join(pieces)
    if ensure_ascii:
        text = _ESCAPED_IN_ASCII.sub(lambda match: json.dumps(match[0])[1:-1], text)
    meter.spend(len(text))
    return text


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(time_format: str) -> str:
    if len(time_format) > _LONGEST_TIME_FORMAT or _WIDE_TIME.search(time_format):
        msg = "the chat template formats the time with too long a format"
        raise TemplateLimitError(msg)
    return dt.datetime.now().astimezone().strftime(time_format)


@lru_cache(maxsize=1)
def _environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _GenerationBlock]
    )
    environment.filters = {name: _metered_filter(name, environment.filters[name]) for name in _FILTERS} | {
        "tojson": _tojson,
        "metered value": _metered,
        "metered output": _metered_output,
        "metered rounds": _metered_rounds,
    }
    environment.globals = {
        "range": environment.globals["range"],
        "dict": dict,
        "namespace": _OpaqueNamespace,
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
    }
    return environment


class SandboxedTemplate:
    """A template that renders within limits.

    Args:
        source: Jinja source, as in the `chat_template` of a tokenizer.

    Raises:
        jinja2.TemplateError: The source is no template, uses filters or blocks that chat templates have none of, or is
            longer than 40,000 characters.
    """

    def __init__(self, source: str) -> None:
        if len(source) > LONGEST_SOURCE:
            msg = f"the chat template has more than {LONGEST_SOURCE} characters"
            raise TemplateLimitError(msg)
        environment = _environment()
        try:
            tree = environment.parse(source)
            self.variables = frozenset(name.name for name in tree.find_all(nodes.Name) if name.ctx == "load")
            self._template = environment.from_string(_Metering().visit(tree))
        except (RecursionError, MemoryError, SyntaxError, ValueError) as error:
            msg = f"the chat template cannot be compiled: {type(error).__name__}: {error}"
            raise jinja2.TemplateError(msg) from error

    def render(self, variables: Mapping[str, Any]) -> str:
        """Return the text of the template.

        Raises:
            jinja2.TemplateError: The template raised it, did what the sandbox forbids, failed in some other way, or
                asked for too much (`TemplateLimitError`).
        """
        unlimited = Meter(2**60)
        size = unlimited.size(dict(variables))
        meter = Meter(CHARACTERS_BESIDE_INPUT + CHARACTERS_PER_INPUT_CHARACTER * size)
        try:
            return self._template.render({**variables, "the meter": meter})
        except jinja2.TemplateError:
            raise
        except Exception as error:  # whatever Python raises in a program that is not ours
            msg = f"{type(error).__name__}: {error}"
            raise jinja2.TemplateRuntimeError(msg) from error
