"""Tools for arithmetic of two integers, and questions that take two of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tiny_model.data.styles import Turn
from tiny_model.data.tool_use.tools import Arguments, Parameter, Tool, build_tool, question_for
from tiny_model.data.values import integer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiny_model.data.words import Draw


@dataclass(frozen=True)
class Operation:
    """Arithmetic that tools offer.

    Attributes:
        names: what tools for it are called.
        description: what it does.
        wordings: how people ask for it.
        first: how it is asked for as the first of two steps.
        second: as the second one; with what is there already.
        do: the operation.
        result_first: whether the result of the first step is its first operand in the second one.
    """

    names: tuple[str, ...]
    description: str
    wordings: tuple[str, ...]
    first: str
    second: str
    do: Callable[[int, int], int]
    result_first: bool = True


OPERATIONS = (
    Operation(
        ("add", "add_numbers", "sum", "plus", "addition", "add_two"),
        "Add two numbers.",
        (
            *("What is {a} + {b}?", "What is {a} plus {b}?", "Add {a} and {b}.", "{a} + {b}"),
            "What is the sum of {a} and {b}?",
        ),
        "Add {a} and {b}",
        "add {c} to",
        lambda a, b: a + b,
    ),
    Operation(
        ("multiply", "times", "multiply_numbers", "product", "mul"),
        "Multiply two numbers.",
        (
            *("What is {a} * {b}?", "What is {a} times {b}?", "Multiply {a} by {b}.", "{a} * {b}"),
            *("Multiply {a} and {b}.", "What is {a} multiplied by {b}?"),
        ),
        "Multiply {a} and {b}",
        "multiply {c} with",
        lambda a, b: a * b,
        result_first=False,
    ),
    Operation(
        ("subtract", "minus", "difference", "sub"),
        "Subtract two numbers.",
        (
            *("What is {a} - {b}?", "What is {a} minus {b}?", "{a} - {b}"),
            *("What is the difference of {a} and {b}?", "Compute {a} - {b}."),
        ),
        "Subtract {b} from {a}",
        "subtract {c} from",
        lambda a, b: a - b,
    ),
    Operation(
        ("divide", "quotient", "div", "divide_numbers"),
        "Divide two numbers.",
        ("What is {a} / {b}?", "What is {a} divided by {b}?", "Divide {a} by {b}.", "{a} / {b}", "Compute {a} / {b}."),
        "Divide {a} by {b}",
        "divide by {c}",
        lambda a, b: a // b if b else 0,
    ),
)
IN_CHAINS = OPERATIONS[:3]
"""Those whose result is an integer."""
OPERATION_NAMES = frozenset(name for operation in OPERATIONS for name in operation.names)
OPERANDS = (("a", "b"), ("x", "y"), ("first", "second"), ("left", "right"), ("n", "m"), ("p", "q"))


def of_operation(draw: Draw, operation: Operation | None = None) -> Tool:
    """Arithmetic of two integers."""
    operation = operation or draw.choice(OPERATIONS)
    names = draw.choice(OPERANDS) if draw.chance(0.8) else (f"{draw.noun()}_a", f"{draw.noun()}_b")
    kind = draw.choice(("integer", "integer", "number"))
    parameters = [Parameter(name, {"type": kind}) for name in names]
    described = (
        operation.description
        if draw.chance(0.6)
        else operation.description.replace("two numbers", draw.choice(("integers", "a and b", "numbers", "x and y")))
    )

    def asks(draw: Draw, tool: Tool) -> tuple[str, Arguments]:
        a, b = (integer(draw, signed=False, digits=draw.rng.randint(1, 4)) for _ in range(2))
        arguments = dict(zip(names, (a, b), strict=True))
        natural = draw.wording(operation.wordings)
        return question_for(draw, tool, arguments, lambda: natural.format(a=a, b=b), 0.15), arguments

    return build_tool(draw, draw.choice(operation.names), described, parameters, asks)


def arithmetic_chain(draw: Draw) -> tuple[list[Tool], Turn]:
    """Draw a question that takes two calls: the second one reckons with the result of the first."""
    one, two = draw.rng.sample(IN_CHAINS, 2)
    first, second = of_operation(draw, one), of_operation(draw, two)
    while second.name == first.name:
        second = of_operation(draw, two)
    a, b, c = (integer(draw, signed=False, digits=draw.rng.randint(1, 2)) for _ in range(3))
    begin, then = one.first.format(a=a, b=b), two.second.format(c=c)
    question = draw.wording(
        (f"{begin}, then {then} the result.", f"{begin} and {then} that.", f"{begin}. Then {then} the result.")
    )
    between = one.do(a, b)
    operands = (between, c) if two.result_first else (c, between)
    final = two.do(*operands)
    steps = ((_call(first, (a, b)), str(between)), (_call(second, operands), str(final)))
    return [first, second], Turn(question, f"The answer is {final}.", steps)


def _call(tool: Tool, operands: tuple[int, int]) -> str:
    names = [parameter.name for parameter in tool.parameters]
    return tool.call(dict(zip(names, operands, strict=True)))
