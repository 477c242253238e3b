"""The training loop of the tiny model: schedule, loss, checkpoints, and several processes."""

from __future__ import annotations

import itertools
import random
import time
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from torch import distributed
from torch.nn import functional
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from transformers import LlamaForCausalLM

from tiny_model.data.mixture import BARE_AT, KEYS_AT, SECOND_STAGE_AT, SETTLED_AT, draw_segments
from tiny_model.training.folder import build_config, load_tokenizer
from tiny_model.training.forward import hidden_states
from tiny_model.training.optimizer import TinyOptimizer

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

    from transformers import PreTrainedTokenizerFast

    from tiny_model.data.styles import Segment

IGNORED = -100
PADDED_TO = 32
"""Texts are padded to a multiple of this many tokens, since a matrix product of a new shape is slow."""
CHECKPOINT_SECONDS = 120
OPEN_PEAK = 0.12
SCHEDULE = (
    *((0, 0.01), (100, 1.0), (500, 1.0), (1000, 0.35), (5700, 0.1642)),
    *((SECOND_STAGE_AT, 0.01), (SECOND_STAGE_AT + 50, OPEN_PEAK)),
    *((BARE_AT, 0.01), (BARE_AT + 10, 0.05), (SETTLED_AT, 0.01), (SETTLED_AT + 10, 0.07)),
    *((KEYS_AT, 0.01), (KEYS_AT + 5, 0.05)),
)
"""Steps, each with a factor on the learning rate, which is linear in between; the last step has `LAST_FACTOR`.

To discover copying, the model needs the full rate, and to learn it well a far smaller one. The second stage rises to a
rate at which the skills of the first one last, and falls again. Its last three parts do the same."""
LAST_FACTOR = 0.01


def learning_rate_scale(step: int, steps: int) -> float:
    """Return the factor on the peak rate at a step of `steps`; see `SCHEDULE`."""
    corners = (*SCHEDULE, (steps, LAST_FACTOR))
    for (start, low), (end, high) in itertools.pairwise(corners):
        if step <= end:
            return low + (high - low) * (step - start) / (end - start)
    return corners[-1][1]


def encode(segments: Sequence[Segment], tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """Return the token ids and labels of pieces of text; labels of pieces that are not learned are `IGNORED`."""
    ids: list[int] = []
    labels: list[int] = []
    for text, learned in segments:
        piece = tokenizer.backend_tokenizer.encode(text).ids
        ids += piece
        labels += piece if learned else [IGNORED] * len(piece)
    return ids, labels


def text_loss(model: LlamaForCausalLM, ids: list[int], labels: list[int]) -> torch.Tensor:
    """Return the loss of one text, summed over its learned tokens."""
    inputs = torch.tensor(ids[:-1])
    inputs = functional.pad(inputs, (0, -len(inputs) % PADDED_TO))
    targets = torch.tensor(labels[1:])
    chosen = (targets != IGNORED).nonzero().squeeze(1)  # the head runs on the answers only
    return functional.cross_entropy(
        model.lm_head(hidden_states(model, inputs)[chosen]), targets[chosen], reduction="sum"
    )


def longest_conversation(seed: int, tokenizer: PreTrainedTokenizerFast, drawn: int = 3000) -> int:
    """Return the number of tokens of the longest of `drawn` training conversations."""
    rng = random.Random(seed)
    return max(len(encode(draw_segments(rng, SECOND_STAGE_AT), tokenizer)[0]) for _ in range(drawn))


class Trainer:
    """A model, its optimiser and their current step, saved in a checkpoint file.

    Args:
        options: the command line.
        rank: the number of this process. All processes have the same model. Each has its share of a step's texts, and
            the gradients are added up.
    """

    def __init__(self, options: argparse.Namespace, rank: int = 0) -> None:
        """Build a new model, or load the checkpoint in the work folder."""
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
        """Write the checkpoint atomically."""
        part = self.file.with_suffix(".part")
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        state["before_keys"] = self.before_keys
        torch.save({**state, "step": self.step, "seconds": self.seconds}, part)
        part.replace(self.file)

    def advance(self) -> float:
        """Do one step and return its loss, the mean over all learned tokens."""
        if self.step == SECOND_STAGE_AT:  # a model folder does not hold the optimiser's state
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
        """Average the weights before and after the last part, which made other skills a little worse.

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
            started = time.process_time()  # the time of other programs on the same cores does not count
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
    """Train in one of several processes, one on each core, which is faster than one process on all cores.

    Args:
        rank: the number of this process.
        options: the command line.
    """
    torch.set_num_threads(1)
    store = distributed.FileStore(str(options.work_dir / "processes"), options.processes)  # type: ignore[attr-defined]
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=options.processes)
    Trainer(options, rank).train()
    distributed.destroy_process_group()
