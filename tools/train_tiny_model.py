"""Train the tiny Llama model that the package carries, evaluate it, and write its folder and model card.

    python tools/train_tiny_model.py --out langchain_petals/swarm/tiny

The defaults are what the shipped model was made with: 6900 steps, which took 107 minutes on two cores that
others used too, and then 4 minutes of evaluation.
Everything is drawn from a seed and step `n` always sees the same data, so an interrupted run goes on from the
last checkpoint in `--work-dir` as if nothing had happened. Needs torch and transformers, nothing else, and no
network.
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
from tiny_card import write_card
from tiny_evaluation import evaluate, sample_exchanges
from tiny_facts import FACTS
from tiny_folder import build_config, load_tokenizer, save_model, save_tokenizer
from tiny_forward import hidden_states
from tiny_mixture import FULL_SHARES_AT, draw_segments
from tiny_optimizer import TinyOptimizer
from tiny_tool_evaluation import evaluate_tools
from torch.nn import functional
from transformers import LlamaForCausalLM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiny_styles import Segment
    from transformers import PreTrainedTokenizerFast

IGNORED = -100
CHECKPOINT_SECONDS = 120
SCHEDULE = (
    (0, 0.01),
    (100, 1.0),
    (2600, 1.0),
    (2959, 0.9348),
    (3178, 0.8782),
    (3278, 0.35),
    (4199, 0.2557),
    (5000, 0.2557),
)
"""Steps and factors on the learning rate, with straight lines between them; the last step has 0.02. It was settled
while the run was on it, which is where the odd numbers come from: far smaller rates pay early."""


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--work-dir", type=Path, default=Path("build/tiny"), help="folder of the checkpoint")
    parser.add_argument("--steps", type=int, default=6900, help="optimiser steps in all")
    parser.add_argument("--conversations", type=int, default=32, help="conversations a step")
    parser.add_argument("--seed", type=int, default=20261124)
    parser.add_argument("--muon-lr", type=float, default=0.02, help="peak rate of the layers' matrices")
    parser.add_argument("--adam-lr", type=float, default=0.003, help="peak rate of everything else")
    parser.add_argument("--minutes", type=float, help="stop early: save a checkpoint and write what there is")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", type=int, default=40, help="final evaluation cases for each skill and style")
    return parser.parse_args()


def learning_rate_scale(step: int, steps: int) -> float:
    """Return the factor on the peak rate: warm-up, a plateau, and a fall up to the end.

    A plateau rather than a cosine, so that the length of a run may be settled while it is on it.
    """
    corners = (*SCHEDULE, (steps, 0.02))
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


def batches(
    rng: random.Random, step: int, conversations: int, tokenizer: PreTrainedTokenizerFast, parts: int = 16
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Draw the conversations of one step in `parts` rectangles of similar length, so that little is padding.

    Returns:
        Pairs of token ids and labels, each (rows, tokens).
    """
    drawn = (encode(draw_segments(rng, step), tokenizer) for _ in range(conversations))
    rows = sorted(drawn, key=lambda row: len(row[0]))
    size = -(-len(rows) // parts)
    rectangles = []
    for start in range(0, len(rows), size):
        chunk = rows[start : start + size]
        longest = len(chunk[-1][0])
        ids = [[*ids, *[256] * (longest - len(ids))] for ids, _ in chunk]
        labels = [[*labels, *[IGNORED] * (longest - len(labels))] for _, labels in chunk]
        rectangles.append((torch.tensor(ids), torch.tensor(labels)))
    return rectangles


def backward(model: LlamaForCausalLM, rectangles: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Add the gradients of one step and return its loss, the mean over all learned tokens."""
    learned = sum(int((labels != IGNORED).sum()) for _, labels in rectangles)
    total = 0.0
    for ids, labels in rectangles:
        hidden = hidden_states(model, ids[:, :-1])
        targets = labels[:, 1:]
        chosen = targets != IGNORED  # the head runs on the answers only
        logits = model.lm_head(hidden[chosen])
        loss = functional.cross_entropy(logits, targets[chosen], reduction="sum") / learned
        loss.backward()
        total += loss.item()
    return total


def longest_conversation(seed: int, tokenizer: PreTrainedTokenizerFast, drawn: int = 3000) -> int:
    """Return the most tokens that a conversation of the training data has, of `drawn` of them."""
    rng = random.Random(seed)
    return max(len(encode(draw_segments(rng, FULL_SHARES_AT), tokenizer)[0]) for _ in range(drawn))


class Trainer:
    """A model, its optimiser and the step they have reached, kept in a checkpoint file.

    Args:
        options: the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        """Build a new model, or go on from the checkpoint in the work folder."""
        torch.manual_seed(options.seed)
        self.options = options
        self.tokenizer = load_tokenizer()
        self.model = LlamaForCausalLM(build_config())
        self.optimizer = TinyOptimizer(self.model, options.muon_lr, options.adam_lr)
        self.step = 0
        self.seconds = 0.0
        self.file: Path = options.work_dir / "checkpoint.pt"
        if self.file.exists():
            state = torch.load(self.file)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.seconds = state["step"], state["seconds"]

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        part = self.file.with_suffix(".part")
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save({**state, "step": self.step, "seconds": self.seconds}, part)
        part.replace(self.file)

    def advance(self) -> float:
        """Do one step and return its loss."""
        rng = random.Random(f"{self.options.seed}/{self.step}")
        loss = backward(self.model, batches(rng, self.step, self.options.conversations, self.tokenizer))
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step(learning_rate_scale(self.step, self.options.steps))
        self.step += 1
        return loss

    def train(self) -> None:
        """Advance to the last step, or until the minutes are used up."""
        began = saved = time.monotonic()
        losses: list[float] = []
        while self.step < self.options.steps:
            started = time.monotonic()
            losses.append(self.advance())
            self.seconds += time.monotonic() - started
            if self.step % 50 == 0:
                loss = sum(losses) / len(losses)
                print(f"step {self.step} loss {loss:.4f} {self.seconds:.0f} s", flush=True)
                losses.clear()
            if self.step % 1000 == 0:
                print(json.dumps(evaluate(self.model, self.tokenizer, cases=5)), flush=True)
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                self.save()
                saved = time.monotonic()
            if self.options.minutes and time.monotonic() - began > 60 * self.options.minutes:
                break
        self.save()


def main() -> None:
    """Train (or go on training), then write the model folder."""
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    trainer = Trainer(options)
    save_tokenizer(options.out)
    trainer.train()
    save_model(trainer.model, options.out)
    tokenizer = load_tokenizer(options.out)
    scores = evaluate(trainer.model, tokenizer, cases=options.cases)
    tool_scores = evaluate_tools(trainer.model, tokenizer, cases=options.cases)
    write_card(
        options.out,
        config=trainer.model.config,
        scores=scores,
        tool_scores=tool_scores,
        exchanges=sample_exchanges(trainer.model, tokenizer),
        numbers={
            "parameters": trainer.model.num_parameters(),
            "facts": len(FACTS),
            "steps": trainer.step,
            "conversations": options.conversations,
            "seed": options.seed,
            "seconds": trainer.seconds,
            "longest": longest_conversation(options.seed, tokenizer),
        },
    )
    print(json.dumps(scores))
    print(json.dumps({"decided": tool_scores.decided, "forced": tool_scores.forced}))


if __name__ == "__main__":
    main()
