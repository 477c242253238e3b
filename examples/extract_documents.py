"""Structured extraction: 50 short documents become 50 objects, in batches.

You see a progress bar, some of the objects, how many of the 50 are right, and how much faster the batch was than one
document after the other, which is measured on the first ten. Each message to and from a server of this program's swarm
is delayed by 10 ms, as on a network. There a step costs about the same for one answer and for many.

    python examples/extract_documents.py

Needs only this package.
"""

from __future__ import annotations

import itertools
import os
import time
from contextlib import nullcontext
from functools import partial

from pydantic import BaseModel
from rich.console import Console
from rich.progress import track

from langchain_petals import ChatPetals
from langchain_petals.swarm import LocalSwarm


class Person(BaseModel):
    """A person in a text."""

    name: str
    age: int
    city: str


# Wordings that the bundled model knows. It is very small: of "Ada, who is 36, lives in Lima" it makes nothing.
WORDINGS = (
    "The name is {0.name}, the age is {0.age} and the city is {0.city}.",
    "name: {0.name}; age: {0.age}; city: {0.city}",
    "The person has name {0.name}, age {0.age} and city {0.city}.",
    "The name is {0.name}. The age is {0.age}. The city is {0.city}.",
    "Read this: the name is {0.name}, the age is {0.age} and the city is {0.city}.",
)
NAMES = ("Ada", "Bruno", "Chen", "Dalia", "Emil", "Fatima", "Goran", "Hana", "Ivo", "Jun")
CITIES = ("Lima", "Oslo", "Osaka", "Cairo", "Porto", "Quito", "Delhi")
AT_A_TIME = 25
ALONE = 10


def main() -> None:
    people = [
        Person(name=name, age=20 + 7 * number % 61, city=CITIES[number % len(CITIES)])
        for number, name in zip(range(50), itertools.cycle(NAMES), strict=False)
    ]
    documents = [WORDINGS[number % len(WORDINGS)].format(person) for number, person in enumerate(people)]
    # LANGCHAIN_PETALS_MODEL and its companions name a swarm; without them this program starts one of its own
    own = nullcontext() if os.environ.get("LANGCHAIN_PETALS_MODEL") else LocalSwarm(hop_delay=0.01)
    with own as swarm:
        chat = ChatPetals(**(swarm.connection if swarm else {}), temperature=0, preload=True)
        extract = chat.with_structured_output(Person)
        show = partial(track, console=Console(stderr=True))
        started = time.monotonic()
        for document in show(documents[:ALONE], "One after the other"):
            extract.invoke(document)
        alone = (time.monotonic() - started) / ALONE
        started = time.monotonic()
        batch = extract.batch_as_completed(documents, {"max_concurrency": AT_A_TIME})
        found = dict(show(batch, f"{AT_A_TIME} at a time", total=len(documents)))
        together = (time.monotonic() - started) / len(documents)
    for number in range(0, len(documents), 11):
        print(f"{documents[number]}\n  {found[number]!r}")
    print(f"{sum(found[number] == person for number, person in enumerate(people))} of {len(people)} are right.")
    print(f"{alone:.2f} s for a document alone, {together:.2f} s in a batch: {alone / together:.1f} times as fast.")


if __name__ == "__main__":
    main()
