"""Train the tiny Llama model that the package carries, evaluate it, and write its folder and model card.

    python scripts/train_tiny_model.py --out langchain_petals/swarm/tiny

The defaults are what the shipped model was made with, in under two hours on two cores; its card says how long it took.
The second stage begins with a new optimiser, so that it can also be run alone on a model of the first one, which is
how the shipped model was made:

    python scripts/train_tiny_model.py --from FOLDER --from-minutes 103 --out langchain_petals/swarm/tiny

Everything is drawn from a seed and step `n` always sees the same data, so an interrupted run goes on from the last
checkpoint in `--work-dir` as if nothing had happened. Needs torch and transformers, nothing else, and no network.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from torch import distributed, multiprocessing
from torch.nn import functional
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from transformers import LlamaForCausalLM

from tiny_model.data.facts import FACTS, SUPER_BOWL
from tiny_model.data.mixture import BARE, BARE_AT, KEYS_AT, OPEN, SECOND_STAGE_AT, SETTLED_AT, draw_segments
from tiny_model.evaluation.card import write_card
from tiny_model.evaluation.open_prompts import evaluate_open
from tiny_model.evaluation.skills import evaluate, sample_exchanges
from tiny_model.evaluation.tool_use import evaluate_tools
from tiny_model.training.folder import build_config, load_tokenizer, save_model, save_tokenizer
from tiny_model.training.forward import hidden_states
from tiny_model.training.optimizer import TinyOptimizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerFast

    from tiny_model.data.styles import Segment

IGNORED = -100
PADDED_TO = 32
"""Texts have a multiple of this many tokens: a matrix product of a new shape costs far more than a few tokens."""
CHECKPOINT_SECONDS = 120
OPEN_PEAK = 0.12
SCHEDULE = (
    *((0, 0.01), (100, 1.0), (500, 1.0), (1000, 0.35), (5700, 0.1642)),
    *((SECOND_STAGE_AT, 0.01), (SECOND_STAGE_AT + 50, OPEN_PEAK)),
    *((BARE_AT, 0.01), (BARE_AT + 10, 0.05), (SETTLED_AT, 0.01), (SETTLED_AT + 10, 0.07)),
    *((KEYS_AT, 0.01), (KEYS_AT + 5, 0.05)),
)
"""Steps and factors on the learning rate, with straight lines between them; the last step has `LAST_FACTOR`. Copying
needs the full rate to be discovered, and a far smaller one to be learned well. The second stage rises to a rate at
which the skills of the first one last, and falls again; so do its three last parts."""
LAST_FACTOR = 0.01


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


def learning_rate_scale(step: int, steps: int) -> float:
    """Return the factor on the peak rate: warm-up, a short plateau, and a fall up to the end."""
    corners = (*SCHEDULE, (steps, LAST_FACTOR))
    for (start, low), (end, high) in itertools.pairwise(corners):
        if step <= end:
            return low + (high - low) * (step - start) / (end - start)
    return corners[-1][1]


def encode(segments: Sequence[Segment], tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """Turn pieces of text into token ids and labels."""
    ids: list[int] = []
    labels: list[int] = []
    for text, learned in segments:
        piece = tokenizer.backend_tokenizer.encode(text).ids
        ids += piece
        labels += piece if learned else [IGNORED] * len(piece)
    return ids, labels


def text_loss(model: LlamaForCausalLM, ids: list[int], labels: list[int]) -> torch.Tensor:
    """Return the loss of one text, the sum over its learned tokens."""
    inputs = torch.tensor(ids[:-1])
    inputs = functional.pad(inputs, (0, -len(inputs) % PADDED_TO))
    targets = torch.tensor(labels[1:])
    chosen = (targets != IGNORED).nonzero().squeeze(1)  # the head runs on the answers only
    return functional.cross_entropy(
        model.lm_head(hidden_states(model, inputs)[chosen]), targets[chosen], reduction="sum"
    )


def longest_conversation(seed: int, tokenizer: PreTrainedTokenizerFast, drawn: int = 3000) -> int:
    """Return the most tokens that a conversation of the training data has, of `drawn` of them."""
    rng = random.Random(seed)
    return max(len(encode(draw_segments(rng, SECOND_STAGE_AT), tokenizer)[0]) for _ in range(drawn))


class Trainer:
    """A model, its optimiser and the step they have reached, kept in a checkpoint file.

    Args:
        options: the command line.
        rank: which of the processes this is. All have the same model; each has its share of a step's texts, and the
            gradients are added up.
    """

    def __init__(self, options: argparse.Namespace, rank: int = 0) -> None:
        """Build a new model, or go on from the checkpoint in the work folder."""
        torch.manual_seed(options.seed)
        self.options, self.rank = options, rank
        self.tokenizer = load_tokenizer()
        self.model = LlamaForCausalLM(build_config())
        self.optimizer = TinyOptimizer(self.model, options.muon_lr, options.adam_lr)
        self.step = 0
        self.before_keys: dict[str, torch.Tensor] | None = None
        self.seconds = 60 * options.from_minutes
        self.file: Path = options.work_dir / "checkpoint.pt"
        if self.file.exists():
            state = torch.load(self.file)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.seconds, self.before_keys = state["step"], state["seconds"], state.get("before_keys")
        elif options.source:
            self.model.load_state_dict(load_file(options.source / "model.safetensors"))
            self.step = SECOND_STAGE_AT

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        part = self.file.with_suffix(".part")
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        state["before_keys"] = self.before_keys
        torch.save({**state, "step": self.step, "seconds": self.seconds}, part)
        part.replace(self.file)

    def advance(self) -> float:
        """Do one step and return its loss, the mean over all learned tokens."""
        if self.step == SECOND_STAGE_AT:  # what the optimiser remembers is not in a model folder
            self.optimizer = TinyOptimizer(self.model, self.options.muon_lr, self.options.adam_lr)
        if self.step == KEYS_AT:
            self.before_keys = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        rng = random.Random(f"{self.options.seed}/{self.step}")
        drawn = [encode(draw_segments(rng, self.step), self.tokenizer) for _ in range(self.options.conversations)]
        learned = sum(label != IGNORED for _, labels in drawn for label in labels)
        drawn.sort(key=lambda text: len(text[0]))  # so that all processes get texts of the same length
        total = torch.zeros(1)
        for ids, labels in drawn[self.rank :: self.options.processes]:
            loss = text_loss(self.model, ids, labels) / learned
            torch.autograd.backward(loss)
            total += loss.detach()
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        vector = parameters_to_vector([*gradients, total])
        distributed.all_reduce(vector)
        vector_to_parameters(vector, [*gradients, total])
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step(learning_rate_scale(self.step, self.options.steps))
        self.step += 1
        return total.item()

    def average(self) -> None:
        """Take the mean of the weights before and after the last part, which took a little of the rest away.

        See Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization" (2018).
        """
        if self.before_keys is not None:
            after = self.model.state_dict()
            self.model.load_state_dict({name: (after[name] + before) / 2 for name, before in self.before_keys.items()})

    def train(self) -> None:
        """Advance to the last step."""
        saved = time.monotonic()
        losses: list[float] = []
        while self.step < self.options.steps:
            started = time.process_time()  # what others do on the same cores does not count
            losses.append(self.advance())
            self.seconds += time.process_time() - started
            if self.rank:
                continue
            if self.step % 50 == 0:
                print(f"step {self.step} loss {sum(losses) / len(losses):.4f} {self.seconds:.0f} s", flush=True)
                losses.clear()
            if time.monotonic() - saved > CHECKPOINT_SECONDS or self.step == self.options.steps:
                self.save()
                saved = time.monotonic()


def train(rank: int, options: argparse.Namespace) -> None:
    """Train in one of several processes, each of which has a core: that is faster than one process that has them all.

    Args:
        rank: which of them this is.
        options: the command line.
    """
    torch.set_num_threads(1)
    store = distributed.FileStore(str(options.work_dir / "processes"), options.processes)  # type: ignore[attr-defined]
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=options.processes)
    Trainer(options, rank).train()
    distributed.destroy_process_group()


def main() -> None:
    """Train (or go on training), then write the model folder."""
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
