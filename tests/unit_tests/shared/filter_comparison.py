"""A program: filters of logits by transformers, of any version, and by this package, side by side.

It is run by an interpreter whose environment has torch and some transformers, and perhaps nothing else: it reads this
package's filters by their path. For each line of input, a case in JSON, it writes a line with both results.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).parents[3] / "langchain_petals"
VERSION = "version"  # the only line of input that is no case; the answer is transformers' version


def own_filters() -> Any:
    """Return the module of this package's filters, imported without the package."""
    errors = types.ModuleType("langchain_petals.errors")
    errors.InvalidRequestError = ValueError  # type: ignore[attr-defined]
    sys.modules.setdefault("langchain_petals", types.ModuleType("langchain_petals"))
    sys.modules.setdefault("langchain_petals.errors", errors)
    path = PACKAGE / "engine" / "decoding" / "logit_filters.py"
    spec = importlib.util.spec_from_file_location("logit_filters", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def processors(case: dict[str, Any]) -> transformers.LogitsProcessorList:
    """Return transformers' processors, in the order of its `generate`."""
    options = case["options"]
    found = [*_of_text(case, options)]
    if not options["greedy"]:
        found += _of_scores(options, case["least_kept"])
    return transformers.LogitsProcessorList(found)


def _of_text(case: dict[str, Any], options: dict[str, Any]) -> Iterator[Any]:
    ends = case["end_tokens"]
    if options["repetition_penalty"] != 1:
        yield transformers.RepetitionPenaltyLogitsProcessor(options["repetition_penalty"])
    if options["no_repeat_ngram_size"]:
        yield transformers.NoRepeatNGramLogitsProcessor(options["no_repeat_ngram_size"])
    if options["bad_words_ids"]:
        words = [list(word) for word in options["bad_words_ids"]]
        yield transformers.NoBadWordsLogitsProcessor(words, ends or None)
    if options["min_new_tokens"] and ends:
        yield transformers.MinNewTokensLengthLogitsProcessor(
            case["prompt_length"], options["min_new_tokens"], torch.tensor(ends) if _takes_tensors() else ends
        )


def _of_scores(options: dict[str, Any], least: int) -> Iterator[Any]:
    if options["temperature"] != 1:
        yield transformers.TemperatureLogitsWarper(options["temperature"])
    if options["top_k"]:
        yield transformers.TopKLogitsWarper(options["top_k"], min_tokens_to_keep=least)
    if options["top_p"] < 1:
        yield transformers.TopPLogitsWarper(options["top_p"], min_tokens_to_keep=least)
    if options["min_p"] is not None:
        yield transformers.MinPLogitsWarper(options["min_p"], min_tokens_to_keep=least)
    if options["typical_p"] is not None and options["typical_p"] < 1:
        yield transformers.TypicalLogitsWarper(options["typical_p"], min_tokens_to_keep=least)


def _takes_tensors() -> bool:
    return int(transformers.__version__.partition(".")[0]) > 4


def scores_of(case: dict[str, Any]) -> torch.Tensor:
    """Return random scores, shape (1, vocabulary); a coarse grid makes some of them equal."""
    random = torch.Generator().manual_seed(case["seed"])
    scores = torch.randn(1, case["vocabulary"], generator=random) * case["scale"]
    return scores.round() if case["coarse"] else scores


def outcome(scores: torch.Tensor, seed: int) -> dict[str, Any]:
    """Return what is left of the vocabulary, its scores, and tokens that are drawn from it."""
    kept = (scores[0] > -torch.inf).nonzero().flatten()
    drawn: list[int] = []
    if len(kept):
        random = torch.Generator().manual_seed(seed)
        drawn = torch.multinomial(scores.softmax(-1), 5, replacement=True, generator=random)[0].tolist()
    return {"kept": kept.tolist(), "scores": scores[0, kept].tolist(), "drawn": drawn}


def compared(filters: Any, case: dict[str, Any]) -> dict[str, Any]:
    """Return the results of both for a case."""
    ids, prompt_length, ends = case["ids"], case["prompt_length"], case["end_tokens"]
    sampling = types.SimpleNamespace(**case["options"], seed=None)
    ours = filters.LogitFilters(sampling, prompt_length, ends, least_kept=case["least_kept"])(ids, scores_of(case))
    theirs = processors(case)(torch.tensor([ids]), scores_of(case))
    return {"ours": outcome(ours, case["seed"]), "theirs": outcome(theirs, case["seed"])}


def main() -> None:
    torch.set_num_threads(1)
    filters = own_filters()
    for line in sys.stdin:
        answer = transformers.__version__ if line.strip() == VERSION else compared(filters, json.loads(line))
        print(json.dumps(answer), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
