"""Streamed text equals text decoded at once, for each kind of tokenizer and each cut of the stream."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_petals.engine.decoding.detokenizer import Detokenizer, StopMatcher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerFast

UNFINISHED = "\N{REPLACEMENT CHARACTER}"

# Text as it comes: words, runs of spaces, scripts with two, three and four bytes a character, joined emoji, combining
# characters, SentencePiece's own mark, the character that stands for an unfinished one.
AWKWARD = [
    *["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog"],
    *"aé花한𠮷🌸\u0301\u200d\ufe0f▁\ufffd\n\t\r\x00",
    *(
        " ",
        "  ",
        "    ",
        "👩‍🚀",
        "👨‍👩‍👧",
        "🏳️‍🌈",
        "👍🏽",
        "🇫🇷",
        "é",
        "ậ",
        "שלום",
        "AI:",
        "<s>",
        "</s>",
        "<0x0A>",
        "Ġ",
    ),
]
ANY_CHARACTER = st.characters(exclude_categories=["Cs"])
TEXT = st.lists(st.sampled_from(AWKWARD) | ANY_CHARACTER, max_size=24).map("".join)


def decoded(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def after(tokenizer: PreTrainedTokenizerFast, prompt: Sequence[int], answer: Sequence[int]) -> str:
    """Return the text of an answer, decoded at once."""
    before, whole = decoded(tokenizer, prompt), decoded(tokenizer, [*prompt, *answer])
    assert whole.startswith(before)
    return whole[len(before) :]


def streamed(tokenizer: PreTrainedTokenizerFast, prompt: Sequence[int], answer: Sequence[int]) -> str:
    """Return the joined pieces of an answer, after checking that none ends inside a character."""
    detokenizer = Detokenizer(tokenizer, prompt)
    pieces = [detokenizer.add(token) for token in answer]
    assert not [piece for piece in pieces if piece.endswith(UNFINISHED)]
    return "".join(pieces) + detokenizer.flush()


def plain_ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@given(prompt=TEXT, answer=TEXT)
def test_streamed_bytes_of_valid_text_equal_one_decode(
    tiny_tokenizer: PreTrainedTokenizerFast, prompt: str, answer: str
) -> None:
    before, ids = list(prompt.encode()), list(answer.encode())
    assert streamed(tiny_tokenizer, before, ids) == after(tiny_tokenizer, before, ids) == answer


@given(prompt=TEXT, answer=st.binary(max_size=40))
def test_streamed_bytes_equal_one_decode(tiny_tokenizer: PreTrainedTokenizerFast, prompt: str, answer: bytes) -> None:
    before = list(prompt.encode())
    assert streamed(tiny_tokenizer, before, list(answer)) == after(tiny_tokenizer, before, list(answer))


class Measured:
    """A tokenizer that records the most tokens that it had to decode at once."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self.longest = 0

    def decode(self, ids: Sequence[int], **options: bool) -> str:
        self.longest = max(self.longest, len(ids))
        return str(self._tokenizer.decode(ids, **options))


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(list(b"words "), id="words"),
        pytest.param([257], id="special tokens"),
        pytest.param([257, *b"a", 258], id="special tokens among others"),
        pytest.param([0xFF], id="bytes that are in no character"),
        pytest.param([0xE2], id="beginnings of characters"),
        pytest.param([0xE2, 257], id="beginnings of characters, and special tokens"),
        pytest.param(list("\ufffd".encode()), id="the character for no character"),
    ],
)
@pytest.mark.parametrize("prompt", [b"", b"Who?", [258] * 50], ids=["no prompt", "words", "special tokens"])
def test_step_of_a_long_answer_decodes_no_more_than_one_of_a_short_answer(
    tiny_tokenizer: PreTrainedTokenizerFast, prompt: Sequence[int], answer: list[int]
) -> None:
    measured, said = Measured(tiny_tokenizer), (answer * 2000)[:2000]
    detokenizer = Detokenizer(measured, list(prompt))
    text = "".join(map(detokenizer.add, said)) + detokenizer.flush()
    assert text == after(tiny_tokenizer, list(prompt), said)
    assert measured.longest <= 140


@pytest.mark.parametrize("name", ["llama_tokenizer", "unigram_tokenizer", "merging_tokenizer"])
@pytest.mark.parametrize("byte", ["<0xFF>", "<0xE2>"])
def test_step_of_a_long_answer_of_fallback_bytes_decodes_few_tokens(
    name: str, request: pytest.FixtureRequest, byte: str
) -> None:
    tokenizer = request.getfixturevalue(name)
    token = tokenizer.convert_tokens_to_ids(byte) if name != "merging_tokenizer" else tokenizer.vocab["ÿ"]
    measured = Measured(tokenizer)
    detokenizer = Detokenizer(measured, plain_ids(tokenizer, "the"))
    text = "".join(detokenizer.add(token) for _ in range(2000)) + detokenizer.flush()
    assert text == UNFINISHED * 2000
    assert measured.longest <= 140


