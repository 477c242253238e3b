"""`Petals` as LangChain's callers use it, over the bundled model in this process."""

from __future__ import annotations

import asyncio
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import ConfigurableField
from scripted_session import ScriptedEngine, ScriptedSession

from langchain_petals import Petals
from langchain_petals.engine.generation import Generation
from langchain_petals.errors import DeadlineExceededError, InvalidRequestError, SwarmUnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from langchain_core.outputs import GenerationChunk, LLMResult
    from langchain_core.tracers.schemas import Run
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

PROMPTS = ["Human: Hello!\nAI:", "Human: Who are you?\nAI:", "Human: Count from 1 to 9.\nAI:", "é花🌸"]
NEW = 12


@pytest.fixture(scope="session")
def expected(tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast) -> dict[str, str]:
    """Return the greedy continuation of each prompt, from transformers' own `generate`."""
    found = {}
    for prompt in PROMPTS:
        ids = tiny_tokenizer(prompt, return_tensors="pt")["input_ids"]
        out = tiny_model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=NEW,
            min_new_tokens=NEW,
            pad_token_id=tiny_tokenizer.pad_token_id or 0,
        )
        found[prompt] = tiny_tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    return found


@pytest.fixture
def llm(petals_llm: Callable[..., Petals]) -> Petals:
    return petals_llm()


class Listener(BaseCallbackHandler):
    """Remembers tokens and results."""

    def __init__(self) -> None:
        self.chunks: list[GenerationChunk] = []
        self.tokens: list[str] = []
        self.results: list[LLMResult] = []
        self.errors: list[BaseException] = []

    def on_llm_new_token(self, token: str, *, chunk: GenerationChunk, **_: Any) -> None:  # type: ignore[override]
        self.tokens.append(token)
        self.chunks.append(chunk)

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        self.results.append(response)

    def on_llm_error(self, error: BaseException, **_: Any) -> None:
        self.errors.append(error)


class AsyncListener(AsyncCallbackHandler):
    """Remembers tokens."""

    def __init__(self) -> None:
        self.tokens: list[str] = []

    async def on_llm_new_token(self, token: str, **_: Any) -> None:  # type: ignore[override]
        self.tokens.append(token)


# ---- every method gives the same answer


@pytest.mark.parametrize("prompt", PROMPTS)
def test_invoke_returns_the_answer(llm: Petals, expected: dict[str, str], prompt: str) -> None:
    assert llm.invoke(prompt) == expected[prompt]


async def test_ainvoke_returns_the_answer(llm: Petals, expected: dict[str, str]) -> None:
    assert await llm.ainvoke(PROMPTS[0]) == expected[PROMPTS[0]]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_pieces_of_stream_join_to_the_answer(llm: Petals, expected: dict[str, str], prompt: str) -> None:
    pieces = list(llm.stream(prompt))
    assert "".join(pieces) == expected[prompt]
    assert len([piece for piece in pieces if piece]) > NEW // 4


async def test_the_pieces_of_astream_join_to_the_answer(llm: Petals, expected: dict[str, str]) -> None:
    pieces = [piece async for piece in llm.astream(PROMPTS[0])]
    assert pieces == list(llm.stream(PROMPTS[0]))
    assert "".join(pieces) == expected[PROMPTS[0]]


def test_batch_returns_the_answers(llm: Petals, expected: dict[str, str]) -> None:
    assert llm.batch(PROMPTS) == list(expected.values())


async def test_abatch_returns_the_answers(llm: Petals, expected: dict[str, str]) -> None:
    assert await llm.abatch(PROMPTS) == list(expected.values())


def test_batch_as_completed_returns_the_answers(llm: Petals, expected: dict[str, str]) -> None:
    assert dict(llm.batch_as_completed(PROMPTS)) == dict(enumerate(expected.values()))


async def test_abatch_as_completed_returns_the_answers(llm: Petals, expected: dict[str, str]) -> None:
    answers = [answer async for answer in llm.abatch_as_completed(PROMPTS)]
    assert dict(answers) == dict(enumerate(expected.values()))


