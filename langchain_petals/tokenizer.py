"""The interface of a tokenizer, as the package uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Tokenizer(Protocol):
    """A tokenizer: the one that this package loads (`FastTokenizer`), or one of transformers, fast or slow.

    A `chat_template` attribute is optional. Constraints (`json_schema`, tools, ...) need more: a `backend_tokenizer` of
    the `tokenizers` library, or one of transformers' slow classes, which can be converted to one.
    """

    @property
    def eos_token_id(self) -> int | None:
        """Id of the token that ends a text."""

    @property
    def unk_token_id(self) -> int | None:
        """Id of the token for unknown text."""

    @property
    def all_special_tokens(self) -> Sequence[str]:
        """Texts of the special tokens."""

    @property
    def all_special_ids(self) -> Sequence[int]:
        """Ids of the special tokens, in the same order."""

    @property
    def special_tokens_map(self) -> Mapping[str, str | Sequence[str]]:
        """Special tokens by their roles: `bos_token`, `eos_token`, ..."""

    def __len__(self) -> int:
        """Return the size of the vocabulary, with added tokens."""

    def __call__(self, text: str, *, add_special_tokens: bool = True, verbose: bool = True) -> Mapping[str, list[int]]:
        """Return the token ids of a text as `input_ids`."""

    def decode(
        self, token_ids: Sequence[int], *, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool = True
    ) -> str:
        """Return the text of token ids."""

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str | None]:
        """Return the names of tokens as the vocabulary has them."""

    def get_added_vocab(self) -> Mapping[str, int]:
        """Return the ids of tokens that were added to the vocabulary, by their texts."""
