"""What to say about arguments that are wrong: which one, why, and what was meant by a name that there is not."""

from __future__ import annotations

import difflib
import reprlib
from typing import TYPE_CHECKING, Any

from langchain_petals.hub import is_key

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from pydantic import ValidationError

_ALIKE = 0.7  # of difflib's ratio: "beams" is near enough to "num_beams"

_PEERS = "a swarm has no URL; give the addresses of its peers as initial_peers, or none for the public swarm"
_MODEL = "the model's folder or hub name is given as model"
_LIMIT = "the most tokens of an answer are given as max_tokens"
_PENALTY = "there is none of this kind; repetition_penalty is the nearest"
_CONTEXT = "the length of the context is the model's own; max_length limits prompt and answer together"
_FORM = "ChatPetals takes it; the form of a text is given as json_schema, regex or grammar"
_HARDWARE = "the servers of the swarm decide that; device and torch_dtype are about embeddings and output layer only"

_ELSEWHERE: dict[str, str] = {
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
    **dict.fromkeys(("tools", "tool_choice", "response_format", "parallel_tool_calls"), _FORM),
    **dict.fromkeys(("functions", "function_call"), "tools are bound by ChatPetals.bind_tools"),
    **dict.fromkeys(("messages", "prompt", "input"), "it is the first argument of a call"),
    "dtype": "it is given as torch_dtype",
    "adapter": "it is given as active_adapter",
    "logit_bias": "there is none; bad_words_ids forbids tokens",
    "echo": "an answer never holds the prompt",
    "stream": "call stream() for a stream; it is no option of other calls",
}
"""Arguments of other integrations, and what stands for them here."""

_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = 100


def unknown(name: str, known: Collection[str], otherwise: str = "") -> str:
    """Return what was probably meant by a name that there is not, in words that go on from it.

    Args:
        name: The name.
        known: The names that there are.
        otherwise: What to say where nothing comes near; by default these names.
    """
    if is_key(name):
        return "; a swarm needs no key, and the hub's is given to the constructor, as huggingface_api_key"
    spelled = {_plain(each): each for each in known}
    if name in _ELSEWHERE:
        return f"; {_ELSEWHERE[name]}"
    if near := difflib.get_close_matches(_plain(name), spelled, n=1, cutoff=_ALIKE):
        return f"; did you mean {spelled[near[0]]}?"
    if near := difflib.get_close_matches(_plain(name), map(_plain, _ELSEWHERE), n=1, cutoff=0.9):
        meant = next(each for each in _ELSEWHERE if _plain(each) == near[0])
        return f"; if {meant} is meant: {_ELSEWHERE[meant]}"
    return f"; {otherwise or 'there are ' + ', '.join(sorted(known))}"


def explained(
    error: ValidationError,
    *,
    name_unknown: Callable[[str], str],
    secrets: Collection[str] = (),
    given: Mapping[str, str] | None = None,
) -> str:
    """Return what is wrong with arguments: each by its name, with its value.

    Args:
        error: What pydantic says.
        name_unknown: Says what is wrong with a name that there is not.
        secrets: Arguments whose value is not shown.
        given: The names by which arguments were given that have several.
    """
    problems = error.errors(include_url=False)
    return "; ".join(_explained(problem, name_unknown, secrets, given or {}) for problem in problems)


def _explained(
    problem: Any, name_unknown: Callable[[str], str], secrets: Collection[str], given: Mapping[str, str]
) -> str:
    name = ".".join(str(given.get(each, each)) for each in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return name_unknown(name)
    if problem["type"] == "missing":
        return f"{name} is missing"
    message = problem["msg"].removeprefix("Value error, ").replace("valid tuple", "valid list")
    if not name or message.startswith(name):
        return str(message)
    value = "" if secrets and problem["loc"][0] in secrets else f" (got {_shown.repr(problem['input'])})"
    return f"{name}: {message}{value}"


def misplaced(owner: str, value: object) -> str:
    """Return how to give what was given without a name.

    Args:
        owner: Name of the class.
        value: What was given; it is not shown.
    """
    hint = f"write {owner}(name=value, ...)"
    if isinstance(value, dict):
        hint = f"put two stars before the dictionary, as in {owner}(**swarm.connection)"
    elif isinstance(value, str):
        hint = f"a model's name is given as {owner}(model=...)"
    return f"{owner} takes keyword arguments only; {hint}"


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
