"""A model's tokenizer, from tokenizer.json by the `tokenizers` library, and what the files beside it say of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from langchain_petals.errors import ModelLoadError
from langchain_petals.hub import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from langchain_petals.hub import Files

_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_SPACES = re.compile(r" (?=[.?!,])| (?='(?:m|s|ve|re)\b)| (?=n't)")


class FastTokenizer:
    """A tokenizer with the interface of transformers' fast ones, as far as this package asks for it.

    Args:
        backend: The tokenizer itself; truncation and padding are turned off.
        config: What tokenizer_config.json holds.
        special_tokens: What special_tokens_map.json holds; it counts where the config does not say.
        chat_template: The model's own chat template; None if it has none.

    Attributes:
        name_or_path: Where it was loaded from.
    """

    def __init__(
        self,
        backend: Backend,
        config: Mapping[str, Any] | None = None,
        special_tokens: Mapping[str, Any] | None = None,
        *,
        chat_template: Any = None,
        name_or_path: str = "",
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        self.backend_tokenizer, self.name_or_path, self.chat_template = backend, name_or_path, chat_template
        said = {**(special_tokens or {}), **{key: value for key, value in (config or {}).items() if value is not None}}
        self.special_tokens_map: dict[str, str | list[str]] = {}
        for role in _ROLES:
            text = _text(said.get(role))
            if text is not None:
                self.special_tokens_map[role] = text
        more = said.get("additional_special_tokens")
        texts = [text for text in map(_text, more if isinstance(more, list) else []) if text is not None]
        if texts:
            self.special_tokens_map["additional_special_tokens"] = texts
        self._add_missing((config or {}).get("added_tokens_decoder"))
        self._special_ids = {
            number for number, token in backend.get_added_tokens_decoder().items() if token.special
        } | set(self.all_special_ids)

    def _add_missing(self, decoder: Any) -> None:
        """Add the tokens that the files beside tokenizer.json name, and it does not know."""
        known = self.backend_tokenizer.get_vocab(with_added_tokens=True)
        listed = [token for token in decoder.values() if isinstance(token, dict)] if isinstance(decoder, dict) else []
        tokens = [AddedToken(**_added(each)) for each in listed if _text(each) is not None and _text(each) not in known]
        self.backend_tokenizer.add_tokens(tokens)
        special = [text for text in self.all_special_tokens if text not in known]
        self.backend_tokenizer.add_special_tokens(special)

    @property
    def all_special_tokens(self) -> list[str]:
        """Texts of the special tokens."""
        texts: list[str] = []
        for value in self.special_tokens_map.values():
            texts += [value] if isinstance(value, str) else value
        return list(dict.fromkeys(texts))

    @property
    def all_special_ids(self) -> list[int]:
        """Ids of the special tokens, in the same order."""
        return [
            number for number in map(self.backend_tokenizer.token_to_id, self.all_special_tokens) if number is not None
        ]

    def _id_of(self, role: str) -> int | None:
        text = self.special_tokens_map.get(role)
        number: int | None = self.backend_tokenizer.token_to_id(text) if isinstance(text, str) else None
        return number

    @property
    def bos_token_id(self) -> int | None:
        """Id of the token that begins a text."""
        return self._id_of("bos_token")

    @property
    def eos_token_id(self) -> int | None:
        """Id of the token that ends a text."""
        return self._id_of("eos_token")

    @property
    def unk_token_id(self) -> int | None:
        """Id of the token for unknown text."""
        return self._id_of("unk_token")

    def __len__(self) -> int:
        """Return the size of the vocabulary, with added tokens."""
        size: int = self.backend_tokenizer.get_vocab_size(with_added_tokens=True)
        return size

    def __call__(self, text: str, *, add_special_tokens: bool = True, verbose: bool = True) -> dict[str, list[int]]:  # noqa: ARG002 - transformers warns of long texts
        """Return the token ids of a text as `input_ids`."""
        return {"input_ids": self.backend_tokenizer.encode(text, add_special_tokens=add_special_tokens).ids}

    def decode(
        self,
        token_ids: Sequence[int],
        *,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool = False,
    ) -> str:
        """Return the text of token ids."""
        text: str = self.backend_tokenizer.decode(list(token_ids), skip_special_tokens=skip_special_tokens)
        return _SPACES.sub("", text) if clean_up_tokenization_spaces else text

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str | None]:
        """Return the names of tokens as the vocabulary has them."""
        return [self.backend_tokenizer.id_to_token(number) for number in ids]

    def convert_tokens_to_ids(self, token: str) -> int | None:
        """Return the id of a token; that of the unknown one, if there is such a token, for a text that is none."""
        number: int | None = self.backend_tokenizer.token_to_id(token)
        return self.unk_token_id if number is None else number

    def get_added_vocab(self) -> dict[str, int]:
        """Return the ids of tokens that were added to the vocabulary, by their texts."""
        return {token.content: number for number, token in self.backend_tokenizer.get_added_tokens_decoder().items()}


def load_tokenizer(files: Files) -> FastTokenizer:
    """Return a model's tokenizer.

    Args:
        files: The model's files.

    Raises:
        ModelLoadError: There is no tokenizer.json, or it or a file beside it cannot be read.
    """
    path = files.file("tokenizer.json")
    if path is None:
        msg = (
            f"{files.name!r} has no tokenizer.json. Convert its tokenizer with transformers: "
            "AutoTokenizer.from_pretrained(...).save_pretrained(folder), and give the folder."
        )
        raise ModelLoadError(msg)
    try:
        backend = Backend.from_file(str(path))
    except Exception as error:  # noqa: BLE001 - the library raises plain Exceptions
        msg = f"tokenizer.json of {files.name!r} cannot be read: {error}"
        raise ModelLoadError(msg) from None
    config = read_json(files, "tokenizer_config.json") or {}
    return FastTokenizer(
        backend,
        config,
        read_json(files, "special_tokens_map.json"),
        chat_template=_chat_template(files, config),
        name_or_path=files.name,
    )


def _chat_template(files: Files, config: Mapping[str, Any]) -> Any:
    """Return the model's chat template: newer repositories keep it in a file of its own."""
    path = files.file("chat_template.jinja")
    if path is not None:
        return path.read_text(encoding="utf-8")
    own = read_json(files, "chat_template.json") or {}
    return own.get("chat_template", config.get("chat_template"))


def _text(token: Any) -> str | None:
    """Return the text of a token as the files have it: a text, or a dictionary with one."""
    value = token.get("content") if isinstance(token, dict) else token
    return value if isinstance(value, str) and value else None


def _added(token: Mapping[str, Any]) -> dict[str, Any]:
    kept = {
        name: bool(token[name])
        for name in ("special", "lstrip", "rstrip", "single_word", "normalized")
        if name in token
    }
    return {"content": token["content"], **kept}
