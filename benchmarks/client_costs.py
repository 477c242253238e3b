"""What a client costs a program: its start, its first token, its end and its memory, against an older version if given.

Each round runs a program of its own with each version, in turn.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from benchmarks.comparison import Comparison, bounded
from benchmarks.report import ROOT
from langchain_petals.swarm import LocalSwarm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.effort import Effort

_MEGABYTE = 2**20
_MOST_SECONDS_TO_END = 0.3

_PROGRAM = """
import json, sys, time
begun = time.perf_counter()
from langchain_petals import Petals
model = Petals(**json.loads(sys.argv[1]), temperature=0, max_new_tokens=8, preload=True)
connected = time.perf_counter()
next(model.stream("Human: Hello!\\nAI:"))
answered = time.perf_counter()
print(json.dumps([connected - begun, answered - connected]), flush=True)
sys.stdin.readline()
"""
# torch alone takes longer to end than a client to leave its swarm
_IMPORTS_ALONE = "import sys, langchain_petals.engine.registry; print('[]', flush=True); sys.stdin.readline()"

_START, _FIRST_TOKEN, _END, _MEMORY = "import and connect", "first token", "end", "memory of all processes"
_UNITS = {_START: "s", _FIRST_TOKEN: "s", _END: "s", _MEMORY: "MB"}


@dataclass(frozen=True)
class Version:
    """A version of this package, and what runs it.

    Attributes:
        folder: Where the package's checkout is.
        python: Interpreter of its environment.
    """

    folder: Path
    python: str = sys.executable


def client_costs(effort: Effort, old: Version | None = None) -> Iterator[Comparison]:
    """Measure a client program; without an older version, only its end has a bound."""
    versions = {"ours": Version(ROOT)} | ({} if old is None else {"older": old})
    with LocalSwarm() as swarm:
        connection = json.dumps(swarm.connection)
        taken: dict[str, list[dict[str, float]]] = {name: [] for name in versions}
        without = []
        for index in range(effort.rounds + 1):
            for name, version in versions.items():
                costs = _costs(version, _PROGRAM, connection)
                if index:  # the first round reads everything from the disk
                    taken[name].append(costs)
            if index:
                without.append(_costs(versions["ours"], _IMPORTS_ALONE, connection)[_END])
    for cost, unit in _UNITS.items():
        ours = statistics.median(each[cost] for each in taken["ours"])
        if old is not None:
            theirs = statistics.median(each[cost] for each in taken["older"])
            yield Comparison(
                f"a client program: {cost}",
                "an older version",
                ours,
                theirs,
                unit,
                ours / theirs,
                "less",
                ours < theirs,
            )
        elif cost != _END:
            yield Comparison(f"a client program: {cost}", "", ours, ours, unit, None)
    ends = statistics.median(each[_END] for each in taken["ours"]) - statistics.median(without)
    yield bounded(
        "a client program: end, beyond its imports alone",
        ends,
        _MOST_SECONDS_TO_END,
        unit="s",
    )


def _costs(version: Version, program: str, connection: str) -> dict[str, float]:
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            [version.python, "-c", program, connection],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "PYTHONPATH": str(version.folder)},
            cwd=version.folder,
        ) as running,
    ):
        line = running.stdout.readline() if running.stdout is not None else ""
        if not line:
            running.wait()
            log.seek(0)
            msg = f"a client program of {version.folder} has failed:\n{log.read().decode(errors='replace')[-3000:]}"
            raise RuntimeError(msg)
        costs = dict(zip(_UNITS, json.loads(line), strict=False))
        process = psutil.Process(running.pid)
        memory = sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))
        begun = time.perf_counter()
        running.communicate("\n")
        return costs | {_END: time.perf_counter() - begun, _MEMORY: memory / _MEGABYTE}
