"""Petals' own client, for comparison: a program for the servers' interpreter, which has petals.

It imports nothing of langchain_petals but the shims of the servers' program, whose folder is its first argument. The
second one is a JSON object with `model` and the options of petals' `from_pretrained`. It reads a JSON object from each
line of its input, and writes one line with the result:

    {"do": "generate", "ids": [...], "options": {...}}      -> {"ids": [...], "seconds": ...}
    {"do": "steps", "prompt": 20, "tokens": 128}            -> {"milliseconds": ...} per token
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from typing import Any


def _load(shims_folder: str, options: dict[str, Any]) -> Any:
    sys.path.insert(0, shims_folder)
    importlib.import_module("petals_servers.shims").restore_hivemind_names()
    petals = importlib.import_module("petals")
    sessions: Any = importlib.import_module("petals.client.inference_session")
    # its original waits for the event loop that it may run on, which then stands still for ever
    sessions._ServerInferenceSession.__del__ = lambda _: None  # noqa: SLF001 - petals has no public name for it
    importlib.import_module("torch").set_num_threads(1)
    return petals.AutoDistributedModelForCausalLM.from_pretrained(options.pop("model"), **options)


def _generate(model: Any, ids: list[int], options: dict[str, Any]) -> dict[str, Any]:
    torch: Any = importlib.import_module("torch")
    started = time.perf_counter()
    answer = model.generate(torch.tensor([ids]), **options)
    return {"seconds": time.perf_counter() - started, "ids": answer[0].tolist()}


def _steps(model: Any, prompt: int, tokens: int) -> dict[str, Any]:
    torch: Any = importlib.import_module("torch")
    first, token = (torch.randn(1, length, model.config.hidden_size) for length in (prompt, 1))
    with torch.inference_mode(), model.inference_session(max_length=prompt + tokens) as session:
        session.step(first)
        started = time.perf_counter()
        for _ in range(tokens - 1):
            session.step(token)
        return {"milliseconds": (time.perf_counter() - started) * 1000 / (tokens - 1)}


_WORKS: dict[str, Any] = {"generate": _generate, "steps": _steps}


def main() -> None:
    """Load the model, say so with an empty object, and answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    model = _load(sys.argv[1], json.loads(sys.argv[2]))
    answers.write("{}\n")
    for line in sys.stdin:
        order = json.loads(line)
        answers.write(json.dumps(_WORKS[order.pop("do")](model, **order)) + "\n")
    answers.flush()
    os._exit(0)  # petals' threads would wait


if __name__ == "__main__":
    main()