def test_character_after_a_long_run_of_invalid_bytes_is_whole(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    for broken in range(60, 75):
        detokenizer = Detokenizer(tiny_tokenizer, [])
        text = "".join(map(detokenizer.add, [*[0xFF] * broken, *"🌸é".encode()])) + detokenizer.flush()
        assert text == UNFINISHED * broken + "🌸é"


@given(answer=st.lists(st.sampled_from([*b"a \n", *"é花🌸".encode(), 256, 257, 258]), max_size=40))
def test_special_tokens_are_skipped_even_inside_a_character(
    tiny_tokenizer: PreTrainedTokenizerFast, answer: list[int]
) -> None:
    text = streamed(tiny_tokenizer, [], answer)
    assert text == bytes(token for token in answer if token < 256).decode(errors="replace")


@given(prompt=TEXT, answer=TEXT)
def test_streamed_byte_level_tokens_of_valid_text_equal_one_decode(
    merging_tokenizer: PreTrainedTokenizerFast, prompt: str, answer: str
) -> None:
    before, ids = plain_ids(merging_tokenizer, prompt), plain_ids(merging_tokenizer, answer)
    assert streamed(merging_tokenizer, before, ids) == after(merging_tokenizer, before, ids)


@given(prompt=TEXT, answer=st.lists(st.integers(0, 459), max_size=30))
def test_streamed_byte_level_tokens_equal_one_decode(
    merging_tokenizer: PreTrainedTokenizerFast, prompt: str, answer: list[int]
) -> None:
    """A badly trained model writes parts of characters in any order, with special tokens in between."""
    before = plain_ids(merging_tokenizer, prompt)
    assert streamed(merging_tokenizer, before, answer) == after(merging_tokenizer, before, answer)


@pytest.mark.parametrize("name", ["llama_tokenizer", "unigram_tokenizer"])
@given(prompt=TEXT, answer=TEXT)
def test_streamed_sentencepiece_tokens_of_valid_text_equal_one_decode(
    name: str, request: pytest.FixtureRequest, prompt: str, answer: str
) -> None:
    tokenizer = request.getfixturevalue(name)
    before, ids = plain_ids(tokenizer, prompt), plain_ids(tokenizer, answer)
    assert streamed(tokenizer, before, ids) == after(tokenizer, before, ids)


@pytest.mark.parametrize("name", ["llama_tokenizer", "unigram_tokenizer"])
@given(
    prompt=TEXT,
    answer=st.lists(
        st.integers(0, 10_000) | ANY_CHARACTER.filter(lambda each: each != "▁").map(lambda each: each.encode()),
        max_size=20,
    ),
)
def test_streamed_sentencepiece_tokens_equal_one_decode(
    name: str, request: pytest.FixtureRequest, prompt: str, answer: list[int | bytes]
) -> None:
    """Tokens in any order, but those of bytes in runs that make a character, as a trained model writes them.

    No run makes the mark of a word, for which each vocabulary has a token.
    """
    tokenizer: PreTrainedTokenizerFast = request.getfixturevalue(name)
    vocabulary = tokenizer.get_vocab()
    other = sorted(i for token, i in vocabulary.items() if not token.startswith("<0x"))
    ids: list[int] = []
    for each in answer:
        ids += [other[each % len(other)]] if isinstance(each, int) else [vocabulary[f"<0x{b:02X}>"] for b in each]
    before = plain_ids(tokenizer, prompt)
    assert streamed(tokenizer, before, ids) == after(tokenizer, before, ids)


@pytest.mark.parametrize("prompt", ["", "a"])
def test_bytes_of_a_word_mark_leave_no_broken_character(
    unigram_tokenizer: PreTrainedTokenizerFast, prompt: str
) -> None:
    vocabulary = unigram_tokenizer.get_vocab()
    ids = [vocabulary[f"<0x{byte:02X}>"] for byte in "0▁1".encode()]
    text = streamed(unigram_tokenizer, plain_ids(unigram_tokenizer, prompt), ids)
    assert text.replace(" ", "") == "01"


@pytest.mark.parametrize("prompt", ["", "AI:", "AI: ", "\n", "<s>"])
def test_first_word_has_the_space_that_it_would_have_after_the_prompt(
    llama_tokenizer: PreTrainedTokenizerFast, prompt: str
) -> None:
    before = plain_ids(llama_tokenizer, prompt)
    word = llama_tokenizer.convert_tokens_to_ids("▁the")
    assert streamed(llama_tokenizer, before, [word]) == ("the" if prompt in ("", "<s>") else " the")


def test_text_is_released_with_the_last_byte_of_a_character(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    detokenizer = Detokenizer(tiny_tokenizer)
    pieces = [detokenizer.add(token) for token in "a é花🌸!".encode()]
    assert pieces == ["a", " ", "", "é", "", "", "花", "", "", "", "🌸", "!"]


@pytest.mark.parametrize("name", ["tiny_tokenizer", "merging_tokenizer", "llama_tokenizer", "unigram_tokenizer"])
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_answer_cut_inside_a_character_keeps_what_came_before(
    name: str, cut: int, request: pytest.FixtureRequest
) -> None:
    """A limit may cut a character. It is shown as no more characters than it has bytes."""
    tokenizer: PreTrainedTokenizerFast = request.getfixturevalue(name)
    before, ids = plain_ids(tokenizer, "花"), plain_ids(tokenizer, "花𠀋")
    text = streamed(tokenizer, before, ids[: len(ids) - cut])
    assert text.strip(" ") in {"花" + UNFINISHED * n for n in range(4)}


def test_work_per_token_does_not_grow_with_the_answer(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    """Only tokens after the last certain character are decoded again."""

    class Counting:
        longest = 0

        def decode(self, ids: Sequence[int], **options: bool) -> str:
            self.longest = max(self.longest, len(ids))
            return tiny_tokenizer.decode(ids, **options)

    counting = Counting()
    detokenizer = Detokenizer(counting)
    for token in "🌸".encode() * 30:
        detokenizer.add(token)
    assert counting.longest <= 8


# ---- stop sequences


def reference(text: str, stops: Sequence[str]) -> tuple[str, str | None]:
    """Read a text character by character up to the first that completes a stop sequence; the longest, if several."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            stop = max(complete, key=len)
            return text[: end - len(stop)], stop
    return text, None


def matched(pieces: Sequence[str], stops: Sequence[str]) -> tuple[str, str | None]:
    matcher = StopMatcher(stops)
    text = ""
    for piece in pieces:
        released, stop = matcher.add(piece)
        text += released
        if stop is not None:
            return text, stop
    return text + matcher.flush(), None


@st.composite
def cut_texts(draw: st.DrawFn) -> list[str]:
    """Return a text over a small alphabet, cut at random places; some pieces are empty."""
    text = draw(st.text("ab\n花", max_size=24))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[start:end] for start, end in pairwise([0, *cuts, len(text)])]


STOPS = st.lists(st.text("ab\n花", min_size=1, max_size=5), max_size=5)


@given(pieces=cut_texts(), stops=STOPS)
def test_answer_does_not_depend_on_how_the_text_is_cut(pieces: list[str], stops: list[str]) -> None:
    assert matched(pieces, stops) == reference("".join(pieces), stops)


@given(pieces=cut_texts(), stops=STOPS)
def test_only_the_beginning_of_a_stop_sequence_is_held_back(pieces: list[str], stops: list[str]) -> None:
    matcher, seen, released = StopMatcher(stops), "", ""
    for piece in pieces:
        text, stop = matcher.add(piece)
        if stop is not None:
            return
        seen, released = seen + piece, released + text
        starts = {stop[:n] for stop in stops for n in range(len(stop))} | {""}
        assert len(seen) - len(released) == max(len(start) for start in starts if seen.endswith(start))


@pytest.mark.parametrize(
    ("pieces", "stops", "text", "stop"),
    [
        (["ab", "cd"], [], "abcd", None),
        (["ab", "cd"], ["bc"], "a", "bc"),
        (["a", "b", "c"], ["abc"], "", "abc"),
        (["aab"], ["ab"], "a", "ab"),
        (["xaxay"], ["xay"], "xa", "xay"),
        (["abcde"], ["cd", "bcd"], "a", "bcd"),
        (["abcde"], ["bcde", "cd"], "ab", "cd"),
        (["ab", ""], ["bc"], "ab", None),
        (["one\n", "\nHuman", ": x"], ["\nHuman:"], "one\n", "\nHuman:"),
        (["ab"], ["ab", "ab"], "", "ab"),
    ],
)
def test_first_complete_stop_sequence_ends_the_text(
    pieces: list[str], stops: list[str], text: str, stop: str | None
) -> None:
    assert matched(pieces, stops) == (text, stop)
