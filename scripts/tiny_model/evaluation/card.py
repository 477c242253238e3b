"""The model card of the tiny model, written from measured numbers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tiny_model.data.facts import SUPER_BOWL
from tiny_model.data.open_prompts.prompts import STEPS
from tiny_model.data.words import is_held_back
from tiny_model.training.folder import END_OF_TEXT_ID, TURN_END_ID, TURN_START_ID, folder_bytes
from tiny_model.training.pieces import PIECES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from transformers import LlamaConfig

    from tiny_model.evaluation.handwritten import Asked
    from tiny_model.evaluation.open_prompts import OpenScores
    from tiny_model.evaluation.skills import Scores
    from tiny_model.evaluation.tool_use import ToolScores

CARD = """# Tiny Petals model

A Llama model of {millions:.2f} million parameters ({layers} layers of width {width}, {heads} heads,
float32), made to try a Petals swarm on any laptop: {layers} blocks make a swarm of up to {layers} servers,
and a token costs each of them next to nothing. It holds short conversations about a fixed set of things, and
calls tools that it has never seen. Whatever else it is asked, it nearly always answers in words, mostly
`I do not know.` It is a test fixture and a demonstration, not an assistant.

Written by `scripts/train_tiny_model.py` of the langchain-petals repository, from random weights and generated
conversations only: no other model and no collected text was used. Same license as the package.

## Prompts

