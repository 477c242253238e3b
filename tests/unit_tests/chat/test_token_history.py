"""A conversation's next prompt begins with the tokens that the servers have seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from langchain_petals.chat.templates.segments import Segment, encode
from langchain_petals.chat.token_history import TokenHistory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def trusted(text: str) -> Segment:
    return Segment(text, trusted=True)


def plain(text: str) -> Segment:
    return Segment(text, trusted=False)


PROMPT = [trusted("<s>Human: the quick brown fox\nAI:")]


@pytest.fixture(params=["merging_tokenizer", "llama_tokenizer", "unigram_tokenizer", "tiny_tokenizer"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return request.getfixturevalue(request.param)


def letters(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Return one token for each letter of a text, unlike any tokenizer."""
    return [token for letter in text for token in encode([trusted(letter)], tokenizer, continued=True)]


def test_the_next_prompt_contains_the_tokens_of_the_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    history = TokenHistory()
    prompt_ids = history.encode(PROMPT, tokenizer)
    assert prompt_ids == encode(PROMPT, tokenizer)
    said = letters(tokenizer, " the dog sleeps")
    history.remember(PROMPT, prompt_ids, " the dog sleeps", said)

    follow_up = [trusted("<s>Human: the quick brown fox\nAI: the dog sleeps</s>Human: and?\nAI:")]
    ids = history.encode(follow_up, tokenizer)
    assert ids[: len(prompt_ids) + len(said)] == [*prompt_ids, *said]
    assert tokenizer.decode(ids) == tokenizer.decode(encode(follow_up, tokenizer))


@pytest.mark.parametrize("rendered", ["the dog", " the dog", "\nthe dog"])
def test_a_stripped_answer_keeps_its_tokens(tokenizer: PreTrainedTokenizerFast, rendered: str) -> None:
    history = TokenHistory()
    history.remember(PROMPT, [1, 2], " the dog ", [3, 4])
    ids = history.encode([trusted(PROMPT[0].text + rendered + "</s>")], tokenizer)
    assert ids == [1, 2, 3, 4, *encode([trusted("</s>")], tokenizer)]


def test_an_answer_that_the_template_spells_differently_keeps_its_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    history = TokenHistory()
    history.remember(PROMPT, [1, 2], "12.50", [3, 4], respelled=" 12.5\n")
    end = encode([trusted("</s>")], tokenizer)
    for told in ("12.5", "12.50", " 12.5"):
        assert history.encode([trusted(f"{PROMPT[0].text}{told}</s>")], tokenizer)[:4] == [1, 2, 3, 4]
    assert history.encode([trusted(f"{PROMPT[0].text}12.50</s>")], tokenizer) == [1, 2, 3, 4, *end]
    other = [trusted(f"{PROMPT[0].text}12.6</s>")]
    assert history.encode(other, tokenizer) == encode(other, tokenizer)


def test_other_conversations_are_encoded_anew(merging_tokenizer: PreTrainedTokenizerFast) -> None:
    history = TokenHistory()
    history.remember(PROMPT, [1, 2], " the dog", [3, 4])
    history.remember([trusted("Human: "), plain("</s>"), trusted("AI:")], [1, 2], " fox", [3])
    for text in (
        PROMPT[0].text,  # nothing after the prompt
        PROMPT[0].text + " the cat</s>",  # another answer
        PROMPT[0].text.replace("quick", "slow") + " the dog</s>",  # another question
        "Human: </s>AI: fox</s>",  # the same text, but here the mark is one
    ):
        assert history.encode([trusted(text)], merging_tokenizer) == encode([trusted(text)], merging_tokenizer)


def test_the_longest_match_counts_and_the_oldest_is_forgotten(
    merging_tokenizer: PreTrainedTokenizerFast,
) -> None:
    history = TokenHistory(most=2)
    history.remember([trusted("a")], [1], "b", [2])
    history.remember([trusted("abc")], [1, 2, 3], "d", [4])
    end = encode([trusted("</s>")], merging_tokenizer)
    assert history.encode([trusted("abcd</s>")], merging_tokenizer) == [1, 2, 3, 4, *end]
    history.remember([trusted("x")], [9], "y", [8])
    text = [trusted("ab</s>")]
    assert history.encode(text, merging_tokenizer) == encode(text, merging_tokenizer)


def test_an_answer_that_spells_a_special_token_keeps_its_tokens(
    merging_tokenizer: PreTrainedTokenizerFast,
) -> None:
    history = TokenHistory()
    history.remember([trusted("a")], [1], "x</s>y", [2, 3])
    prompt = [trusted("ax"), plain("</s>"), trusted("y</s>")]
    assert history.encode(prompt, merging_tokenizer) == [1, 2, 3, *encode([trusted("</s>")], merging_tokenizer)]
