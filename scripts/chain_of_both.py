"""Try chains of released servers and servers of petals' git main; see run_on_main.sh.

Usage: chain_of_both.py PYTHON_OF_RELEASED_SERVERS PYTHON_OF_MAIN_SERVERS
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from langchain_petals import Petals
from langchain_petals.engine.request import Request, Sampling
from langchain_petals.engine.settings import Settings
from langchain_petals.swarm import LocalSwarm

sys.path.append(str(Path(__file__).parents[1] / "tests" / "unit_tests" / "shared"))

from random_families import FAMILIES, random_model, save

NEW = 40
PROMPT = "Human: Count from 1 to 20.\nAI:"


def expected(model: Any, ids: list[int], num_beams: int) -> list[int]:
    """Return the new tokens by transformers."""
    with torch.inference_mode():
        found = model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
            max_new_tokens=NEW,
            min_new_tokens=NEW,
            do_sample=False,
            num_beams=num_beams,
        )
    tokens: list[int] = found[0, len(ids) :].tolist()
    return tokens


def check(
    what: str, connection: dict[str, Any], model: Any, ids: list[int], *, num_beams: int = 1, reused: int = 0
) -> list[int]:
    """Compare an answer over a swarm with transformers, and how much of a session was reused; end if they differ."""
    request = Request(ids, NEW, Sampling(greedy=True, min_new_tokens=NEW), num_beams=num_beams)
    engine = Petals(**connection)._get_engine()  # noqa: SLF001 - ids go in and come out, without texts
    [generation] = engine.submit([request], Settings())
    ours = [token for piece in generation for token in piece.tokens]
    theirs = expected(model, ids, num_beams)
    same = sum(one == other for one, other in zip(ours, theirs, strict=True))
    print(f"{what}, {num_beams} beam(s): {same} of {NEW} tokens equal, {generation.reused_tokens} reused")
    if ours != theirs or generation.reused_tokens != reused:
        sys.exit(f"{what}: {theirs} and {reused} reused were expected, not {ours} and {generation.reused_tokens}")
    return ours


def check_chain(first: LocalSwarm, second: LocalSwarm, what: str, *, can_roll_back: bool = False) -> None:
    """Try a chain of the first half of one swarm and the second half of the other, on the same model."""
    peers = [first.servers[0].peer_id, second.servers[1].peer_id]
    connection = {**first.connection, "allowed_servers": peers}
    model = AutoModelForCausalLM.from_pretrained(first.model)
    prompt = AutoTokenizer.from_pretrained(first.model)(PROMPT).input_ids
    answer = check(what, connection, model, prompt)
    common = [*prompt, *answer[:-10]]  # with it, a session can go on if its servers forget what came after it
    other = next(token for token in prompt if token != answer[-10])
    check(what, connection, model, [*common, other], reused=len(common) if can_roll_back else 0)
    check(what, connection, model, prompt, num_beams=3)


def main() -> None:
    released_python, main_python = sys.argv[1:]
    with LocalSwarm(python=released_python) as released:
        tokenizer = AutoTokenizer.from_pretrained(released.model)
        with LocalSwarm(initial_peers=released.initial_peers, python=main_python) as newer:
            check_chain(newer, newer, "git main", can_roll_back=True)
            check_chain(released, newer, "released => git main")
            check_chain(newer, released, "git main => released")
    with tempfile.TemporaryDirectory() as folder:
        model = random_model(FAMILIES["mixtral"] | {"vocab_size": len(tokenizer)})
        save(model, Path(folder))
        tokenizer.save_pretrained(folder)
        with LocalSwarm(folder, python=main_python) as mixtral:
            for num_beams in (1, 3):
                check("Mixtral on git main", mixtral.connection, model, [5, 11, 42, 7], num_beams=num_beams)


if __name__ == "__main__":
    main()
