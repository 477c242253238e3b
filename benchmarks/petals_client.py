"""Petals' own client, in a process with the servers' interpreter."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from langchain_petals.swarm import PROGRAM, environment_for, servers_python

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

    from langchain_petals.swarm import LocalSwarm

_PROGRAM = Path(__file__).with_name("petals_program.py")


class PetalsClient:
    """Petals' own model on a swarm; see `petals_program`. Use it as a context manager.

    Args:
        swarm: The swarm.
    """

    def __init__(self, swarm: LocalSwarm) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `__exit__`
        python = servers_python()
        self._process = subprocess.Popen(
            [str(python), str(_PROGRAM), str(PROGRAM), json.dumps(swarm.connection)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment_for(python),
        )
        self._receive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # ends the input
        self._log.close()

    def generate_seconds(self, ids: Sequence[int], tokens: int) -> float:
        """Return the seconds of `generate` for so many tokens after a prompt."""
        options = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
        seconds: float = self._ask(do="generate", ids=list(ids), options=options)["seconds"]
        return seconds

    def step_milliseconds(self, prompt: int, tokens: int) -> float:
        """Return the milliseconds per token of a session's bare steps, after a prompt of so many tokens."""
        milliseconds: float = self._ask(do="steps", prompt=prompt, tokens=tokens)["milliseconds"]
        return milliseconds

    def generate(self, inputs: torch.Tensor, **options: Any) -> torch.Tensor:
        """Return prompt and answer, shape (1, tokens), as the model's own `generate`; for LangChain's older class."""
        return torch.tensor([self._ask(do="generate", ids=inputs[0].tolist(), options=options)["ids"]])

    def _ask(self, **order: Any) -> dict[str, Any]:
        if self._process.stdin is not None:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        return self._receive()

    def _receive(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            self._log.seek(0)
            msg = f"petals' own client has ended:\n{self._log.read().decode(errors='replace')[-3000:]}"
            raise RuntimeError(msg)
        answer: dict[str, Any] = json.loads(line)
        return answer
