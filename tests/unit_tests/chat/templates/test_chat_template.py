"""Which template a model gets, and what templates make of conversations."""

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

from langchain_petals.chat.templates import ChatTemplate, Segment, find_template
from langchain_petals.chat.templates import builtin as builtin_templates
from langchain_petals.chat.tools.formats import HERMES, MISTRAL
from langchain_petals.errors import InvalidRequestError, MissingChatTemplateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerFast

EVERY_NAME = pytest.mark.parametrize("name", builtin_templates.NAMES)
QUESTION = [{"role": "user", "content": "Hi"}]
ALTERNATE = [*QUESTION, {"role": "assistant", "content": "Yes?"}]
ALTERNATING = (
    "{% for m in messages %}{% if m.role != ['user', 'assistant'][loop.index0 % 2] %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
)

# shows calls, and never what is said beside them
CALLS_ALONE = (
    "{% for m in messages %}[{{ m.role }}] {% if 'tool_calls' in m %}"
    "{% for c in m.tool_calls %}({{ c.function.name }} {{ c.function.arguments.values() | join(' ') }}){% endfor %}"
    "{% else %}{{ m.content }}{% endif %}{{ '\n' }}{% endfor %}"
)
# the same, and calls and their results are no turns of those who alternate
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
    """A tokenizer, as far as choosing a template goes."""

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