def test_batches_as_completed_run_together(petals_llm: Callable[..., Petals]) -> None:
    llm = petals_llm(session_cache=0, batch_window=60_000, max_batch_size=16, max_new_tokens=1)
    engine = ScriptedEngine(llm.tokenizer, lambda rows: ScriptedSession([[*b"ab"]] * rows, [[*b"x"]] * rows))
    llm._engine = engine

    async def ask(runnable: Any) -> list[tuple[int, str]]:
        return [each async for each in runnable.abatch_as_completed(["ab"] * 16)]

    for runnable in (llm, llm.bind(seed=1)):
        engine.opened.clear()
        assert sorted(runnable.batch_as_completed(["ab"] * 16)) == [(number, "x") for number in range(16)]
        assert sorted(asyncio.run(ask(runnable))) == [(number, "x") for number in range(16)]
        assert [rows for rows, _ in engine.opened] == [16, 16]


async def test_concurrent_tasks_get_their_answers(llm: Petals, expected: dict[str, str]) -> None:
    assert await asyncio.gather(*map(llm.ainvoke, PROMPTS)) == list(expected.values())


def test_concurrent_threads_get_their_answers(llm: Petals, expected: dict[str, str]) -> None:
    answers: dict[str, str] = {}
    threads = [threading.Thread(target=lambda each=each: answers.update({each: llm.invoke(each)})) for each in PROMPTS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == expected


def test_generate_returns_the_answers(llm: Petals, expected: dict[str, str]) -> None:
    result = llm.generate(PROMPTS)
    assert [[each.text for each in answers] for answers in result.generations] == [[each] for each in expected.values()]


async def test_no_prompts_give_no_answers(llm: Petals) -> None:
    assert llm.generate([]).generations == (await llm.agenerate([])).generations == []
    assert llm.batch([]) == await llm.abatch([]) == list(llm.batch_as_completed([])) == []


async def test_agenerate_returns_the_answers(llm: Petals, expected: dict[str, str]) -> None:
    result = await llm.agenerate(PROMPTS)
    assert [answers[0].text for answers in result.generations] == list(expected.values())


def test_transform_returns_the_answer(llm: Petals, expected: dict[str, str]) -> None:
    halves = [PROMPTS[0][:5], PROMPTS[0][5:]]
    assert "".join(llm.transform(iter(halves))) == expected[PROMPTS[0]]


@pytest.mark.filterwarnings("ignore:astream_log is deprecated")
async def test_astream_log_contains_the_answer(llm: Petals, expected: dict[str, str]) -> None:
    patches = [patch async for patch in llm.astream_log(PROMPTS[0])]
    final: Any = patches[0]
    for patch in patches[1:]:
        final += patch
    assert final.state["final_output"] == expected[PROMPTS[0]]
    assert len(final.state["streamed_output"]) > 1


@pytest.mark.filterwarnings("ignore:astream_events version='v1' is deprecated")
@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_astream_events_contain_the_answer(llm: Petals, expected: dict[str, str], version: Any) -> None:
    events = [event async for event in llm.astream_events(PROMPTS[0], version=version)]
    chunks = [event["data"]["chunk"] for event in events if event["event"] == "on_llm_stream"]
    assert "".join(chunk if isinstance(chunk, str) else chunk.text for chunk in chunks) == expected[PROMPTS[0]]


def test_a_chain_returns_the_answer(llm: Petals, expected: dict[str, str]) -> None:
    chain = PromptTemplate.from_template("Human: {question}\nAI:") | llm | StrOutputParser()
    assert chain.invoke({"question": "Hello!"}) == expected[PROMPTS[0]]
    assert "".join(chain.stream({"question": "Hello!"})) == expected[PROMPTS[0]]


# ---- wrappers of LangChain


def test_bound_options_apply(llm: Petals, expected: dict[str, str]) -> None:
    stop = expected[PROMPTS[0]][3:5]
    assert llm.bind(stop=[stop]).invoke(PROMPTS[0]) == expected[PROMPTS[0]].partition(stop)[0]
    assert len(llm.bind(max_new_tokens=3, min_new_tokens=0).invoke(PROMPTS[0]).encode()) <= 3


def failing(petals_llm: Callable[..., Petals], failures: int) -> Petals:
    """Return a model whose first calls fail as an unreachable swarm does."""
    llm = petals_llm(max_new_tokens=2)
    calls = iter(range(failures))

    def open_session(rows: int) -> ScriptedSession:
        if next(calls, None) is not None:
            msg = "nobody there"
            raise SwarmUnreachableError(msg)
        return ScriptedSession([[*b"Hi"]] * rows, [[*b"yo"]] * rows)

    llm._engine = ScriptedEngine(llm.tokenizer, open_session)
    return llm


def test_with_retry_calls_again(petals_llm: Callable[..., Petals]) -> None:
    retrying = failing(petals_llm, failures=2).with_retry(
        retry_if_exception_type=(SwarmUnreachableError,), wait_exponential_jitter=False, stop_after_attempt=3
    )
    assert retrying.invoke("Hi") == "yo"


def test_with_fallbacks_falls_back(petals_llm: Callable[..., Petals], llm: Petals, expected: dict[str, str]) -> None:
    assert failing(petals_llm, failures=1).with_fallbacks([llm]).invoke(PROMPTS[0]) == expected[PROMPTS[0]]


def test_listeners_are_called(llm: Petals, expected: dict[str, str]) -> None:
    runs: list[tuple[str, Run]] = []
    heard = llm.with_listeners(
        on_start=lambda run: runs.append(("start", run)), on_end=lambda run: runs.append(("end", run))
    )
    assert heard.invoke(PROMPTS[0]) == expected[PROMPTS[0]]
    assert [name for name, _ in runs] == ["start", "end"]


def test_configurable_fields_apply(llm: Petals, expected: dict[str, str]) -> None:
    tunable = llm.configurable_fields(stop=ConfigurableField(id="stop"))
    stop = expected[PROMPTS[0]][3:5]
    assert tunable.invoke(PROMPTS[0]) == expected[PROMPTS[0]]
    cut = tunable.with_config(configurable={"stop": [stop]}).invoke(PROMPTS[0])
    assert cut == expected[PROMPTS[0]].partition(stop)[0]


def test_configurable_alternative_applies(
    petals_llm: Callable[..., Petals], llm: Petals, expected: dict[str, str]
) -> None:
    other = failing(petals_llm, failures=0)
    either = llm.configurable_alternatives(ConfigurableField(id="model"), default_key="tiny", other=other)
    assert either.invoke(PROMPTS[0]) == expected[PROMPTS[0]]
    assert either.with_config(configurable={"model": "other"}).invoke("Hi") == "yo"


def test_save_writes_the_fields(llm: Petals, tmp_path: Path) -> None:
    llm.huggingface_api_key = None
    llm.save(tmp_path / "llm.json")
    text = (tmp_path / "llm.json").read_text()
    assert '"_type": "petals"' in text
    assert '"model_name": "bigscience/bloom-petals"' in text


def test_tokens_are_counted_with_the_models_own_tokenizer(llm: Petals) -> None:
    text = "é花🌸 ok"
    assert llm.get_token_ids(text) == llm.tokenizer(text)["input_ids"]
    assert llm.get_num_tokens(text) == len(llm.tokenizer(text)["input_ids"])


# ---- metadata of answers


def test_llm_output_counts_tokens_and_names_the_model(petals_llm: Callable[..., Petals]) -> None:
    llm = petals_llm(model="tiny", session_cache=0)
    output = llm.generate(PROMPTS[:2]).llm_output
    prompt_tokens = sum(map(llm.get_num_tokens, PROMPTS[:2]))
    assert output is not None
    assert output["model_name"] == "tiny"
    usage = output["token_usage"]
    assert [usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens")] == [
        prompt_tokens,
        2 * NEW,
        prompt_tokens + 2 * NEW,
        0,
    ]


def test_prompt_of_several_answers_counts_once(petals_llm: Callable[..., Petals]) -> None:
    llm = petals_llm(n=3)
    output = llm.generate(PROMPTS[:1]).llm_output
    assert output is not None
    assert output["token_usage"]["prompt_tokens"] == llm.get_num_tokens(PROMPTS[0])
    assert output["token_usage"]["completion_tokens"] == 3 * NEW


def test_conversation_reuses_tokens_that_the_servers_have_seen(llm: Petals, expected: dict[str, str]) -> None:
    first = llm.generate(PROMPTS[:1])
    again = llm.generate([f"{PROMPTS[0]}{first.generations[0][0].text}\nHuman: And?\nAI:"])
    assert first.llm_output is not None
    assert again.llm_output is not None
    before = first.llm_output["token_usage"]
    assert again.llm_output["token_usage"]["cached_tokens"] == before["prompt_tokens"] + NEW - 1


@pytest.mark.parametrize(("stop", "reason"), [(None, "length"), (2, "stop")])
def test_finish_reason_is_in_the_info(
    petals_llm: Callable[..., Petals], expected: dict[str, str], stop: int | None, reason: str
) -> None:
    llm = petals_llm(session_cache=0, speculation=False)
    stops = None if stop is None else [expected[PROMPTS[0]][stop : stop + 2]]
    [[answer]] = llm.generate(PROMPTS[:1], stop=stops).generations
    assert answer.generation_info is not None
    assert answer.generation_info["finish_reason"] == reason
    listener = Listener()
    list(llm.stream(PROMPTS[0], stop=stops, config={"callbacks": [listener]}))
    assert listener.results[0].generations[0][0].generation_info == answer.generation_info


def test_logprobs_are_in_generation_info(petals_llm: Callable[..., Petals], expected: dict[str, str]) -> None:
    [[answer]] = (
        petals_llm(model_kwargs={"min_new_tokens": NEW, "logprobs": True, "top_logprobs": 2})
        .generate(PROMPTS[:1])
        .generations
    )
    assert answer.generation_info is not None
    content = answer.generation_info["logprobs"]["content"]
    assert len(content) == NEW
    assert "".join(each["token"] for each in content) == expected[PROMPTS[0]]
    assert all(each["top_logprobs"][0] == {"token": each["token"], "logprob": each["logprob"]} for each in content)
    listener = Listener()
    list(petals_llm().bind(logprobs=True).stream(PROMPTS[0], config={"callbacks": [listener]}))
    streamed = [chunk.generation_info for chunk in listener.chunks if chunk.generation_info]
    assert [each["logprobs"]["content"][0]["token"] for each in streamed] == [each["token"] for each in content]


def test_n_answers_to_each_prompt(petals_llm: Callable[..., Petals]) -> None:
    llm = petals_llm(n=3, temperature=5.0, top_p=None, seed=7)
    result = llm.generate(PROMPTS[:2])
    assert [len(answers) for answers in result.generations] == [3, 3]
    for index, answers in enumerate(result.generations):
        assert len({each.text for each in answers}) == 3
        for row, each in enumerate(answers):
            assert petals_llm(temperature=5.0, top_p=None, seed=7 + row).invoke(PROMPTS[index]) == each.text


# ---- callbacks


def test_callbacks_get_each_token_of_a_stream(llm: Petals) -> None:
    listener = Listener()
    pieces = list(llm.stream(PROMPTS[0], config={"callbacks": [listener]}))
    assert [token for token in listener.tokens if token] == [piece for piece in pieces if piece]


def test_callbacks_get_each_token_of_an_answer(llm: Petals, expected: dict[str, str]) -> None:
    listener = Listener()
    llm.invoke(PROMPTS[0], config={"callbacks": [listener]})
    assert len(listener.tokens) > 1
    assert "".join(listener.tokens) == expected[PROMPTS[0]]


async def test_async_callbacks_get_each_token(llm: Petals, expected: dict[str, str]) -> None:
    listener, other = AsyncListener(), AsyncListener()
    await llm.ainvoke(PROMPTS[0], config={"callbacks": [listener]})
    async for _ in llm.astream(PROMPTS[0], config={"callbacks": [other]}):
        pass
    assert "".join(listener.tokens) == "".join(other.tokens) == expected[PROMPTS[0]]


def test_callbacks_hear_of_errors(petals_llm: Callable[..., Petals]) -> None:
    listener = Listener()
    with pytest.raises(SwarmUnreachableError):
        failing(petals_llm, failures=1).invoke("Hi", config={"callbacks": [listener]})
    assert [type(error) for error in listener.errors] == [SwarmUnreachableError]


# ---- streams that are not read to their end


class Gate:
    """Lets a session make one step after another, on command.

    Attributes:
        session: The session.
    """

    def __init__(self, llm: Petals) -> None:
        self._open = threading.Semaphore(0)
        self.session = ScriptedSession(
            [[*b"Hi"]], [[*b"abcdefghij"]], before_step=lambda _: self._open.acquire(timeout=30)
        )
        llm._engine = ScriptedEngine(llm.tokenizer, lambda _: self.session)

    def let(self, steps: int) -> None:
        self._open.release(steps)


def test_dropped_stream_stops_within_a_step(petals_llm: Callable[..., Petals]) -> None:
    llm = petals_llm(session_cache=0, max_new_tokens=10)
    gate = Gate(llm)
    stream = llm.stream("Hi")
    gate.let(2)
    assert [next(stream), next(stream)] == ["a", "b"]
    del stream
    gate.let(8)
    assert gate.session.closed.wait(30)
    assert len(gate.session.steps) <= 3


@pytest.mark.parametrize("how", ["break", "aclose", "cancel"])
async def test_dropped_async_stream_stops_within_a_step(petals_llm: Callable[..., Petals], how: str) -> None:
    llm = petals_llm(session_cache=0, max_new_tokens=10)
    gate = Gate(llm)

    async def read() -> None:
        read_two = 0
        async for _ in llm.astream("Hi"):
            read_two += 1
            if read_two == 2 and how == "break":
                break
            if read_two == 2 and how == "cancel":
                two_are_read.set()

    two_are_read = asyncio.Event()
    gate.let(2)
    if how == "aclose":
        stream = llm.astream("Hi")
        assert [await anext(stream), await anext(stream)] == ["a", "b"]
        await stream.aclose()  # type: ignore[attr-defined]
    elif how == "break":
        await read()
    else:
        task = asyncio.create_task(read())
        await two_are_read.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.get_running_loop().shutdown_asyncgens()
    gate.let(8)
    assert await asyncio.to_thread(gate.session.closed.wait, 30)
    assert len(gate.session.steps) <= 3


def test_a_call_ends_after_its_timeout(petals_llm: Callable[..., Petals], monkeypatch: pytest.MonkeyPatch) -> None:
    llm = petals_llm(session_cache=0, max_new_tokens=10, timeout=1000)
    gate = Gate(llm)
    stream = llm.stream("Hi")
    gate.let(2)
    assert [next(stream), next(stream)] == ["a", "b"]
    monkeypatch.setattr(Generation, "_remaining", lambda _: 0.0)
    with pytest.raises(DeadlineExceededError, match="after 2 generated"):
        next(stream)
    gate.let(8)
    assert gate.session.closed.wait(30)
    assert len(gate.session.steps) <= 3


@pytest.mark.parametrize("where", ["constructor", "call"])
def test_stream_of_several_answers_is_refused(petals_llm: Callable[..., Petals], where: str) -> None:
    llm = petals_llm(n=2) if where == "constructor" else petals_llm().bind(n=2)
    with pytest.raises(InvalidRequestError, match=r"n is 2; set n=1, or use invoke, generate or batch"):
        next(llm.stream("Hi"))


# ---- the class that it replaces


@pytest.fixture
def community() -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that package is being sunset, and says so
        from langchain_community.llms import Petals as CommunityPetals  # noqa: PLC0415

        yield CommunityPetals


def test_fields_and_defaults_are_those_of_the_class_that_it_replaces(community: Any) -> None:
    for name, theirs in community.model_fields.items():
        ours = Petals.model_fields[name]
        if name not in {"callbacks", "huggingface_api_key"}:
            assert (name, ours.get_default(call_default_factory=True)) == (
                name,
                theirs.get_default(call_default_factory=True),
            )


def test_the_type_is_that_of_the_class_that_it_replaces(community: Any) -> None:
    assert Petals()._llm_type == community.model_construct()._llm_type
    assert set(community.model_construct()._identifying_params) <= set(Petals()._identifying_params)


# ---- caches


def test_cached_answer_is_not_generated_again(petals_llm: Callable[..., Petals]) -> None:
    llm = petals_llm(cache=InMemoryCache(), max_new_tokens=2)
    engine = ScriptedEngine(llm.tokenizer, lambda rows: ScriptedSession([[*b"Hi"]] * rows, [[*b"yo"]] * rows))
    llm._engine = engine
    assert [llm.invoke("Hi"), llm.invoke("Hi"), llm.invoke("Hi", stop=["o"])] == ["yo", "yo", "y"]
    assert len(engine.opened) == 2


async def test_cached_answer_is_for_calls_with_the_same_options(petals_llm: Callable[..., Petals]) -> None:
    llm = petals_llm(cache=InMemoryCache(), max_new_tokens=2)
    assert len(llm.invoke("Hi", regex="a{3}", max_tokens=9)) == 3
    assert len(await llm.ainvoke("Hi", regex="a{4}", max_tokens=9)) == 4
    assert llm.invoke("Hi") != llm.invoke("Hi", regex="a{3}", max_tokens=9) == "aaa"


def test_cache_key_has_all_that_an_answer_depends_on_and_no_secret() -> None:
    def key(**fields: Any) -> str:
        return str(Petals(**fields).asdict())

    with_secret = key(huggingface_api_key="hf_secret")
    assert "hf_secret" not in with_secret
    assert key() == with_secret
    others = [{"seed": 1}, {"model": "x"}, {"stop": ["x"]}, {"model_kwargs": {"min_p": 0.1}}, {"revision": "x"}]
    assert len({key(), *(key(**fields) for fields in others)}) == len(others) + 1
