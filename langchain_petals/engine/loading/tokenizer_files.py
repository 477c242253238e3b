"""A model's tokenizer from its files, with the ids and texts that transformers 4.34 gives.

Petals' own client, and so the models on its swarms, use transformers 4.34. Later versions split some texts otherwise
(Llama 2: text after special tokens, spaces in front). Beside tokenizer.json, 4.34 takes from tokenizer_config.json:

- tokens: those of `added_tokens_decoder` replace what tokenizer.json says of them; special tokens are added if they are
  not there yet. Without `added_tokens_decoder`, special_tokens_map.json and added_tokens.json count.
- the class: that of Llama makes the tokens around a text from `add_bos_token` and `add_eos_token`, whatever
  tokenizer.json says; those of BLOOM, GPT-2 and GPT-NeoX set whether a space is put in front of a text. A class has
  special tokens of its own, for those that the config leaves out.
- `clean_up_tokenization_spaces`.

`legacy` has no effect on a fast tokenizer in 4.34.
"""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken, processors
from tokenizers import Tokenizer as Backend

from langchain_petals import hub
from langchain_petals.engine.loading.fast_tokenizer import FastTokenizer
from langchain_petals.engine.loading.model_chat_template import read_chat_template
from langchain_petals.engine.loading.sentencepiece_model import read_sentencepiece
from langchain_petals.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from langchain_petals.hub import Files

    _Token = str | AddedToken

_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_MORE = "additional_special_tokens"
_HALF = re.compile("[\ud800-\udfff]")  # half a character, which JSON can hold and UTF-8 cannot
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True)
class _TokenizerClass:
    """What a tokenizer class of transformers 4.34 adds to tokenizer.json.

    Attributes:
        special_tokens: Its special tokens, for roles that the config does not name.
        makes_ends: Whether it sets which tokens come before and after a text.
        sets_prefix_space: Whether it sets `add_prefix_space`, and how far: "outermost" or "all".
        cleans_up: Whether decoding removes spaces before punctuation where the config does not say.
    """

    special_tokens: Mapping[str, Any] = field(default_factory=dict)
    makes_ends: bool = False
    sets_prefix_space: str = ""
    cleans_up: bool = True


_SENTENCEPIECE = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
_END_OF_TEXT = dict.fromkeys(("unk_token", "bos_token", "eos_token"), "<|endoftext|>")
_INFILLING = ["▁<PRE>", "▁<MID>", "▁<SUF>", "▁<EOT>"]
_PLAIN = _TokenizerClass()
_CLASSES = {
    "LlamaTokenizer": _TokenizerClass(_SENTENCEPIECE, makes_ends=True, cleans_up=False),
    "CodeLlamaTokenizer": _TokenizerClass({**_SENTENCEPIECE, _MORE: _INFILLING}, makes_ends=True, cleans_up=False),
    "BloomTokenizer": _TokenizerClass(
        {**_SENTENCEPIECE, "pad_token": "<pad>"}, sets_prefix_space="all", cleans_up=False
    ),
    "GPT2Tokenizer": _TokenizerClass(_END_OF_TEXT, sets_prefix_space="outermost"),
    "GPTNeoXTokenizer": _TokenizerClass(_END_OF_TEXT, sets_prefix_space="outermost"),
    # newer than 4.34
    "Qwen2Tokenizer": _TokenizerClass(
        dict.fromkeys(("unk_token", "eos_token", "pad_token"), "<|endoftext|>"), cleans_up=False
    ),
}
# The class where no config names one.
_OF_FAMILIES = {
    "llama": "LlamaTokenizer",
    "mistral": "LlamaTokenizer",
    "mixtral": "LlamaTokenizer",
    "bloom": "BloomTokenizer",
    "qwen2": "Qwen2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
}


