"""Error texts for wrong arguments: which argument, why, and which name was probably meant."""

from __future__ import annotations

import difflib
import reprlib
from typing import TYPE_CHECKING, Any

from langchain_petals.hub import is_key

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from pydantic import ValidationError

_PEERS = "a swarm has no URL; give the addresses of its peers as initial_peers, or none for the public swarm"
_MODEL = "the model's folder or hub name is given as model"
_LIMIT = "the most tokens of an answer are given as max_tokens"
_PENALTY = "it is not supported; the most similar option is repetition_penalty"
_CONTEXT = "the length of the context is the model's own; max_length limits prompt and answer together"
_CHAT = "ChatPetals takes it; the format of a text is given as json_schema, regex or grammar"
_HARDWARE = "the servers of the swarm decide that; device and torch_dtype are about embeddings and output layer only"

_FOREIGN_NAMES: dict[str, str] = {
    **dict.fromkeys(("base_url", "api_base", "openai_api_base", "endpoint", "endpoint_url", "host", "url"), _PEERS),
    **dict.fromkeys(("inference_server_url", "server_url", "azure_endpoint", "openai_proxy"), _PEERS),
    **dict.fromkeys(("model_id", "repo_id", "model_path", "pretrained_model_name_or_path", "deployment_name"), _MODEL),
    **dict.fromkeys(("num_predict", "n_predict", "max_output_tokens", "max_completion_tokens"), _LIMIT),
    **dict.fromkeys(("max_tokens_to_sample", "max_gen_len", "maxOutputTokens"), _LIMIT),
    **dict.fromkeys(("frequency_penalty", "presence_penalty", "length_penalty"), _PENALTY),
    **dict.fromkeys(("repeat_penalty", "repetition_penality"), "it is given as repetition_penalty"),
    **dict.fromkeys(("num_ctx", "n_ctx", "context_length", "max_model_len", "max_input_tokens"), _CONTEXT),
    **dict.fromkeys(("n_gpu_layers", "num_gpu", "num_thread", "n_threads", "device_map", "load_in_8bit"), _HARDWARE),
    **dict.fromkeys(("load_in_4bit", "quantization", "keep_alive"), _HARDWARE),
    **dict.fromkeys(("request_timeout", "default_request_timeout", "max_time"), "seconds are given as timeout"),
    **dict.fromkeys(("stop_sequences", "stop_words", "stop_strings", "stopping_criteria"), "it is given as stop"),
    **dict.fromkeys(("num_return_sequences", "candidate_count", "best_of", "num_generations"), "it is given as n"),
    **dict.fromkeys(("random_seed", "random_state"), "it is given as seed"),
    **dict.fromkeys(("tools", "tool_choice", "response_format", "parallel_tool_calls"), _CHAT),
    **dict.fromkeys(("functions", "function_call"), "tools are bound by ChatPetals.bind_tools"),
    **dict.fromkeys(("messages", "prompt", "input"), "it is the first argument of a call"),
    "dtype": "it is given as torch_dtype",
    "adapter": "it is given as active_adapter",
    "logit_bias": "it is not supported; bad_words_ids forbids tokens",
    "echo": "an answer never holds the prompt",
    "stream": "call stream() for a stream; it is no option of other calls",
}
"""Argument names of other integrations, each with a hint to the right argument of this package."""

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 100


def suggestion(name: str, known: Collection[str], otherwise: str = "") -> str:
    """Return a hint to the name that was probably meant, to be appended to a sentence.

    If no known name is similar, the hint is `otherwise`, or a list of the known names.
    """
    if is_key(name):
        return "; a swarm needs no key, and the hub's is given to the constructor, as huggingface_api_key"
    if name in _FOREIGN_NAMES:
        return f"; {_FOREIGN_NAMES[name]}"
    if near := _similar(name, known, cutoff=0.7):  # "beams" is similar enough to "num_beams"
        return f"; did you mean {near}?"
    if near := _similar(name, _FOREIGN_NAMES, cutoff=0.9):
        return f"; if {near} is meant: {_FOREIGN_NAMES[near]}"
    return f"; {otherwise or 'there are ' + ', '.join(sorted(known))}"


def validation_message(
    error: ValidationError,
    *,
    unknown_name: Callable[[str], str],
    secrets: Collection[str] = (),
    given: Mapping[str, str] | None = None,
) -> str:
    """Return a message with the name, problem and value of each wrong argument.

    It shows no values of `secrets`. `given` has the name that the caller used for an argument with several names.
    """

    def message_of(problem: Any) -> str:
        name = ".".join(str((given or {}).get(each, each)) for each in problem["loc"])
        if problem["type"] == "extra_forbidden":
            return unknown_name(name)
        if problem["type"] == "missing":
            return f"{name} is missing"
        message: str = problem["msg"].removeprefix("Value error, ").replace("valid tuple", "valid list")
        if not name or message.startswith(name):
            return message
        value = "" if problem["loc"][0] in secrets else f" (got {_repr.repr(problem['input'])})"
        return f"{name}: {message}{value}"

    return "; ".join(map(message_of, error.errors(include_url=False)))


def positional_message(owner: str, value: object) -> str:
    """Return the message, without the value, for an argument of the class `owner` that has no name."""
    hint = f"write {owner}(name=value, ...)"
    if isinstance(value, dict):
        hint = f"put two stars before the dictionary, as in {owner}(**swarm.connection)"
    elif isinstance(value, str):
        hint = f"a model's name is given as {owner}(model=...)"
    return f"{owner} takes keyword arguments only; {hint}"


def _similar(name: str, known: Collection[str], cutoff: float) -> str | None:
    """Return the known name that is most similar; `cutoff` is the least ratio of difflib."""

    def normalized(name: str) -> str:
        return name.lower().replace("_", "").replace("-", "")

    spelled = {normalized(each): each for each in known}
    near = difflib.get_close_matches(normalized(name), spelled, n=1, cutoff=cutoff)
    return spelled[near[0]] if near else None
