"""Trips of an answer and its time: ours, and ours with a trip for each token, on the same swarm in turn.

Each row has two kinds of servers: released ones, where only the tokens that a grammar forces save trips; and ones that
can roll back (Petals 2.3), where right guesses save some, too.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, Field

from benchmarks.bench_swarm import BenchSwarm, bench_swarm
from benchmarks.comparison import Comparison, at, bounded, faster, in_turn
from langchain_petals import ChatPetals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from langchain_core.runnables import Runnable

    from benchmarks.effort import Effort
    from langchain_petals.engine import Settings

TRIP_FOR_EACH = "the same, a trip for each token"
ROLLING_BACK = "servers that roll back"
NEVER_SLOWER = 0.98  # 1 but for noise


def book_table(restaurant: str, guests: int) -> str:
    """Book a table in a restaurant."""
    raise NotImplementedError


def get_temperature(city: str) -> str:
    """Get the temperature in a city."""
    raise NotImplementedError


def add(a: int, b: int) -> int:
    """Add two numbers."""
    raise NotImplementedError


class Guest(BaseModel):
    """A guest."""

    guest_name: str
    guest_age: int
    home_city: str
    room_number: int
    with_breakfast: bool
    number_of_nights: int


class Stay(BaseModel):
    """A stay in a city."""

    city: str = Field(max_length=8)
    days: int = Field(ge=0, le=120)


@dataclass(frozen=True)
class Task:
    """A question to the model.

    Attributes:
        name: What is asked for.
        question: The question.
        options: What the call binds: tools, or a format.
        at_least: How many times faster it has to be at 25 ms a hop: on released servers, and on those that roll back.
    """

    name: str
    question: str
    options: Mapping[str, Any] = field(default_factory=dict)
    at_least: tuple[float | None, float | None] = (None, None)

    @property
    def is_free_text(self) -> bool:
        """Whether no grammar applies, so that it must not be slower with any delay."""
        return not self.options

    def target(self, delay: float, *, rolls_back: bool) -> float | None:
        """Return how many times faster it has to be; None if that is only reported."""
        if self.is_free_text:
            return NEVER_SLOWER
        return self.at_least[rolls_back] if delay == DELAY_OF_TARGETS else None

    def bind(self, chat: ChatPetals) -> Runnable[Any, Any]:
        """Return the model that gets the question."""
        if "tools" in self.options:
            return chat.bind_tools(**self.options)
        return chat.bind(**self.options)


DELAY_OF_TARGETS = 0.025
BOOKING = "Book a table in the restaurant Luna for 4 guests."
STAYS = [{"city": city, "days": len(city)} for city in ("Paris", "Oslo", "Rome", "Lima", "Bern")]
TASKS = (
    Task("a forced tool call", BOOKING, {"tools": [book_table], "tool_choice": "any"}, (2.3, 5)),
    Task("a tool call, one of three", BOOKING, {"tools": [get_temperature, add, book_table]}),
    Task(
        "an object with 6 fields",
        "The guest name is Ada, the guest age is 36, the home city is Oslo, the room number is 12, the with breakfast "
        "is true and the number of nights is 4.",
        {"response_format": Guest},
        (3.3, 5.5),
    ),
    Task(
        "a list of 5 objects",
        f"Repeat: {json.dumps(STAYS)}",
        {"json_schema": {"type": "array", "items": Stay.model_json_schema(), "minItems": 5, "maxItems": 5}},
    ),
    Task(
        "a sentence repeated",
        "Repeat after me: seven blue petals fell into the river and seven blue petals sailed home",
    ),
    Task("a story", "Tell me a story."),
)
MOST_TOKENS = 104  # the story is longer


class TripForEachToken(ChatPetals):
    """A chat model that asks the servers for each token."""

    def _settings(self) -> Settings:
        return replace(super()._settings(), runs_ahead=False, speculation=False)


class Taken(NamedTuple):
    """One answer.

    Attributes:
        seconds: Seconds that it took.
        trips: Steps through the swarm.
        content: Its text and calls.
    """

    seconds: float
    trips: int
    content: tuple[Any, ...]


def trips(effort: Effort) -> Iterator[Comparison]:
    """Compare with a trip for each token: time and trips of calls, objects and free text."""
    kinds = [("", None)] if effort.rolling_back is None else [("", None), (f", {ROLLING_BACK}", effort.rolling_back)]
    for kind, python in kinds:
        different = 0
        for delay in effort.delays:
            with bench_swarm(hop_delay=delay, **{} if python is None else {"python": python}) as bench:
                bench.llm(max_new_tokens=1).invoke("Human: Hello!\nAI:")  # connects to the servers
                for task in TASKS:
                    taken = _in_turn(bench, task, effort, delay)
                    different += sum(
                        ours.content != theirs.content
                        for ours, theirs in zip(taken["ours"], taken["each"], strict=True)
                    )
                    yield _compared(f"{task.name}{at(delay)}{kind}", taken, task.target(delay, rolls_back=bool(kind)))
        yield bounded(f"answers that differ from those with a trip for each token{kind}", different, 0, unit="answers")


def _in_turn(bench: BenchSwarm, task: Task, effort: Effort, delay: float) -> Mapping[str, Sequence[Taken]]:
    fields = bench.swarm.connection | {"temperature": 0, "session_cache": 0, "max_tokens": MOST_TOKENS}
    works = {"ours": _asking(task, ChatPetals(**fields)), "each": _asking(task, TripForEachToken(**fields))}
    if not delay:
        return in_turn(works, rounds=2 * effort.rounds)
    return in_turn(works, rounds=effort.few if delay <= DELAY_OF_TARGETS else 1, warm_up=False)


def _asking(task: Task, chat: ChatPetals) -> Callable[[], Taken]:
    model = task.bind(chat)

    def ask() -> Taken:
        started = time.perf_counter()
        answer = model.invoke(task.question)
        taken = time.perf_counter() - started
        calls = [(call["name"], call["args"]) for call in answer.tool_calls]
        return Taken(taken, answer.response_metadata["token_usage"]["trips"], (answer.text, calls))

    return ask


def _compared(name: str, taken: Mapping[str, Sequence[Taken]], at_least: float | None) -> Comparison:
    ours, theirs = ([each.seconds for each in taken[side]] for side in ("ours", "each"))
    numbers = _trips(taken["ours"]), _trips(taken["each"])
    return replace(faster(name, ours, TRIP_FOR_EACH, theirs, at_least=at_least), trips=numbers)


def _trips(taken: Sequence[Taken]) -> float:
    return statistics.median(each.trips for each in taken)
