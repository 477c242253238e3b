"""A program for the servers' interpreter: petals' own client continues prompts.

It reads one JSON object from its input: `shims` (folder of the servers' program), `model`, `initial_peers`, `dtypes`
and `dht_prefixes` (names), `prompts` (token ids) and `new_tokens`. Its last line of output has, for each type and each
prefix, a list of new tokens for each prompt. It has to lead a process group, which it kills at its end.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from typing import Any


def main() -> None:
    order = json.load(sys.stdin)
    sys.path.insert(0, order["shims"])
    importlib.import_module("petals_servers.shims").import_petals()
    from petals.client import inference_session  # noqa: PLC0415

    # closing a session there may wait for the event loop that runs it, for ever
    inference_session._ServerInferenceSession.__del__ = lambda _: None
    print(json.dumps({name: _answers(order, name) for name in order["dtypes"]}), flush=True)  # noqa: T201
    # petals' client would leave processes behind, or wait for ever for its own event loop
    os.killpg(0, signal.SIGKILL)


def _answers(order: dict[str, Any], dtype: str) -> dict[str, list[list[int]]]:
    """Return the new tokens for each prompt, by the prefix of the servers."""
    import torch  # noqa: PLC0415
    from petals import AutoDistributedModelForCausalLM  # noqa: PLC0415

    new: int = order["new_tokens"]
    answers: dict[str, list[list[int]]] = {}
    for prefix in order["dht_prefixes"]:
        model = AutoDistributedModelForCausalLM.from_pretrained(
            order["model"],
            initial_peers=order["initial_peers"],
            dht_prefix=prefix,
            torch_dtype=getattr(torch, dtype),
        )
        answers[prefix] = []
        for prompt in order["prompts"]:
            with torch.inference_mode():
                tokens = model.generate(torch.tensor([prompt]), max_new_tokens=new, min_new_tokens=new, do_sample=False)
            answers[prefix].append(tokens[0, len(prompt) :].tolist())
    return answers


if __name__ == "__main__":
    main()
