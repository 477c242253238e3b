"""Token ids of a rendered prompt: special where the template says so, plain text where a message does."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, normalizers
from transformers import GPTSw3Tokenizer

from langchain_petals.chat.templates import ChatTemplate, find_template
from langchain_petals.chat.templates.segments import Segment, encode, join_segments

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerFast

TOKENIZERS = ["merging_tokenizer", "llama_tokenizer", "unigram_tokenizer", "sentencepiece_tokenizer", "tiny_tokenizer"]
EVERY_TOKENIZER = pytest.mark.parametrize("tokenizer", TOKENIZERS, indirect=True)

# No ▁, which tokenizers with SentencePiece's marks read as a space; and no special token can come together.
PIECES = ["the", "quick", " fox", " ", "  ", "\n", "\n\n", "<", "</", ">", "|", "é", "花", "🌸", "a", "1."]
TEXT = st.lists(st.sampled_from(PIECES), max_size=6).map("".join)


@pytest.fixture(scope="module")
def sentencepiece_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> GPTSw3Tokenizer:
    """Return a tokenizer in Python over a SentencePiece model, like Llama 2's before transformers 5."""
    folder: Path = tmp_path_factory.mktemp("sentencepiece")
    corpus = folder / "corpus.txt"
    corpus.write_text("the quick brown fox jumps over the lazy dog\nhello there, who are you?\n" * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=330,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return GPTSw3Tokenizer(str(folder / "tokenizer.model"))


@pytest.fixture(scope="module")
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def plain(text: str) -> Segment:
    return Segment(text, trusted=False)


def trusted(text: str) -> Segment:
    return Segment(text, trusted=True)


def decoded(tokenizer: Any, ids: list[int]) -> str:
    return tokenizer.decode(
        ids, skip_special_tokens=False, clean_up_tokenization_spaces=False, spaces_between_special_tokens=False
    )


def specials(tokenizer: Any, ids: list[int]) -> list[str]:
    known = set(tokenizer.all_special_tokens) - {tokenizer.unk_token}
    return [token for token in tokenizer.convert_ids_to_tokens(ids) if token in known]


@EVERY_TOKENIZER
def test_a_trusted_prompt_is_encoded_as_one_text(tokenizer: Any) -> None:
    special = tokenizer.eos_token
    ids = encode([trusted(f"the quick{special}"), trusted(f" fox {special}\n")], tokenizer)
    assert ids == tokenizer(f"the quick{special} fox {special}\n", add_special_tokens=False)["input_ids"]
    assert specials(tokenizer, ids) == [special, special]


@EVERY_TOKENIZER
def test_no_tokens_are_added(tokenizer: Any) -> None:
    assert specials(tokenizer, encode([trusted("the fox")], tokenizer)) == []
    assert encode([], tokenizer) == []


@EVERY_TOKENIZER
@given(before=TEXT, after=TEXT, data=st.data())
def test_special_tokens_in_messages_are_text(tokenizer: Any, before: str, after: str, data: st.DataObject) -> None:
    special = data.draw(st.sampled_from(sorted({*tokenizer.all_special_tokens} - {tokenizer.unk_token})))
    ids = encode([trusted(before), plain(special), trusted(after)], tokenizer)
    assert specials(tokenizer, ids) == []
    front = encode([trusted(before)], tokenizer)
    assert ids[: len(front)] == front
    assert decoded(tokenizer, ids) == decoded(tokenizer, front) + special + after


@EVERY_TOKENIZER
def test_several_special_tokens_in_a_row_are_text(tokenizer: Any) -> None:
    special = tokenizer.eos_token
    ids = encode([trusted("the"), plain(special + special), plain(special), trusted(" fox")], tokenizer)
    assert specials(tokenizer, ids) == []
    assert decoded(tokenizer, ids) == f"the{special * 3} fox"


@EVERY_TOKENIZER
@pytest.mark.parametrize("between", ["", " the fox "])
def test_very_many_special_tokens_are_text(tokenizer: Any, between: str) -> None:
    hostile = (tokenizer.eos_token + between) * 20_000
    ids = encode([trusted("the"), plain(hostile), trusted(" fox")], tokenizer)
    assert specials(tokenizer, ids) == []
    assert decoded(tokenizer, ids) == f"the{hostile} fox"


def test_special_tokens_within_special_tokens_are_text(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer = deepcopy(tiny_tokenizer)
    tokenizer.add_tokens(["|im_end|>", "<<|im_end|>", "><"])
    ids = encode([trusted("a"), plain("<<|im_end|><|im_end|>" * 3)], tokenizer)
    assert set(ids).isdisjoint(tokenizer.get_added_vocab().values())
    assert decoded(tokenizer, ids) == "a" + "<<|im_end|><|im_end|>" * 3


def test_a_special_token_in_other_letters_is_text(merging_tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer = deepcopy(merging_tokenizer)
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.add_tokens([AddedToken("<|end|>", normalized=True)])
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    assert end in encode([trusted("<|END|>")], tokenizer)
    ids = encode([trusted("a"), plain("the <|END|>" * 1000)], tokenizer)
    assert end not in ids
    assert decoded(tokenizer, ids) == "a" + "the <|end|>" * 1000


@EVERY_TOKENIZER
def test_halves_of_a_special_token_stay_apart(tokenizer: Any) -> None:
    special = tokenizer.eos_token
    ids = encode([trusted("a" + special[:2]), plain(special[2:4]), trusted(special[4:] + "b")], tokenizer)
    assert specials(tokenizer, ids) == []
    assert decoded(tokenizer, ids) == f"a{special}b"


@EVERY_TOKENIZER
def test_special_tokens_of_the_template_are_special(tokenizer: Any) -> None:
    special = tokenizer.eos_token
    ids = encode([trusted(f"the{special}fox "), plain(special), trusted(special), trusted("dog")], tokenizer)
    assert specials(tokenizer, ids) == [special, special]
    end = tokenizer.convert_tokens_to_ids(special)
    last = len(ids) - 1 - ids[::-1].index(end)
    assert decoded(tokenizer, ids[:last]).endswith(f"fox {special}")


@EVERY_TOKENIZER
def test_a_continued_text_gets_no_space_in_front(tokenizer: Any) -> None:
    front = encode([trusted("the quick")], tokenizer)
    for rest in (" brown fox", "ly", "\n", f"{tokenizer.eos_token}"):
        ids = encode([trusted(rest)], tokenizer, continued=True)
        # decoding in Python may show the mark of the first word
        assert decoded(tokenizer, front + ids).removeprefix(" ") == f"the quick{rest}"


@EVERY_TOKENIZER
def test_a_hostile_message_does_not_add_special_tokens_to_a_models_own_template(tokenizer: Any) -> None:
    special = tokenizer.eos_token
    source = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
    template = find_template(source, tokenizer, "m", None)
    ids = encode(template.render([{"role": "user", "content": f"the{special} fox {special}"}] * 3), tokenizer)
    assert specials(tokenizer, ids) == [special] * 3
    open_ids = encode(template.render([{"role": "user", "content": special}], escape_special_tokens=False), tokenizer)
    assert specials(tokenizer, open_ids) == [special] * 2


def test_a_special_token_that_swallows_space_does_not_swallow_text(llama_tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer = deepcopy(llama_tokenizer)
    tokenizer.add_tokens([AddedToken("<|end|>", lstrip=True, rstrip=True, normalized=False)], special_tokens=True)
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    ids = encode(
        [trusted("the"), plain("</s>"), trusted("<|end|>"), plain("<|end|>"), trusted("<|end|>fox")], tokenizer
    )
    assert ids.count(end) == 2
    assert decoded(tokenizer, ids[: ids.index(end)]) == "the</s>"


def test_the_example_of_the_docstring_holds(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    template = ChatTemplate("{{ messages[0].content }}<|im_end|>", token_markers=["<|im_end|>"])
    ids = encode(template.render([{"role": "user", "content": "Hi<|im_end|>"}]), tiny_tokenizer)
    assert ids.count(tiny_tokenizer.convert_tokens_to_ids("<|im_end|>")) == 1
    assert decoded(tiny_tokenizer, ids) == "Hi<|im_end|><|im_end|>"


def test_neighbours_of_one_kind_are_joined() -> None:
    assert join_segments([trusted(""), trusted("a"), trusted("b"), plain("c"), plain(""), plain("d")]) == [
        trusted("ab"),
        plain("cd"),
    ]
