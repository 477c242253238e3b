"""A program for the servers' interpreter: petals' own client continues prompts.

It reads one JSON object from its input: `shims` (folder of the servers' program), `model`, `initial_peers`,
`dht_prefix`, `dtype`, `prompts` (token ids) and `new_tokens`. Its last line of output is a list of new tokens for each
prompt. It has to lead a process group, which it kills at its end.
"""

from __future__ import annotations

import json
import os
import signal
import sys


def main() -> None:
    order = json.load(sys.stdin)
    sys.path.insert(0, order["shims"])
    from petals_servers.shims import import_petals  # noqa: PLC0415

    import_petals()
    import torch  # noqa: PLC0415
    from petals import AutoDistributedModelForCausalLM  # noqa: PLC0415
    from petals.client import inference_session  # noqa: PLC0415

    # closing a session there may wait for the event loop that runs it, for ever
    inference_session._ServerInferenceSession.__del__ = lambda _: None
    model = AutoDistributedModelForCausalLM.from_pretrained(
        order["model"],
        initial_peers=order["initial_peers"],
        dht_prefix=order["dht_prefix"],
        torch_dtype=getattr(torch, order["dtype"]),
    )
    answers = []
    for prompt in order["prompts"]:
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            tokens = model.generate(
                ids, max_new_tokens=order["new_tokens"], min_new_tokens=order["new_tokens"], do_sample=False
            )
        answers.append(tokens[0, len(prompt) :].tolist())
    print(json.dumps(answers), flush=True)  # noqa: T201
    # petals' client would leave processes behind, or wait for ever for its own event loop
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