def load_tokenizer(files: Files, model_config: Mapping[str, Any]) -> FastTokenizer:
    """Return a model's tokenizer.

    Args:
        files: The model's files.
        model_config: What its config.json holds.

    Raises:
        ModelLoadError: There is no tokenizer, or it or a file beside it cannot be read.
    """
    config = hub.read_json(files, "tokenizer_config.json") or {}
    name = _class_name(config, model_config)
    own = _CLASSES.get(name, _PLAIN)
    backend = _backend(files, is_llama=own.makes_ends)
    added, special = _tokens(files, config, own)
    try:
        _add(backend, added, special)
        if own.makes_ends:
            _make_ends(backend, config, special)
        if own.sets_prefix_space:
            _set_prefix_space(backend, own.sets_prefix_space, add=bool(config.get("add_prefix_space")))
        size = backend.get_vocab_size(with_added_tokens=False)
        backend.no_padding()  # which might ask for any length
        backend.encode("a")  # some mistakes show only in use
    except BaseException as error:
        if not _is_of_the_library(error):
            raise
        msg = f"The tokenizer of {files.name!r} cannot be used: {error}"
        raise ModelLoadError(msg) from None
    if not size:
        msg = f"The tokenizer of {files.name!r} cannot be used: its vocabulary is empty."
        raise ModelLoadError(msg)
    return FastTokenizer(
        backend,
        {role: list(map(_text, token)) if isinstance(token, list) else _text(token) for role, token in special.items()},
        chat_template=read_chat_template(files, config),
        name_or_path=files.name,
        cleans_up=bool(config.get("clean_up_tokenization_spaces", own.cleans_up)),
    )


def _is_of_the_library(error: BaseException) -> bool:
    """Return whether an error is the library's: a plain Exception, or a panic of Rust, which is none."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _class_name(config: Mapping[str, Any], model_config: Mapping[str, Any]) -> str:
    """Return the name of the tokenizer's class, without the "Fast" of its end."""
    named = (config.get("tokenizer_class"), model_config.get("tokenizer_class"))
    name = next((name for name in named if isinstance(name, str)), None)
    return (name or _OF_FAMILIES.get(str(model_config.get("model_type")), "")).removesuffix("Fast")


def _backend(files: Files, *, is_llama: bool) -> Backend:
    path = files.file("tokenizer.json")
    if path is not None:
        try:
            return Backend.from_file(str(path))
        except BaseException as error:
            if not _is_of_the_library(error):
                raise
            msg = f"tokenizer.json of {files.name!r} cannot be read: {error}"
            raise ModelLoadError(msg) from None
    if is_llama and files.file("tokenizer.model") is not None:
        return read_sentencepiece(files)
    raise hub.missing(files, "tokenizer.json")


def _tokens(
    files: Files, config: Mapping[str, Any], own: _TokenizerClass
) -> tuple[list[AddedToken], dict[str, _Token | list[_Token]]]:
    """Return the tokens to add, in their order, and the special tokens by their roles."""
    named: dict[str, Any] = {**own.special_tokens, **{role: config[role] for role in _ROLES if role in config}}
    more = _more(config.get(_MORE), files)
    listed = config.get("added_tokens_decoder")
    if listed is None:
        beside = hub.read_json(files, "special_tokens_map.json") or {}
        named |= {role: beside[role] for role in _ROLES if role in beside}
        more += [token for token in _more(beside.get(_MORE), files) if token not in more]
        added = _added_beside(files, [*map(_text, more), *(_text(each) for each in named.values() if each)])
    else:
        added = _added_in(listed, files)
    known = {token.content: token for token in added}
    special: dict[str, _Token | list[_Token]] = {}
    for role, value in named.items():
        if role != _MORE and value:
            token = _token(value, files, role)
            special[role] = known.get(token, token) if isinstance(token, str) else token
    more += [token for token in own.special_tokens.get(_MORE, ()) if token not in map(_text, more)]
    if more:
        special[_MORE] = more
    return added, {role: special[role] for role in (*_ROLES, _MORE) if role in special}


def _more(value: Any, files: Files) -> list[_Token]:
    if value is not None and not isinstance(value, list):
        raise _wrong(files, _MORE, value)
    return [_token(each, files, _MORE) for each in value or []]


def _token(value: Any, files: Files, role: str) -> _Token:
    """Return a token as the files have it: a text, or a dictionary with a text and flags."""
    text = value.get("content") if isinstance(value, dict) else value
    if not isinstance(text, str) or not text or _HALF.search(text):
        raise _wrong(files, role, value)
    if isinstance(value, str):
        return value
    return AddedToken(text, **{flag: bool(value[flag]) for flag in _FLAGS if flag in value})


