"""A tokenizer of the `tokenizers` library with the interface that this package uses of transformers' fast ones."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from langchain_petals.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tokenizers import Tokenizer as Backend

_HALF = re.compile("[\ud800-\udfff]")  # half of a surrogate pair: Python's text may hold one, no encoding does
# What transformers 4.34 replaces to "clean up" a decoded text, in its order.
_CLEANED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


class FastTokenizer:
    """A tokenizer; a `langchain_petals.tokenizer.Tokenizer`.

    Args:
        backend: The tokenizer itself; its truncation and padding are turned off.
        special_tokens: Special tokens by their roles: `bos_token`, ..., and a list of `additional_special_tokens`.
        chat_template: The model's own chat template, or several by their names; None if it has none.
        name_or_path: Where it was loaded from.
        cleans_up: Whether `decode` removes spaces before punctuation if it is not told.

    Attributes:
        backend_tokenizer: The tokenizer itself.
        special_tokens_map: Special tokens by their roles.
        chat_template: The model's own chat template, or several by their names; None if it has none.
        name_or_path: Where it was loaded from.

    Example:
        >>> from tokenizers import Tokenizer, models
        >>> from langchain_petals.engine.loading.fast_tokenizer import FastTokenizer
        >>> tokenizer = FastTokenizer(Tokenizer(models.WordLevel({"Hi": 0, "</s>": 1})), {"eos_token": "</s>"})
        >>> tokenizer("Hi")["input_ids"], tokenizer.eos_token_id
        ([0], 1)
    """

    def __init__(
        self,
        backend: Backend,
        special_tokens: Mapping[str, str | list[str]],
        *,
        chat_template: str | Mapping[str, str] | None = None,
        name_or_path: str = "",
        cleans_up: bool = False,
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        self.backend_tokenizer, self.special_tokens_map = backend, dict(special_tokens)
        self.chat_template, self.name_or_path, self._cleans_up = chat_template, name_or_path, cleans_up
        added: dict[int, Any] = backend.get_added_tokens_decoder()
        # From version 0.22 on, the library gives a token that it normalizes the name of its normal form.
        self._renamed = {n: token.content for n, token in added.items() if backend.id_to_token(n) != token.content}
        self._special = frozenset(n for n, token in added.items() if token.special)

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
        found = map(self.convert_tokens_to_ids, self.all_special_tokens)
        return [number for number in found if number is not None]

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
        """Return the token ids of a text as `input_ids`.

        Raises:
            InvalidRequestError: It holds half of a surrogate pair, as text does that was read from bytes of another
                encoding.
        """
        half = _HALF.search(text)  # older tokenizers replace it without a word, newer ones raise TypeError
        if half is None:
            return {"input_ids": self.backend_tokenizer.encode(text, add_special_tokens=add_special_tokens).ids}
        msg = (
            f"the text holds U+{ord(half[0]):04X}, half of a surrogate pair, which is no character; it probably comes "
            "from bytes that are no UTF-8. Decode these with their encoding, or with errors='replace'."
        )
        raise InvalidRequestError(msg)

    def decode(
        self,
        token_ids: Sequence[int],
        *,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> str:
        """Return the text of token ids.

        Args:
            token_ids: The ids.
            skip_special_tokens: Whether to leave out special tokens.
            clean_up_tokenization_spaces: Whether to remove spaces before punctuation; None for the tokenizer's own way.
        """
        text: str
        if self._renamed.keys().isdisjoint(token_ids):
            text = self.backend_tokenizer.decode(list(token_ids), skip_special_tokens=skip_special_tokens)
        else:
            kept = (n for n in token_ids if not skip_special_tokens or n not in self._special)
            names = [name for name in self.convert_ids_to_tokens(list(kept)) if name is not None]
            decoder = self.backend_tokenizer.decoder
            text = " ".join(names) if decoder is None else decoder.decode(names)
        if self._cleans_up if clean_up_tokenization_spaces is None else clean_up_tokenization_spaces:
            for words in _CLEANED:
                text = text.replace(words, words.strip())
        return text

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str | None]:
        """Return the names of tokens as the vocabulary has them."""
        name_of = self.backend_tokenizer.id_to_token
        return [self._renamed.get(number) or name_of(number) for number in ids]

    def convert_tokens_to_ids(self, token: str) -> int | None:
        """Return the id of a token; for a text that is no token, the id of the unknown token, if there is one."""
        number: int | None = self.backend_tokenizer.token_to_id(token)
        return self.unk_token_id if number is None else number

    def get_added_vocab(self) -> dict[str, int]:
        """Return the ids of tokens that were added to the vocabulary, by their texts."""
        decoder: dict[int, Any] = self.backend_tokenizer.get_added_tokens_decoder()
        return {token.content: number for number, token in sorted(decoder.items())}
