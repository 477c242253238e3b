"""The choice of a template for a model, and the prompts that templates make of conversations."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import golden_conversations as golden
import mistral_template
import pytest

from langchain_petals.chat.templates import ChatTemplate, Segment, builtin, find_template
from langchain_petals.chat.tools.formats import HERMES, MISTRAL
from langchain_petals.errors import InvalidRequestError, MissingChatTemplateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerFast

EVERY_NAME = pytest.mark.parametrize("name", builtin.NAMES)
QUESTION = [{"role": "user", "content": "Hi"}]
ALTERNATE = [*QUESTION, {"role": "assistant", "content": "Yes?"}]
ALTERNATING = (
    "{% for m in messages %}{% if m.role != ['user', 'assistant'][loop.index0 % 2] %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
)

# shows calls, and drops the text beside them
CALLS_ALONE = (
    "{% for m in messages %}[{{ m.role }}] {% if 'tool_calls' in m %}"
    "{% for c in m.tool_calls %}({{ c.function.name }} {{ c.function.arguments.values() | join(' ') }}){% endfor %}"
    "{% else %}{{ m.content }}{% endif %}{{ '\n' }}{% endfor %}"
)
# the same, and calls and results do not count as turns that alternate
CALLS_BETWEEN_TURNS = (
    "{% set turns = messages | selectattr('tool_calls', 'undefined') | rejectattr('role', 'equalto', 'tool') %}"
    "{% for m in turns %}{% if m.role != ['user', 'assistant'][loop.index0 % 2] %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}" + CALLS_ALONE
)

MISTRALS = mistral_template.SOURCE.replace("eos_token", '"</s>"')


def text(segments: Sequence[Segment]) -> str:
    return "".join(segment.text for segment in segments)


def rendered(source: str, messages: Sequence[dict[str, Any]] = QUESTION, **variables: Any) -> str:
    return text(ChatTemplate(source).render(messages, **variables))


class Named:
    """The part of a tokenizer that the choice of a template needs."""

    all_special_tokens = ("<s>", "</s>")

    def __init__(self, chat_template: Any = None) -> None:
        self.chat_template = chat_template
        self.special_tokens_map = {"bos_token": "<s>", "eos_token": "</s>", "additional_special_tokens": ["<s>"]}

    @property
    def default_chat_template(self) -> str:
        msg = "the template of the tokenizer's class says nothing about the model"
        raise AssertionError(msg)

    def get_added_vocab(self) -> dict[str, int]:
        return {"<s>": 0, "</s>": 1, "<|im_end|>": 2, "dog": 3, "  ": 4}


class TestBuiltInTemplates:
    @EVERY_NAME
    def test_built_in_templates_render_as_in_the_golden_files(self, name: str) -> None:
        assert golden.renderings(name) == golden.path(name).read_text(encoding="utf-8")

    def test_each_built_in_template_has_a_golden_file(self) -> None:
        assert {path.stem for path in golden.FOLDER.iterdir()} == set(builtin.NAMES)

    @EVERY_NAME
    @pytest.mark.parametrize("answers", [("Shakespeare.", "Goethe."), (" Shakespeare.", " Goethe.\n"), ("", " ")])
    def test_a_conversation_continues_where_the_last_prompt_ended(self, name: str, answers: tuple[str, str]) -> None:
        template = golden.template(name)
        conversation = [dict(turn) for turn in golden.CONVERSATION]
        conversation[2]["content"], conversation[4]["content"] = answers
        for length, answer in ((2, answers[0]), (4, answers[1])):
            prompt = text(template.render(conversation[:length]))
            following = text(template.render(conversation[: length + 2]))
            assert following.startswith(prompt)
            assert following[len(prompt) :].lstrip(" ").startswith(answer.lstrip(" "))

    @EVERY_NAME
    def test_tool_use_continues_where_the_last_prompt_ended(self, name: str) -> None:
        template = golden.template(name)
        prompts = [text(template.render(golden.TOOL_USE[:length])) for length in (1, 4, 6)]
        assert prompts[1].startswith(prompts[0])
        assert prompts[2].startswith(prompts[1])

    @EVERY_NAME
    @pytest.mark.parametrize("case", golden.CASES)
    def test_no_content_of_a_conversation_is_lost(self, name: str, case: str) -> None:
        template = golden.template(name)
        prompt = text(template.render(golden.CASES[case], escape_special_tokens=False))
        for turn in golden.CASES[case]:
            assert turn["content"].strip() in prompt
            for call in turn.get("tool_calls", ()):
                assert call["function"]["name"] in prompt

    @EVERY_NAME
    def test_end_of_answer_is_the_text_after_an_answer(self, name: str) -> None:
        end = golden.template(name).end_of_answer
        assert (
            end
            == {
                "chatml": "<|im_end|>",
                "llama-2-chat": "</s>",
                "llama-3-instruct": "<|eot_id|>",
                "llama-3.1-instruct": "<|eot_id|>",
                "mixtral-instruct": "</s>",
                "guanaco": "\n### Human:",
                "stable-beluga": "\n### User:",
                "falcon-instruct": "\nUser:",
                "falcon-180b-chat": "\nUser:",
                "bloomz": "",
            }[name]
        )

    def test_one_built_in_template_takes_tools(self) -> None:
        assert [name for name in builtin.NAMES if golden.template(name).takes_tools] == ["llama-3.1-instruct"]

    def test_one_built_in_template_refuses_system_messages(self) -> None:
        assert [name for name in builtin.NAMES if golden.template(name).capabilities.refuses_system] == [
            "mixtral-instruct"
        ]

    @pytest.mark.parametrize(
        ("model", "model_type", "name"),
        [
            ("stabilityai/StableBeluga2", "llama", "stable-beluga"),
            ("petals-team/StableBeluga2", "llama", "stable-beluga"),
            ("timdettmers/guanaco-65b", "llama", "guanaco"),
            ("bigscience/bloomz", "bloom", "bloomz"),
            ("bigscience/bloomz-560m", None, "bloomz"),
            ("tiiuae/falcon-40b-instruct", "falcon", "falcon-instruct"),
            ("tiiuae/falcon-180B-chat", "falcon", "falcon-180b-chat"),
            ("meta-llama/Llama-2-70b-chat-hf", "llama", "llama-2-chat"),
            ("meta-llama/Meta-Llama-3-70B-Instruct", "llama", "llama-3-instruct"),
            ("meta-llama/Meta-Llama-3.1-405B-Instruct", "llama", "llama-3.1-instruct"),
            ("unsloth/llama-3.1-8b-instruct", "llama", "llama-3.1-instruct"),
            ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral", "mixtral-instruct"),
            ("cognitivecomputations/dolphin-2.5-mixtral-8x7b", "mixtral", "chatml"),
            ("bigscience/bloom", "bloom", None),
            ("meta-llama/Llama-2-70b-hf", "llama", None),
            ("tiiuae/falcon-180B", "falcon", None),
            ("mistralai/Mixtral-8x7B-v0.1", "mixtral", None),
            ("somebody/bloomz-on-llama", "llama", None),
        ],
    )
    def test_a_built_in_template_is_found_by_name_and_family(
        self, model: str, model_type: str | None, name: str
    ) -> None:
        assert builtin.name_for(model, model_type) == name


class TestFindTemplate:
    def test_a_requested_template_has_priority(self) -> None:
        template = find_template("{{ messages[0].content }}!", Named("own"), "petals-team/StableBeluga2", "llama")
        assert text(template.render(QUESTION)) == "Hi!"

    def test_a_built_in_template_can_be_requested_by_name(self) -> None:
        template = find_template("chatml", Named("own"), "petals-team/StableBeluga2", "llama")
        assert template.source == builtin.source("chatml")

    def test_the_tokenizers_own_template_precedes_a_built_in_one(self) -> None:
        template = find_template(None, Named("own"), "petals-team/StableBeluga2", "llama")
        assert template.source == "own"

    def test_the_default_template_of_the_tokenizers_class_is_not_used(self) -> None:
        template = find_template(None, Named(), "petals-team/StableBeluga2", "llama")
        assert template.source == builtin.source("stable-beluga")

    def test_a_template_gets_the_tokenizers_special_tokens(self) -> None:
        template = find_template("{{ bos_token }}{{ eos_token }}{{ pad_token }}", Named(), "m", None)
        assert text(template.render(QUESTION)) == "<s></s>"

    def test_a_missing_template_raises_an_error_that_shows_how_to_give_one(self) -> None:
        with pytest.raises(
            MissingChatTemplateError, match=r"my/model ships no chat template.*chat_template='"
        ) as raised:
            find_template(None, Named(), "my/model", "llama")
        assert all(name in str(raised.value) for name in builtin.NAMES)
        assert isinstance(raised.value, InvalidRequestError)

    def test_an_unknown_name_raises_an_error_that_lists_the_names(self) -> None:
        with pytest.raises(InvalidRequestError, match=r"no built-in chat template 'chatty'.*mixtral-instruct"):
            find_template("chatty", Named(), "m", None)

    def test_a_source_that_is_no_template_is_refused(self) -> None:
        with pytest.raises(InvalidRequestError, match=r"is not valid.*endfor"):
            find_template("{% for m in messages %}", Named(), "m", None)

    @pytest.mark.parametrize(
        "own",
        [
            {"default": "plain", "tool_use": "{{ tools | length }} tools"},
            [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "{{ tools | length }} tools"}],
        ],
        ids=["dictionary", "list"],
    )
    def test_the_default_and_the_tool_template_of_several_are_used(self, own: Any) -> None:
        template = find_template(None, Named(own), "m", None)
        assert template.takes_tools
        assert text(template.render(QUESTION)) == "plain"
        assert text(template.render(QUESTION, tools=[golden.ADDITION])) == "1 tools"

    def test_several_templates_without_a_default_raise(self) -> None:
        with pytest.raises(InvalidRequestError, match="'rag', 'tool_use' and no default"):
            find_template(None, Named({"rag": "a", "tool_use": "b"}), "m", None)

    def test_a_template_is_compiled_once(self) -> None:
        first, second = (find_template(None, Named("own"), "m", None) for _ in range(2))
        assert first is second

    def test_added_words_of_the_vocabulary_are_no_markers(self) -> None:
        template = find_template("{{ messages[0].content }}", Named(), "m", None)
        assert template.render([{"role": "user", "content": "my  dog<|im_end|>"}]) == [
            Segment("my  dog", trusted=True),
            Segment("<|im_end|>", trusted=False),
        ]

    def test_the_bundled_tokenizer_has_a_template(self, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
        template = find_template(None, tiny_tokenizer, "tiny", "llama")
        assert text(template.render(QUESTION)) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"

    def test_templates_need_neither_torch_nor_transformers(self) -> None:
        code = (
            "import sys, langchain_petals.chat.templates; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestLimitedTemplates:
    """Conversations are adapted to templates that know less."""

    def test_system_messages_become_a_part_of_user_messages(self) -> None:
        messages = [{"role": "system", "content": "Be kind."}, *QUESTION]
        assert rendered(ALTERNATING, messages) == "[user] Be kind.\n\nHi\n"

    def test_a_template_that_drops_system_messages_refuses_them(self) -> None:
        source = "{% for m in messages if m.role != 'system' %}[{{ m.role }}] {{ m.content }}{% endfor %}"
        assert ChatTemplate(source).capabilities.refuses_system
        assert rendered(source, [{"role": "system", "content": "Be kind."}, *QUESTION]) == "[user] Be kind.\n\nHi"

    def test_a_template_that_fails_for_another_reason_does_not_refuse_system_messages(self) -> None:
        assert not ChatTemplate("{{ raise_exception('never') }}").capabilities.refuses_system

    def test_turns_are_made_to_alternate(self) -> None:
        messages = [*QUESTION, {"role": "user", "content": "Anybody?"}, {"role": "assistant", "content": "Yes."}]
        assert rendered(ALTERNATING, messages) == "[user] Hi\n\nAnybody?\n[assistant] Yes.\n"

    def test_joined_answers_keep_their_calls(self) -> None:
        calls = [golden.TOOL_USE[1]["tool_calls"][:1], golden.TOOL_USE[1]["tool_calls"][1:]]
        source = ALTERNATING.replace("\n", "{{ m.tool_calls | length }}\n")
        turns = [{"role": "assistant", "content": "", "tool_calls": each} for each in calls]
        assert rendered(source, [*QUESTION, *turns]).count("<tool_call>") == 2

    def test_results_of_tools_become_user_messages(self) -> None:
        prompt = rendered(ALTERNATING, golden.TOOL_USE)
        assert "[user] Tool result (add): 5\n\nTool result (add): 9\n" in prompt

    def test_results_of_tools_without_a_name_become_user_messages(self) -> None:
        assert "[user] Tool result: 5" in rendered(ALTERNATING, [{"role": "tool", "content": "5"}])

    def test_several_calls_become_one_call_after_the_other(self) -> None:
        source = (
            "{% for m in messages %}{% if m.tool_calls | default([]) | length > 1 %}"
            "{{ raise_exception('one call at once') }}{% endif %}{{ m.role }}:"
            "{% for c in m.tool_calls %}{{ c.function.name }}{{ c.function.arguments.a }}{% endfor %}{{ m.content }};"
            "{% endfor %}"
        )
        assert rendered(source, golden.TOOL_USE[1:]) == (
            "assistant:add2;tool:5;assistant:add4;tool:9;assistant:5 and 9.;user:Thanks!;"
        )

    @pytest.mark.parametrize(
        ("source", "after"),
        [
            (CALLS_ALONE, "[tool] 5\n[tool] 9\n[assistant] 5 and 9.\n"),
            (CALLS_BETWEEN_TURNS, "[user] Tool result (add): 5\n\nTool result (add): 9\n[assistant] 5 and 9.\n"),
        ],
        ids=["as Llama 3.1's", "as Mistral's"],
    )
    def test_calls_become_text_where_the_template_drops_the_text_beside_them(self, source: str, after: str) -> None:
        question, answer, *rest = golden.TOOL_USE
        calls = [{"name": "add", "args": call["function"]["arguments"]} for call in answer["tool_calls"]]
        written = HERMES.render(calls, "Let me see.")
        expected = f"[user] {question['content']}\n[assistant] {written}\n{after}[user] Thanks!\n"
        assert rendered(source, [question, answer | {"content": "Let me see."}, *rest]) == expected
        if source == CALLS_BETWEEN_TURNS:  # a text that was in front of the calls is beside them now
            text = {"role": "assistant", "content": "Let me see."}
            assert rendered(source, [question, text, answer, *rest]) == expected

    @pytest.mark.parametrize("source", [CALLS_ALONE, CALLS_BETWEEN_TURNS])
    @pytest.mark.parametrize("content", ["", " \n"])
    def test_the_template_writes_calls_without_text_beside_them(self, source: str, content: str) -> None:
        question, answer, *rest = golden.TOOL_USE
        prompt = rendered(source, [question, answer | {"content": content}, *rest])
        assert prompt.count("(add 2 3)") == prompt.count("[tool] 5") == 1
        assert "<tool_call>" not in prompt

    def test_a_text_in_front_of_calls_between_turns_is_kept(self) -> None:
        question, answer, *rest = golden.TOOL_USE
        call, other = (
            f'{{"name": "add", "arguments": {{"a": {a}, "b": {b}}}, "id": "{name}"}}'
            for a, b, name in ((2, 3, "c1aaaaaaa"), (4, 5, "c2aaaaaaa"))
        )
        conversation = [question, answer | {"content": "Let me see. [INST]"}, *rest]
        named = json.loads(json.dumps(conversation).replace('"c1"', '"c1aaaaaaa"').replace('"c2"', '"c2aaaaaaa"'))
        prompt = rendered(MISTRALS, named, write_calls=MISTRAL.render)
        assert f"[/INST]Let me see. [INST ][TOOL_CALLS] [{call}, {other}]</s>[TOOL_RESULTS] {{" in prompt
        assert "Tool result" not in prompt
        assert not re.search("[\U000f0000-\U000ffffd]", prompt)

    def test_a_text_in_front_of_calls_is_kept_with_any_white_space(self) -> None:
        source = MISTRALS.replace("[TOOL_CALLS] [", "[TOOL_CALLS][")
        turn = {"role": "assistant", "content": "Hm.", "tool_calls": golden.TOOL_USE[1]["tool_calls"]}
        prompt = rendered(source, [*QUESTION, turn], write_calls=MISTRAL.render)
        assert '[/INST]Hm.[TOOL_CALLS][{"name": "add"' in prompt
        # another format would not begin so: what the template writes is not what the model wrote
        assert "Hm.\n<tool_call>" in rendered(source, [*QUESTION, turn], write_calls=HERMES.render)

    @pytest.mark.parametrize("tools", [[golden.ADDITION], None])
    def test_system_messages_that_a_template_drops_after_calls_go_into_the_question(self, tools: Any) -> None:
        messages = [{"role": "system", "content": "Be kind."}, *golden.TOOL_USE[:4]]
        prompts = [
            rendered(MISTRALS, messages[:length], tools=tools, write_calls=MISTRAL.render) for length in (2, 3, 4, 5)
        ]
        assert all(prompt.count("[INST] Be kind.\n\n") == 1 for prompt in prompts)
        assert all(later.startswith(former) for former, later in itertools.pairwise(prompts))

    def test_probes_have_ids_of_results(self) -> None:
        source = MISTRALS.replace("{%- for turn in turns %}", "{%- for turn in turns if 0 %}")
        assert ChatTemplate(source).capabilities.shows_results_of_written_calls
        assert not ChatTemplate(MISTRALS).capabilities.shows_results_of_written_calls, "turns would be uneven"

    @pytest.mark.parametrize("refused", ["!= 9", "< 9"])
    def test_ids_that_the_template_refuses_are_shortened(self, refused: str) -> None:
        source = (  # as Mistral's
            "{% for m in messages %}{% for c in m.tool_calls | default([]) %}{{ c.function.name }}"
            "{% if c.id | length != 9 %}{{ raise_exception('Tool call IDs should have length 9!') }}"
            "{% endif %}[{{ c.id }}]{% endfor %}{% if m.role == 'tool' %}"
            "{% if m.tool_call_id | length != 9 %}{{ raise_exception('and here') }}{% endif %}[{{ m.tool_call_id }}]"
            "{% endif %}{{ m.content }}\n{% endfor %}"
        )
        source = source.replace("!= 9", refused)  # later ones take longer ids, too
        conversation = json.loads(
            json.dumps(golden.TOOL_USE).replace('"c1"', '"call_3-ß"').replace('"c2"', '"Ab3456789"')
        )
        first, second = re.findall(r"add\[([0-9a-zA-Z]{9})\]", rendered(source, conversation))
        assert second == "Ab3456789"
        assert f"[{first}]5\n[{second}]9\n" in rendered(source, conversation)
        assert rendered(source, conversation) == rendered(source, conversation)
        nameless = json.loads(json.dumps(conversation[:2]).replace('"id":', '"no id":'))
        assert len(set(re.findall(r"add\[([0-9a-f]{9})\]", rendered(source, nameless)))) == 2

    def test_ids_that_the_template_takes_are_kept(self) -> None:
        source = (
            "{% for m in messages %}{{ m.tool_call_id }}{{ m.content }}"
            "{% for c in m.tool_calls %}{{ c.id }}{{ c.function.name }}{% endfor %};{% endfor %}"
        )
        assert rendered(source, golden.TOOL_USE[1:4]) == "c1addc2add;c15;c29;"

    def test_results_get_the_names_of_their_tools(self) -> None:
        source = "{% for m in messages if m.role == 'tool' %}{{ m.name }}={{ m.content }};{% endfor %}"
        assert rendered(source + "{{ messages[1].tool_calls[0].function.name }}", golden.TOOL_USE) == "add=5;add=9;add"

    def test_a_template_that_knows_everything_gets_the_conversation_unchanged(self) -> None:
        source = (
            "{% for m in messages %}{{ m.role }},{{ m.name }},{{ m.tool_calls | tojson }},{{ m.content }};{% endfor %}"
        )
        messages = [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "u", "name": "n"},
            *golden.TOOL_USE[1:3],
        ]
        prompt = rendered(source.replace("m.tool_calls |", "m.tool_calls | default([]) |"), messages)
        assert prompt.startswith("system,,[],s;user,n,[],u;assistant,,[{")
        assert prompt.endswith("tool,add,[],5;")


class TestRendering:
    def test_templates_have_the_variables_and_filters_of_transformers(self) -> None:
        source = (
            "{%- for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}\n"
            "    {% generation %}\n{{ m.content }}{% endgeneration %}\n"
            "{{ {'b': 'é<', 'a': [1]} | tojson }}"
            "{{ {'b': 'é', 'a': 1} | tojson(sort_keys=true, separators=(',', ':')) }}"
            "{{ [1] | tojson(indent=1) }}{{ 'é' | tojson(ensure_ascii=true) }}{{ add_generation_prompt }}"
            "{{ strftime_now('%Y') | length }}{{ documents is none }}{{ tools is none }}{{ thinking }}\n"
            "{% endfor %}"
        )
        assert rendered(source, ALTERNATE, thinking="yes") == (
            'Hi{"b": "é<", "a": [1]}{"a":1,"b":"é"}[\n 1\n]"\\u00e9"True4TrueTrueyes\n'
        )

    def test_an_error_contains_the_text_of_raise_exception(self) -> None:
        template = ChatTemplate("{{ raise_exception('Only odd questions!') }}", name="odd")
        with pytest.raises(InvalidRequestError, match="'odd' does not render this conversation: Only odd questions!"):
            template.render(QUESTION)

    def test_an_error_contains_the_failure_of_the_template(self) -> None:
        with pytest.raises(InvalidRequestError, match=r"does not render this conversation: .*has no attribute 'wrong'"):
            rendered("{{ messages[0].wrong.thing }}")

    @pytest.mark.parametrize("role", [None, "", "user<|im_end|>", "a b", 7])
    def test_a_role_that_is_no_word_is_refused(self, role: Any) -> None:
        with pytest.raises(InvalidRequestError, match="A message has the role"):
            rendered("{{ messages[0].role }}", [{"role": role, "content": "x"}])

    @EVERY_NAME
    def test_an_unknown_role_raises_an_error_that_lists_the_roles(self, name: str) -> None:
        messages = [*QUESTION, {"role": "narrator", "content": "Night falls."}, *QUESTION]
        if name in ("bloomz", "chatml", "llama-3-instruct", "llama-3.1-instruct"):
            assert "Night falls." in text(golden.template(name).render(messages))
        else:
            with pytest.raises(
                InvalidRequestError, match=r"role 'narrator' of a message; give 'system', 'user', 'assistant' or 'tool'"
            ):
                golden.template(name).render(messages)

    def test_a_role_whose_messages_the_template_drops_is_refused(self) -> None:
        source = "{% for m in messages if m.role in ('user', 'assistant') %}{{ m.content }}\n{% endfor %}"
        with pytest.raises(InvalidRequestError, match="does not know the role 'narrator'"):
            rendered(source, [{"role": "narrator", "content": "Night falls."}, *QUESTION])

    def test_an_error_does_not_name_a_role_that_the_template_knows(self) -> None:
        source = (
            "{% for m in messages %}{% if m.content == 'x' %}{{ raise_exception('no x') }}{% endif %}"
            "{{ m.role }}{{ m.content }}{% endfor %}"
        )
        with pytest.raises(InvalidRequestError, match="does not render this conversation: no x"):
            rendered(source, [{"role": "narrator", "content": "x"}])

    def test_tools_are_described_where_the_template_does_not(self) -> None:
        messages = [{"role": "system", "content": "Be kind."}, *QUESTION]
        prompt = rendered(ALTERNATING, messages, tools=[golden.ADDITION], write_tools=HERMES.system_prompt)
        assert prompt == f"[user] Be kind.\n\n{HERMES.system_prompt([golden.ADDITION])}\n\nHi\n"
        prompt = rendered(ALTERNATING, tools=[golden.ADDITION], write_tools=HERMES.system_prompt)
        assert prompt == f"[user] {HERMES.system_prompt([golden.ADDITION])}\n\nHi\n"

    def test_tools_are_not_described_twice(self) -> None:
        source = "{{ tools | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
        assert rendered(source, tools=[golden.ADDITION], write_tools=HERMES.system_prompt) == "1Hi"

    def test_tools_that_nothing_describes_are_refused(self) -> None:
        with pytest.raises(InvalidRequestError, match="presents no tools"):
            rendered("{{ messages[0].content }}", tools=[golden.ADDITION])

    def test_reasoning_is_shown_only_by_templates_that_use_it(self) -> None:
        turn = {"role": "assistant", "content": "42", "reasoning_content": "6 * 7"}
        shown = ("{{ m.reasoning_content }}={{ m.content }}", "{{ m.content }}")
        templates = [ChatTemplate(f"{{% for m in messages %}}{each}{{% endfor %}}") for each in shown]
        texts = ["".join(part.text for part in template.render([turn])) for template in templates]
        assert texts == ["6 * 7=42", "42"]

    def test_rendering_does_not_change_its_input(self) -> None:
        messages = [dict(turn) for turn in golden.TOOL_USE]
        golden.template("mixtral-instruct").render(messages)
        assert messages == golden.TOOL_USE

    def test_a_long_conversation_renders_within_the_limits(self) -> None:
        messages = [{"role": role, "content": "word " * 200} for role in ("user", "assistant")] * 1000
        for name in builtin.NAMES:
            assert len(text(golden.template(name).render(messages))) > 2_000_000