| style | prompt | the model goes on with |
| --- | --- | --- |
| chat (ChatML, the tokenizer's template) | `apply_chat_template` | the answer |
| dialogue, as LangChain writes messages | `Human: Who are you?` | `\\nAI: ` and the answer |
| bare question | `Who are you?` | a line break and the answer |
| question and steps | {steps_prompt} | a space and the answer |

Every answer ends with `<|im_end|>`; how many have words is measured below. A dialogue prompt may also end with
`AI:` or `AI: `. A question and steps may be the content of a message.
What is none of these is answered, too: right away after white space, after a
space or on a new line otherwise. One optional system message, at the start; of its content only a name matters
(`You are Pip.`), and a JSON schema that the answer shall fit. The chat template takes `tools`: they are described at
the end of the system message, a call is `<tool_call>`, a line with a JSON object of `name` and `arguments`, and
`</tool_call>`; what a tool returns is a message of the role `tool`.

The tokenizer is byte-level: ids 0-255 are the bytes of UTF-8, {end_of_text} is `<|endoftext|>` (padding),
{start} is `<|im_start|>`, {end} is `<|im_end|>` (end of an answer). The other {pieces} tokens are what JSON, schemas
and calls are written with (`", "arguments": {{"`), letters of Greek, Cyrillic, Arabic and other scripts, and what
Chinese and Korean characters and emoji begin with. Text becomes the fewest tokens that spell it: one character of
English is one token, one of Chinese is two. Nothing is added to a prompt.

## Measured

Greedy decoding; an answer counts when it is right to the letter. Words, names, numbers, phrases, pairs of
summands and counting ranges are held back: one text in eight (by CRC-32) never occurs in training, and the
evaluation draws only from those. Rows that say "held-back wording" ask with a wording that never occurs in
training; small talk, facts and stories have nothing else to hold back. *Plain* is half dialogue and half
bare question, or all dialogue where there are several turns or a system message.

| skill | chat | plain |
| --- | --- | --- |
{rows}
| **all** | **{chat_total}** | **{plain_total}** |

### Prompts of any kind

In the template of questions and steps, as a message and as a plain prompt. There are {wordings} questions about the
Super Bowl that the Dallas Cowboys won and the singer who was born in the same year, so cases of those rows repeat:

| question | chat | plain |
| --- | --- | --- |
{in_template}

{open_prompts} prompts that say nothing to the model (questions about invented things, instructions, source code,
words and sentences of many scripts, lists, punctuation, noise), drawn from what is held back. An answer counts when
it has a letter or a digit:

| asked | answers with words |
| --- | --- |
{worded}

### Tools

Names, parameters, values and results are drawn anew for each case from what is held back, and all of a call has to
be right. *Decided* is an answer that nothing forces: the model also has to see that a tool is needed. *Forced* is
what `tool_choice` does: the name is given, the model writes the arguments. There is one tool in these cases.

| call of a tool with | decided | forced |
| --- | --- | --- |
{calls}
| **all** | **{decided_total}** | **{forced_total}** |

*In Chinese* and so on: the value is in that script, and in half of the cases the names of the tool and its
parameter, too. Characters are drawn at random, so most of them are rare ones.

| skill | right |
| --- | --- |
{answers}

Written by hand, with tools as people have them: {handwritten_right} of {handwritten_cases} right, and
{handwritten_forced} of the {handwritten_calls} calls where they are forced.

| tools | question | answer |
| --- | --- | --- |
{handwritten}

### What that leaves open

The commuted pair of a held-back sum usually is in the training data (`3 + 4` may be held back and `4 + 3` not),
and so are parts of a counting range. {sums} of the 100 sums are held back, and
one wording for each fixed answer, so cases of those rows repeat. Ten emoji joined from several code points
occur on both sides. A name is held back as a name: in lower case it may have been a word to repeat.

## Examples

Real answers, greedy, chat template, mistakes included:

{examples}

## What it cannot do

- Anything else than the skills in the table: it knows {facts} facts, two stories and a poem, and adds only
  one-digit numbers, as often right as the table says. To any other question it answers `I do not know.`, to an
  instruction `I cannot do that. I am only a tiny language model.`, and sometimes something fluent and wrong.
- Think step by step: where a prompt asks for that, it gives the answer that it knows by heart.
- Recall reliably: after a turn or more in between, a name or value may come back distorted or not at all.
  Ask in the same turn, or right after, for the best odds.
- Copy reliably what is long (more than eight words), repeats itself (`up up`, three keys of a JSON object),
  or mixes several scripts.
- Spell words with the same letters twice (`banana`), or count down to a small number: it may count up
  instead. Counts from 1 reach 60, others some 15 numbers.
- Follow instructions in a system message, reason, translate or write code.
- Choose a tool by meaning: it finds the one whose name or description has the words of the question. It knows
  other words for arithmetic only (`times` for `multiply`). It calls one tool at a time, and two in a row at most.
- Leave tools alone reliably: asked for something that none of them is for, it may call one.
- Call a tool right away in a dialogue or bare prompt: tools are for the chat template.
- Use its {positions} positions: training conversations have at most some {longest} tokens. Bytes that it
  samples need not be valid UTF-8.

## Training

{steps} steps of {conversations} conversations, seed {seed}: {minutes:.0f} minutes of training on two cores (of the
second stage the time that the processors spent on it, since others used them, too). Muon for
the layers' matrices, AdamW for the rest, products of matrices in bfloat16, loss on answers only. The first 900 steps
see more copying than the rest, so that copying appears early; from step 1000 on there are more sums and more recalling.
Three in five conversations are about tools, one in nine asks for a JSON object.

The last {open_steps} steps are a second stage, with a new optimiser, a rate that rises once more to {open_rate:.0%} of
the peak and falls, and prompts of any kind in {open_share:.0%} of the conversations: invented questions, instructions,
code, words of many scripts, and what the model knows in templates of prompts. It begins with the weights of the first
stage, and may be run alone on a model folder (`--from`). What the first stage learned is trained on in all others.
Near its end come {bare_steps} steps with bare prompts that are no questions in {bare_share:.0%} of the conversations:
where such a text ends is hard to tell from where an answer ends. In {settling_steps} more steps the model finds
back to what that took from it, questions that it has an answer to in other words than before. The last {keys_steps}
go on so, with more JSON objects whose keys are long; the weights are the mean of those before and after them. Without
this file the folder is {size:.1f} MB.
"""


def _row(skill: str, styles: Mapping[Any, tuple[int, int]]) -> str:
    return f"| {skill} | " + " | ".join(f"{right} / {cases}" for right, cases in styles.values()) + " |"


def _total(scores: Scores, style: str) -> str:
    right, cases = (sum(styles[style][part] for styles in scores.values()) for part in (0, 1))
    return f"{right} / {cases} ({100 * right / cases:.0f}%)"


def _examples(talks: Sequence[Sequence[tuple[str, str]]]) -> str:
    blocks = ("\n".join(f"Human: {question}\nAI: {answer}" for question, answer in talk) for talk in talks)
    return "```text\n" + "\n\n".join(blocks) + "\n```"


def _percent(count: tuple[int, int]) -> str:
    right, cases = count
    return f"{right} / {cases} ({100 * right / cases:.0f}%)"


def _asked(asked: Asked, answer: str, *, right: bool) -> str:
    """Return a row of the handwritten table: a call as `name(arguments)`, and the expected one if it is wrong."""
    names = ", ".join(f"`{tool['name']}`" for tool in asked.tools)
    shown = _code(answer.removeprefix("<tool_call>").removesuffix("</tool_call>").strip())
    if not right:
        expected = json.dumps({"name": asked.name, "arguments": asked.arguments}, ensure_ascii=False)
        shown = (
            f"**wrong:** {shown}, not {_code(expected)}" if asked.name else f"**wrong:** {shown}, where none is for it"
        )
    return f"| {names} | {asked.question} | {shown} |"


def _code(text: str) -> str:
    text = text.replace("\n", " ").replace("|", "\\|")
    return f"`{text}`"


def write_card(
    folder: Path,
    *,
    config: LlamaConfig,
    scores: Scores,
    tool_scores: ToolScores,
    open_scores: OpenScores,
    exchanges: Sequence[Sequence[tuple[str, str]]],
    numbers: dict[str, int | float],
) -> None:
    """Write `README.md` of the model folder.

    Args:
        folder: the model folder, with all its other files.
        config: the model's configuration.
        scores: right answers and cases for each skill and style.
        tool_scores: what the model got right about tools and JSON objects.
        open_scores: what the model got right in the template, and how many answers to prompts of any kind have words.
        exchanges: conversations as (question, answer) pairs.
        numbers: `parameters`, `facts` taught, `steps`, `conversations` a step, `seed`, `seconds` of training,
            `longest` (tokens of a training conversation), and of the second stage `open_steps`, `open_rate`,
            `open_share`, `bare_steps`, `bare_share`, `settling_steps` and `keys_steps`.
    """
    text = CARD.format(
        millions=numbers["parameters"] / 1e6,
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        heads=config.num_attention_heads,
        positions=config.max_position_embeddings,
        end_of_text=END_OF_TEXT_ID,
        start=TURN_START_ID,
        end=TURN_END_ID,
        rows="\n".join(_row(skill, styles) for skill, styles in scores.items()),
        chat_total=_total(scores, "chatml"),
        plain_total=_total(scores, "plain"),
        steps_prompt="`" + STEPS.format(question="Who are you?").replace("\n", "\\n") + "`",
        pieces=len(PIECES),
        wordings=sum(len(wordings) for _, wordings in SUPER_BOWL),
        in_template="\n".join(_row(row, dict(enumerate(counts))) for row, counts in open_scores.in_template.items()),
        open_prompts=max(prompts for _, prompts in open_scores.worded.values()),
        worded="\n".join(f"| {style} | {right} / {all_} |" for style, (right, all_) in open_scores.worded.items()),
        calls="\n".join(_row(skill, dict(enumerate(counts))) for skill, counts in tool_scores.calls.items()),
        decided_total=_percent(tool_scores.decided),
        forced_total=_percent(tool_scores.forced),
        answers="\n".join(f"| {skill} | {right} / {cases} |" for skill, (right, cases) in tool_scores.answers.items()),
        handwritten="\n".join(
            _asked(asked, answer, right=right) for asked, answer, right, _ in tool_scores.handwritten
        ),
        handwritten_right=sum(right for *_, right, _ in tool_scores.handwritten),
        handwritten_cases=len(tool_scores.handwritten),
        handwritten_forced=sum(forced for *_, forced in tool_scores.handwritten),
        handwritten_calls=sum(asked.name is not None for asked, *_ in tool_scores.handwritten),
        examples=_examples(exchanges),
        sums=sum(is_held_back(f"{a}+{b}") for a in range(10) for b in range(10)),
        size=folder_bytes(folder) / 1e6,
        minutes=numbers["seconds"] / 60,
        **{key: value for key, value in numbers.items() if key not in ("parameters", "seconds")},
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
