"""A tokenizer from tokenizer.model, which is all that some repositories of Llama-like models have.

The result is that of transformers 4.34, whichever version is installed: later ones convert it otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenizers import AddedToken, decoders, models, normalizers
from tokenizers import Tokenizer as Backend

from langchain_petals.errors import ModelLoadError

if TYPE_CHECKING:
    from langchain_petals.hub import Files

_FILE = "tokenizer.model"
_MARK = "▁"  # SentencePiece's space
_FIRST = ("<unk>", "<s>", "</s>")  # the ids 0, 1 and 2 of Llama-like models
_LONGEST = 100  # characters of a piece that may be a merge; SentencePiece's own default is 16


def read_sentencepiece(files: Files) -> Backend:
    """Return the tokenizer of a model that has tokenizer.model and no tokenizer.json.

    Args:
        files: The model's files; they have tokenizer.model.

    Raises:
        ModelLoadError: The package sentencepiece is not installed, or the file is no BPE model.
    """
    try:
        from sentencepiece import SentencePieceProcessor  # noqa: PLC0415 - an optional package
    except ImportError:
        msg = (
            f"{files.name!r} has no tokenizer.json, only tokenizer.model, and the package that reads it is not "
            "installed. Run `pip install sentencepiece`."
        )
        raise ModelLoadError(msg) from None
    path, model = files.file(_FILE), SentencePieceProcessor()
    try:
        model.LoadFromFile(str(path))
        pieces = [(model.IdToPiece(number), model.GetScore(number)) for number in range(model.GetPieceSize())]
        return _bpe(pieces)
    except Exception as error:  # noqa: BLE001 - both libraries raise plain exceptions
        msg = f"{_FILE} of {files.name!r} cannot be read: {error}"
        raise ModelLoadError(msg) from None


def _bpe(pieces: list[tuple[str, float]]) -> Backend:
    """Return a tokenizer of pieces with their scores, in the order of their ids."""
    if any(score != int(score) for _, score in pieces):  # a unigram model has logarithms of probabilities
        msg = "it is not a BPE model"
        raise ValueError(msg)
    scores = {**dict.fromkeys(_FIRST, 0.0), **dict(pieces[len(_FIRST) :])}
    numbers = {piece: number for number, piece in enumerate(scores)}
    known = {piece: number for number, (piece, _) in enumerate(pieces)}
    merges: list[tuple[str, str, float]] = []
    for piece, score in scores.items():
        splits = ((piece[:cut], piece[cut:]) for cut in range(1, min(len(piece), _LONGEST)))
        found = [(left, right) for left, right in splits if left in known and right in known]
        found.sort(key=lambda pair: (known[pair[0]], known[pair[1]]))
        merges += [(left, right, score) for left, right in found]
    merges.sort(key=lambda merge: merge[2], reverse=True)
    backend = Backend(
        models.BPE(
            numbers,
            [(left, right) for left, right, _ in merges],
            unk_token=_FIRST[0],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(_MARK), normalizers.Replace(" ", _MARK)])
    backend.decoder = decoders.Sequence(
        [decoders.Replace(_MARK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in _FIRST])
    return backend
