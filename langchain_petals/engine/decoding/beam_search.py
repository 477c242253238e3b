"""Beam search by the model's own `generate`, without the token loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from langchain_petals.engine.decoding.detokenizer import Detokenizer, StopMatcher
from langchain_petals.pieces import FinishReason, Piece

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_petals.engine.causal_model import CausalModel
    from langchain_petals.engine.generation import Generation
    from langchain_petals.tokenizer import Tokenizer


def search(model: CausalModel, tokenizer: Tokenizer, end_tokens: Sequence[int], generation: Generation) -> None:
    """Find the likeliest continuation of a request, and deliver it in one piece.

    A stop sequence cuts the text but does not end the search, since only the end of the search gives the text.
    """
    request, sampling = generation.request, generation.request.sampling
    prompt, end_tokens = list(request.prompt_ids), (*end_tokens, *request.end_tokens)
    options: dict[str, Any] = {
        "repetition_penalty": sampling.repetition_penalty,
        "no_repeat_ngram_size": sampling.no_repeat_ngram_size,
        "bad_words_ids": [list(ids) for ids in sampling.bad_words_ids] or None,
        "min_new_tokens": sampling.min_new_tokens or None,
    }
    if not sampling.greedy:
        options |= {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or 0,
            "typical_p": sampling.typical_p or 1.0,
        }
    with torch.inference_mode():
        ids = model.generate(
            torch.tensor([prompt], device=model.device),
            num_beams=request.num_beams,
            do_sample=not sampling.greedy,
            max_new_tokens=request.max_new_tokens,
            eos_token_id=list(end_tokens) or None,
            stopping_criteria=[lambda *_, **__: generation.cancelled],
            **options,
        )[0, len(prompt) :].tolist()
    # a sequence that ended before the others is padded
    end = next((i for i, token in enumerate(ids) if token in end_tokens), len(ids))
    tokens = tuple(ids[: end + 1])
    detokenizer = Detokenizer(tokenizer, prompt)
    stop = StopMatcher(request.stop)
    text, stopped = stop.add("".join(map(detokenizer.add, ids[:end])) + detokenizer.flush())
    reason: FinishReason = "length" if end == len(ids) and stopped is None else "stop"
    generation.put(Piece(text + stop.flush(), len(tokens), reason, tokens=tokens))