def _wrong(files: Files, name: str, value: Any) -> ModelLoadError:
    return ModelLoadError(f"The tokenizer's config of {files.name!r} says {str(value)[:100]!r} for {name}.")


def _text(token: Any) -> str:
    return token if isinstance(token, str) else str(getattr(token, "content", token))


def _added_in(listed: Any, files: Files) -> list[AddedToken]:
    """Return the tokens of `added_tokens_decoder`, by their ids."""
    try:
        tokens = sorted((int(number), token) for number, token in listed.items())
    except (AttributeError, TypeError, ValueError):
        raise _wrong(files, "added_tokens_decoder", listed) from None
    found = [_token(token, files, "added_tokens_decoder") for _, token in tokens]
    return [AddedToken(token) if isinstance(token, str) else token for token in found]


def _added_beside(files: Files, special: list[str]) -> list[AddedToken]:
    """Return the tokens of added_tokens.json, by their ids."""
    listed = hub.read_json(files, "added_tokens.json") or {}
    if not all(isinstance(number, int) for number in listed.values()):
        raise _wrong(files, "the ids of added_tokens.json", listed)
    texts = sorted(filter(None, listed), key=listed.__getitem__)
    return [AddedToken(text, normalized=text not in special, special=text in special) for text in texts]


def _add(backend: Backend, added: list[AddedToken], special: Mapping[str, _Token | list[_Token]]) -> None:
    """Add tokens to the vocabulary; those that it has take the flags that they have here.

    A token that is not normalized in one of two places is found in a text as it stands: up to version 0.21 the library
    does so, and later ones replace the token.
    """
    flat = [token for value in special.values() for token in (value if isinstance(value, list) else [value])]
    before = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    known = {*before, *(token.content for token in added)}
    specials = set(map(_text, flat))
    missing = (token for token in flat if token not in (known if isinstance(token, str) else added))
    tokens: list[_Token] = [*added, *missing]

    def found_as_it_stands(token: _Token) -> _Token:
        if isinstance(token, str) or not token.normalized or getattr(before.get(token.content), "normalized", True):
            return token
        flags = {flag: getattr(token, flag) for flag in _FLAGS}
        return AddedToken(token.content, **{**flags, "normalized": False})

    def is_special(token: _Token) -> bool:
        return _text(token) in specials or bool(getattr(token, "special", False))

    for together, group in itertools.groupby(
        map(found_as_it_stands, tokens), is_special
    ):  # one by one, the library would take long
        (backend.add_special_tokens if together else backend.add_tokens)(list(group))


def _make_ends(backend: Backend, config: Mapping[str, Any], special: Mapping[str, Any]) -> None:
    """Let an encoded text begin with `bos_token` and end with `eos_token`, if the config says so."""
    begin, end = (
        [_text(special[role])] if config.get(flag, default) and role in special else []
        for role, flag, default in (("bos_token", "add_bos_token", True), ("eos_token", "add_eos_token", False))
    )
    backend.post_processor = processors.TemplateProcessing(
        single=[*begin, "$A", *end],
        pair=[*begin, "$A", *end, *(f"{token}:1" for token in begin), "$B:1", *(f"{token}:1" for token in end)],
        special_tokens=[(token, backend.token_to_id(token)) for token in (*begin, *end)],
    )


def _set_prefix_space(backend: Backend, how: str, *, add: bool) -> None:
    """Set whether a space is put in front of a text, as the classes of BLOOM ("all") and GPT-2 ("outermost") do."""
    state = json.loads(backend.to_str())
    splitter = state["pre_tokenizer"] or {}
    if how == "all" and add:
        for part in (state["pre_tokenizer"], state["decoder"]):
            _turn_on(part)
    elif how == "outermost" and splitter.get("add_prefix_space", add) != add:
        splitter["add_prefix_space"] = add
    else:
        return
    changed = Backend.from_str(json.dumps(state))
    backend.pre_tokenizer, backend.decoder = changed.pre_tokenizer, changed.decoder


def _turn_on(part: Any) -> None:
    """Set every `add_prefix_space` of a pre-tokenizer or decoder."""
    if isinstance(part, dict):
        if "add_prefix_space" in part:
            part["add_prefix_space"] = True
        for value in part.values():
            _turn_on(value)
    elif isinstance(part, list):
        for value in part:
            _turn_on(value)
