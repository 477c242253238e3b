"""Train the tiny Llama model that the package carries, evaluate it, and write its folder and model card.

    python scripts/train_tiny_model.py --out langchain_petals/swarm/tiny

The defaults are those of the shipped model, which took under two hours on two cores; its card has the exact time. The
second stage begins with a new optimiser, so it can also be run alone on a model of the first stage. The shipped model
was made so:

    python scripts/train_tiny_model.py --from FOLDER --from-minutes 103 --out langchain_petals/swarm/tiny

All data is drawn from a seed, and step `n` always sees the same data, so an interrupted run continues from the last
checkpoint in `--work-dir` with the same result. It needs torch and transformers, and no network.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from torch import multiprocessing

from tiny_model.data.facts import FACTS, SUPER_BOWL
from tiny_model.data.mixture import BARE, BARE_AT, KEYS_AT, OPEN, SECOND_STAGE_AT, SETTLED_AT
from tiny_model.evaluation.card import write_card
from tiny_model.evaluation.open_prompts import evaluate_open
from tiny_model.evaluation.skills import evaluate, sample_exchanges
from tiny_model.evaluation.tool_use import evaluate_tools
from tiny_model.training.folder import load_tokenizer, save_model, save_tokenizer
from tiny_model.training.trainer import OPEN_PEAK, Trainer, longest_conversation, train


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--work-dir", type=Path, default=Path("build/tiny"), help="folder of the checkpoint")
    parser.add_argument("--from", type=Path, dest="source", help="model folder to begin the second stage with")
    parser.add_argument("--from-minutes", type=float, default=0.0, help="how long that model was trained")
    parser.add_argument("--steps", type=int, default=10110, help="optimiser steps in all, of both stages")
    parser.add_argument("--conversations", type=int, default=32, help="conversations a step")
    parser.add_argument("--seed", type=int, default=20261124)
    parser.add_argument("--muon-lr", type=float, default=0.02, help="peak rate of the layers' matrices")
    parser.add_argument("--adam-lr", type=float, default=0.003, help="peak rate of everything else")
    parser.add_argument("--processes", type=int, default=2, help="one a core; the model does not depend on it much")
    parser.add_argument("--cases", type=int, default=40, help="final evaluation cases for each skill and style")
    return parser.parse_args()


def main() -> None:
    """Train, or continue training; then write the model folder."""
    options = parse_arguments()
    options.work_dir.mkdir(parents=True, exist_ok=True)
    (options.work_dir / "processes").unlink(missing_ok=True)
    save_tokenizer(options.out)
    multiprocessing.spawn(train, (options,), nprocs=options.processes)  # type: ignore[attr-defined, no-untyped-call]
    trainer = Trainer(options)
    trainer.average()
    save_model(trainer.model, options.out)
    tokenizer = load_tokenizer(options.out)
    scores = evaluate(trainer.model, tokenizer, cases=options.cases)
    tool_scores = evaluate_tools(trainer.model, tokenizer, cases=options.cases)
    open_scores = evaluate_open(trainer.model, tokenizer, cases=options.cases)
    write_card(
        options.out,
        config=trainer.model.config,
        scores=scores,
        tool_scores=tool_scores,
        open_scores=open_scores,
        exchanges=sample_exchanges(trainer.model, tokenizer),
        numbers={
            "parameters": trainer.model.num_parameters(),
            "facts": len(FACTS) + len(SUPER_BOWL),
            "steps": trainer.step,
            "conversations": options.conversations,
            "seed": options.seed,
            "seconds": trainer.seconds,
            "longest": longest_conversation(options.seed, tokenizer),
            "open_steps": trainer.step - SECOND_STAGE_AT,
            "open_rate": OPEN_PEAK,
            "open_share": OPEN,
            "bare_steps": SETTLED_AT - BARE_AT,
            "settling_steps": KEYS_AT - SETTLED_AT,
            "keys_steps": trainer.step - KEYS_AT,
            "bare_share": BARE,
        },
    )
    print(json.dumps(scores))
    print(json.dumps({"worded": open_scores.worded, **open_scores.in_template}))
    print(json.dumps({"decided": tool_scores.decided, "forced": tool_scores.forced}))


if __name__ == "__main__":
    main()