class TestTheBuiltInTemplates:
    @EVERY_NAME
    def test_render_every_conversation_as_they_did(self, name: str) -> None:
        assert golden.renderings(name) == golden.path(name).read_text(encoding="utf-8")

    def test_each_have_golden_renderings(self) -> None:
        assert {path.stem for path in golden.FOLDER.iterdir()} == set(builtin_templates.NAMES)

    @EVERY_NAME
    @pytest.mark.parametrize("answers", [("Shakespeare.", "Goethe."), (" Shakespeare.", " Goethe.\n"), ("", " ")])
    def test_continue_a_conversation_where_the_last_prompt_ended(self, name: str, answers: tuple[str, str]) -> None:
        template = golden.template(name)
        conversation = [dict(turn) for turn in golden.CONVERSATION]
        conversation[2]["content"], conversation[4]["content"] = answers
        for length, answer in ((2, answers[0]), (4, answers[1])):
            prompt = text(template.render(conversation[:length]))
            following = text(template.render(conversation[: length + 2]))
            assert following.startswith(prompt)
            assert following[len(prompt) :].lstrip(" ").startswith(answer.lstrip(" "))

    @EVERY_NAME
    def test_continue_tool_use_where_the_last_prompt_ended(self, name: str) -> None:
        template = golden.template(name)
        prompts = [text(template.render(golden.TOOL_USE[:length])) for length in (1, 4, 6)]
        assert prompts[1].startswith(prompts[0])
        assert prompts[2].startswith(prompts[1])

    @EVERY_NAME
    @pytest.mark.parametrize("case", golden.CASES)
    def test_lose_nothing_of_a_conversation(self, name: str, case: str) -> None:
        template = golden.template(name)
        prompt = text(template.render(golden.CASES[case], escape_special_tokens=False))
        for turn in golden.CASES[case]:
            assert turn["content"].strip() in prompt
            for call in turn.get("tool_calls", ()):
                assert call["function"]["name"] in prompt

    @EVERY_NAME
    def test_say_where_an_answer_ends(self, name: str) -> None:
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

    def test_of_which_one_takes_tools(self) -> None:
        assert [name for name in builtin_templates.NAMES if golden.template(name).takes_tools] == ["llama-3.1-instruct"]

    def test_of_which_one_refuses_system_messages(self) -> None:
        assert [name for name in builtin_templates.NAMES if golden.template(name).capabilities.refuses_system] == [
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
    def test_are_found_by_the_models_name_and_family(self, model: str, model_type: str | None, name: str) -> None:
        assert builtin_templates.name_for(model, model_type) == name


class TestFindTemplate:
    def test_takes_what_is_asked_for_before_anything_else(self) -> None:
        template = find_template("{{ messages[0].content }}!", Named("own"), "petals-team/StableBeluga2", "llama")
        assert text(template.render(QUESTION)) == "Hi!"

    def test_takes_the_name_of_a_built_in_one(self) -> None:
        template = find_template("chatml", Named("own"), "petals-team/StableBeluga2", "llama")
        assert template.source == builtin_templates.source("chatml")

    def test_takes_the_tokenizers_own_before_a_built_in_one(self) -> None:
        template = find_template(None, Named("own"), "petals-team/StableBeluga2", "llama")
        assert template.source == "own"

    def test_takes_a_built_in_one_before_the_one_of_the_tokenizers_class(self) -> None:
        template = find_template(None, Named(), "petals-team/StableBeluga2", "llama")
        assert template.source == builtin_templates.source("stable-beluga")

    def test_gives_the_template_the_tokenizers_special_tokens(self) -> None:
        template = find_template("{{ bos_token }}{{ eos_token }}{{ pad_token }}", Named(), "m", None)
        assert text(template.render(QUESTION)) == "<s></s>"

    def test_shows_how_to_pass_one_where_there_is_none(self) -> None:
        with pytest.raises(
            MissingChatTemplateError, match=r"my/model ships no chat template.*chat_template='"
        ) as raised:
            find_template(None, Named(), "my/model", "llama")
        assert all(name in str(raised.value) for name in builtin_templates.NAMES)
        assert isinstance(raised.value, InvalidRequestError)

    def test_lists_the_names_for_an_unknown_one(self) -> None:
        with pytest.raises(InvalidRequestError, match=r"no built-in chat template 'chatty'.*mixtral-instruct"):
            find_template("chatty", Named(), "m", None)

    def test_refuses_what_is_no_template(self) -> None:
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
    def test_takes_the_right_one_of_several(self, own: Any) -> None:
        template = find_template(None, Named(own), "m", None)
        assert template.takes_tools
        assert text(template.render(QUESTION)) == "plain"
        assert text(template.render(QUESTION, tools=[golden.ADDITION])) == "1 tools"

    def test_asks_which_one_where_none_of_several_is_the_default(self) -> None:
        with pytest.raises(InvalidRequestError, match="'rag', 'tool_use' and no default"):
            find_template(None, Named({"rag": "a", "tool_use": "b"}), "m", None)

    def test_compiles_a_template_once(self) -> None:
        first, second = (find_template(None, Named("own"), "m", None) for _ in range(2))
        assert first is second

    def test_lets_words_of_the_vocabulary_be(self) -> None:
        template = find_template("{{ messages[0].content }}", Named(), "m", None)
        assert template.render([{"role": "user", "content": "my  dog<|im_end|>"}]) == [
            Segment("my  dog", trusted=True),
            Segment("<|im_end|>", trusted=False),
        ]

    def test_works_on_the_bundled_tokenizer(self, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
        template = find_template(None, tiny_tokenizer, "tiny", "llama")
        assert text(template.render(QUESTION)) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"

    def test_needs_neither_torch_nor_transformers(self) -> None:
        code = (
            "import sys, langchain_petals.chat.templates; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestATemplateThatKnowsLess:
    """It gets the conversation in words that it knows."""

    def test_gets_system_messages_within_the_users(self) -> None:
        messages = [{"role": "system", "content": "Be kind."}, *QUESTION]
        assert rendered(ALTERNATING, messages) == "[user] Be kind.\n\nHi\n"

    def test_that_drops_system_messages_counts_as_refusing_them(self) -> None:
        source = "{% for m in messages if m.role != 'system' %}[{{ m.role }}] {{ m.content }}{% endfor %}"
        assert ChatTemplate(source).capabilities.refuses_system
        assert rendered(source, [{"role": "system", "content": "Be kind."}, *QUESTION]) == "[user] Be kind.\n\nHi"

    def test_that_fails_for_another_reason_does_not(self) -> None:
        assert not ChatTemplate("{{ raise_exception('never') }}").capabilities.refuses_system

    def test_gets_turns_that_alternate(self) -> None:
        messages = [*QUESTION, {"role": "user", "content": "Anybody?"}, {"role": "assistant", "content": "Yes."}]
        assert rendered(ALTERNATING, messages) == "[user] Hi\n\nAnybody?\n[assistant] Yes.\n"

    def test_keeps_the_calls_of_joined_answers(self) -> None:
        calls = [golden.TOOL_USE[1]["tool_calls"][:1], golden.TOOL_USE[1]["tool_calls"][1:]]
        source = ALTERNATING.replace("\n", "{{ m.tool_calls | length }}\n")
        turns = [{"role": "assistant", "content": "", "tool_calls": each} for each in calls]
        assert rendered(source, [*QUESTION, *turns]).count("<tool_call>") == 2

    def test_gets_the_results_of_tools_from_the_user(self) -> None:
        prompt = rendered(ALTERNATING, golden.TOOL_USE)
        assert "[user] Tool result (add): 5\n\nTool result (add): 9\n" in prompt

    def test_gets_the_results_of_nameless_tools_too(self) -> None:
        assert "[user] Tool result: 5" in rendered(ALTERNATING, [{"role": "tool", "content": "5"}])

    def test_gets_one_call_after_the_other(self) -> None:
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
    def test_gets_the_text_beside_calls_that_it_would_leave_out(self, source: str, after: str) -> None:
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
    def test_writes_calls_itself_where_there_is_no_text_beside_them(self, source: str, content: str) -> None:
        question, answer, *rest = golden.TOOL_USE
        prompt = rendered(source, [question, answer | {"content": content}, *rest])
        assert prompt.count("(add 2 3)") == prompt.count("[tool] 5") == 1
        assert "<tool_call>" not in prompt

    def test_gets_a_text_in_front_of_calls_that_it_writes_between_turns(self) -> None:
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

    def test_gets_a_text_in_front_of_calls_whatever_is_between_them(self) -> None:
        source = MISTRALS.replace("[TOOL_CALLS] [", "[TOOL_CALLS][")
        turn = {"role": "assistant", "content": "Hm.", "tool_calls": golden.TOOL_USE[1]["tool_calls"]}
        prompt = rendered(source, [*QUESTION, turn], write_calls=MISTRAL.render)
        assert '[/INST]Hm.[TOOL_CALLS][{"name": "add"' in prompt
        # another format would not begin so: what the template writes is not what the model wrote
        assert "Hm.\n<tool_call>" in rendered(source, [*QUESTION, turn], write_calls=HERMES.render)

    @pytest.mark.parametrize("tools", [[golden.ADDITION], None])
    def test_gets_system_messages_with_the_question_if_it_drops_them_behind_calls(self, tools: Any) -> None:
        messages = [{"role": "system", "content": "Be kind."}, *golden.TOOL_USE[:4]]
        prompts = [
            rendered(MISTRALS, messages[:length], tools=tools, write_calls=MISTRAL.render) for length in (2, 3, 4, 5)
        ]
        assert all(prompt.count("[INST] Be kind.\n\n") == 1 for prompt in prompts)
        assert all(later.startswith(former) for former, later in itertools.pairwise(prompts))

    def test_gets_ids_of_results_where_it_is_asked_what_it_shows(self) -> None:
        source = MISTRALS.replace("{%- for turn in turns %}", "{%- for turn in turns if 0 %}")
        assert ChatTemplate(source).capabilities.shows_results_of_written_calls
        assert not ChatTemplate(MISTRALS).capabilities.shows_results_of_written_calls, "turns would be uneven"

    @pytest.mark.parametrize("refused", ["!= 9", "< 9"])
    def test_gets_ids_of_calls_that_it_takes(self, refused: str) -> None:
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

    def test_keeps_the_ids_that_it_does_take(self) -> None:
        source = (
            "{% for m in messages %}{{ m.tool_call_id }}{{ m.content }}"
            "{% for c in m.tool_calls %}{{ c.id }}{{ c.function.name }}{% endfor %};{% endfor %}"
        )
        assert rendered(source, golden.TOOL_USE[1:4]) == "c1addc2add;c15;c29;"

    def test_that_wants_the_names_of_tools_gets_them(self) -> None:
        source = "{% for m in messages if m.role == 'tool' %}{{ m.name }}={{ m.content }};{% endfor %}"
        assert rendered(source + "{{ messages[1].tool_calls[0].function.name }}", golden.TOOL_USE) == "add=5;add=9;add"

    def test_is_given_the_conversation_as_it_is_where_it_knows_more(self) -> None:
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
    def test_has_the_variables_and_filters_of_transformers(self) -> None:
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

    def test_tells_what_the_template_objects_to(self) -> None:
        template = ChatTemplate("{{ raise_exception('Only odd questions!') }}", name="odd")
        with pytest.raises(InvalidRequestError, match="'odd' does not render this conversation: Only odd questions!"):
            template.render(QUESTION)

    def test_tells_what_goes_wrong_in_the_template(self) -> None:
        with pytest.raises(InvalidRequestError, match=r"does not render this conversation: .*has no attribute 'wrong'"):
            rendered("{{ messages[0].wrong.thing }}")

    @pytest.mark.parametrize("role", [None, "", "user<|im_end|>", "a b", 7])
    def test_refuses_a_role_that_is_no_word(self, role: Any) -> None:
        with pytest.raises(InvalidRequestError, match="A message has the role"):
            rendered("{{ messages[0].role }}", [{"role": role, "content": "x"}])

    @EVERY_NAME
    def test_names_the_roles_where_one_is_unknown(self, name: str) -> None:
        messages = [*QUESTION, {"role": "narrator", "content": "Night falls."}, *QUESTION]
        if name in ("bloomz", "chatml", "llama-3-instruct", "llama-3.1-instruct"):
            assert "Night falls." in text(golden.template(name).render(messages))
        else:
            with pytest.raises(
                InvalidRequestError, match=r"role 'narrator' of a message; give 'system', 'user', 'assistant' or 'tool'"
            ):
                golden.template(name).render(messages)

    def test_refuses_a_role_whose_messages_would_vanish(self) -> None:
        source = "{% for m in messages if m.role in ('user', 'assistant') %}{{ m.content }}\n{% endfor %}"
        with pytest.raises(InvalidRequestError, match="does not know the role 'narrator'"):
            rendered(source, [{"role": "narrator", "content": "Night falls."}, *QUESTION])

    def test_does_not_blame_a_role_that_the_template_knows(self) -> None:
        source = (
            "{% for m in messages %}{% if m.content == 'x' %}{{ raise_exception('no x') }}{% endif %}"
            "{{ m.role }}{{ m.content }}{% endfor %}"
        )
        with pytest.raises(InvalidRequestError, match="does not render this conversation: no x"):
            rendered(source, [{"role": "narrator", "content": "x"}])

    def test_describes_tools_where_the_template_does_not(self) -> None:
        messages = [{"role": "system", "content": "Be kind."}, *QUESTION]
        prompt = rendered(ALTERNATING, messages, tools=[golden.ADDITION], write_tools=HERMES.system_prompt)
        assert prompt == f"[user] Be kind.\n\n{HERMES.system_prompt([golden.ADDITION])}\n\nHi\n"
        prompt = rendered(ALTERNATING, tools=[golden.ADDITION], write_tools=HERMES.system_prompt)
        assert prompt == f"[user] {HERMES.system_prompt([golden.ADDITION])}\n\nHi\n"

    def test_describes_no_tools_where_the_template_does(self) -> None:
        source = "{{ tools | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
        assert rendered(source, tools=[golden.ADDITION], write_tools=HERMES.system_prompt) == "1Hi"

    def test_refuses_tools_that_the_template_does_not_show(self) -> None:
        with pytest.raises(InvalidRequestError, match="presents no tools"):
            rendered("{{ messages[0].content }}", tools=[golden.ADDITION])

    def test_shows_reasoning_only_where_the_template_asks_for_it(self) -> None:
        turn = {"role": "assistant", "content": "42", "reasoning_content": "6 * 7"}
        shown = ("{{ m.reasoning_content }}={{ m.content }}", "{{ m.content }}")
        templates = [ChatTemplate(f"{{% for m in messages %}}{each}{{% endfor %}}") for each in shown]
        texts = ["".join(part.text for part in template.render([turn])) for template in templates]
        assert texts == ["6 * 7=42", "42"]

    def test_leaves_its_input_alone(self) -> None:
        messages = [dict(turn) for turn in golden.TOOL_USE]
        golden.template("mixtral-instruct").render(messages)
        assert messages == golden.TOOL_USE

    def test_of_a_long_conversation_is_within_the_limits(self) -> None:
        messages = [{"role": role, "content": "word " * 200} for role in ("user", "assistant")] * 1000
        for name in builtin_templates.NAMES:
            assert len(text(golden.template(name).render(messages))) > 2_000_000
