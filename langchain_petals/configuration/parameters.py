"""The fields that the language model and the chat model share: where the model is, and how it generates."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.runnables.config import get_config_list
from pydantic import Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from langchain_petals.addresses import check_adapter, check_initial_peer, check_peer_id, check_prefix
from langchain_petals.calls import short_traceback
from langchain_petals.configuration.argument_errors import unknown
from langchain_petals.configuration.cache_key import identity_of_answers
from langchain_petals.configuration.constructor import ArgumentChecks
from langchain_petals.configuration.options import (
    CONSTRAINT_OPTIONS,
    DEFAULT_MAX_NEW_TOKENS,
    LONGEST_WAIT,
    NAMES,
    OPTION_NAMES,
    OTHER_NAMES,
    GenerationOptions,
    Seconds,
    resolve_options,
    stop_sequences,
)
from langchain_petals.engine import Request, Settings
from langchain_petals.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from langchain_core.language_models import LangSmithParams
    from langchain_core.load.serializable import SerializedConstructor, SerializedNotImplemented
    from langchain_core.runnables import RunnableConfig
    from typing_extensions import Self

    from langchain_petals.engine import Connection, Engine, Generation  # noqa: TC004 - see `_engine`


class PetalsParameters(ArgumentChecks):
    """Connection and generation fields, and the way from them to the engine."""

    model_name: str = Field(default="bigscience/bloom-petals", alias="model")
    """Folder or hub name of the model."""

    temperature: float = 0.7
    """Divides the logits before sampling; 0 is greedy."""

    max_new_tokens: int = Field(default=DEFAULT_MAX_NEW_TOKENS, alias="max_tokens")
    """Most tokens of an answer."""

    top_p: float | None = 0.9
    """Sample from the fewest tokens whose probabilities add up to this."""

    top_k: int | None = None
    """Sample from this many of the likeliest tokens; None or 0 from all."""

    do_sample: bool = True
    """Sample; False is greedy."""

    max_length: int | None = None
    """Most tokens of prompt and answer together; instead of `max_new_tokens`."""

    repetition_penalty: float | None = None
    """Above 1 makes tokens that occurred less likely."""

    stop: list[str] | None = None
    """Strings that end an answer; they are not part of it. Those given with a call replace these."""

    seed: int | None = None
    """Makes sampling repeatable; answer i of `n` uses `seed + i`."""

    n: int = 1
    """Answers per prompt."""

    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further generation options by name: `min_p`, `typical_p`, `no_repeat_ngram_size`, `bad_words_ids`, ..."""

    initial_peers: list[str] | None = None
    """Multiaddresses of peers through which to join a private swarm; None joins the public one."""

    dht_prefix: str | None = None
    """Name under which the swarm announces the model's blocks; needed when `model_name` is a folder."""

    allowed_servers: list[str] | None = None
    """Peer ids of the only servers to use."""

    blocked_servers: list[str] | None = None
    """Peer ids of servers not to use."""

    active_adapter: str | None = None
    """Hub name of a LoRA adapter that the servers hold and shall apply."""

    torch_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of embeddings and head in this process; "auto" is the checkpoint's."""

    device: str = "cpu"
    """Where embeddings and head live in this process."""

    revision: str | None = None
    """Commit, branch or tag on the hub."""

    cache_dir: str | None = None
    """Folder for files from the hub."""

    local_files_only: bool = False
    """Read the files of the model from `cache_dir`, and do not ask the hub."""

    trust_remote_code: bool = False
    """Let code that comes with the model run in this process; read it before."""

    timeout: Seconds | None = None
    """Seconds that an answer may take, loading the model not counted; None for no limit."""

    max_retries: int = Field(default=3, ge=0)
    """Further attempts when a server fails, before giving up; counted anew after each step that worked."""

    connect_timeout: Seconds = 10
    """Seconds to open a connection to a server, and to learn which servers there are."""

    step_timeout: Seconds = 30
    """Seconds for a step of one token on one server; a step of many tokens gets 0.05 s more for each."""

    max_batch_size: int = Field(default=32, ge=1)
    """Most answers that are generated together in one session on the servers."""

    batch_window: float = Field(default=1, ge=0, le=LONGEST_WAIT, allow_inf_nan=False)
    """Milliseconds to wait for further requests that could run together with one."""

    prefill_chunk_tokens: int = Field(default=1024, ge=1, lt=2**63)
    """Most tokens (answers times length) of one step; longer prompts are sent in several."""

    on_prefill: Callable[[int, int], Any] | None = Field(default=None, exclude=True, repr=False)
    """Called with tokens sent and tokens in all after each step that sent a part of a prompt; on another thread."""

    session_cache: int = Field(default=4, ge=0)
    """Idle sessions to keep on the servers for prompts that go on where they ended; 0 keeps none."""

    session_cache_tokens: int = Field(default=8192, ge=0)
    """Most tokens of attention cache that idle sessions may reserve on each server."""

    session_idle_timeout: Seconds = 240
    """Seconds after which an idle session is closed."""

    preload: bool = False
    """Load model and tokenizer in the constructor instead of on first use."""

    client: Any = Field(default=None, exclude=True, repr=False)
    """A loaded model to use: petals' distributed one, or a plain transformers model in this process. Give `tokenizer`,
    too."""

    tokenizer: Any = Field(default=None, exclude=True, repr=False)
    """The loaded tokenizer of `client`."""

    _engine: Engine | None = PrivateAttr(default=None)
    _told: frozenset[str] = PrivateAttr(default=frozenset())

    def _complete(self) -> None:
        if self.preload:
            self._get_engine()

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """All that an answer depends on, and nothing else: LangChain's caches use it as their key."""
        return self._identity(None, {})

    def _identity(self, stop: Sequence[str] | None, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the answer to one call depends on, apart from its prompt.

        Raises:
            InvalidRequestError: See `resolve_options`.
        """
        return identity_of_answers(self, [self._own_options(), self.model_kwargs, kwargs, {"stop": stop}])

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Whether `langchain_core.load.dumps` can write the object down."""
        return True

    @classmethod
    def _no_option(cls, name: str) -> str:
        """Return what is wrong with the name of a call's option that there is not."""
        if name in cls._argument_names():
            return f"{name!r} is no generation option; it is given to the constructor of {cls.__name__}"
        names, rest = NAMES | cls._of_calls | cls._argument_names(), f"help({cls.__name__}) shows what there is"
        return f"{name!r} is no generation option{unknown(name, names, rest)}"

    @field_validator("stop", mode="before")
    @classmethod
    def _check_stop(cls, stop: Any) -> Any:
        return None if stop is None else stop_sequences(stop)

    @field_validator("initial_peers")
    @classmethod
    def _check_initial_peers(cls, peers: list[str] | None) -> list[str] | None:
        return peers if peers is None else [check_initial_peer(peer) for peer in peers]

    @field_validator("allowed_servers", "blocked_servers")
    @classmethod
    def _check_servers(cls, peer_ids: list[str] | None, info: ValidationInfo) -> list[str] | None:
        return peer_ids if peer_ids is None else [check_peer_id(str(info.field_name), peer_id) for peer_id in peer_ids]

    @field_validator("dht_prefix")
    @classmethod
    def _check_dht_prefix(cls, prefix: str | None) -> str | None:
        return prefix if prefix is None else check_prefix(prefix)

    @field_validator("active_adapter")
    @classmethod
    def _check_active_adapter(cls, name: str | None) -> str | None:
        return name if name is None else check_adapter(name)

    @model_validator(mode="after")
    def _check(self) -> Self:
        more = {OTHER_NAMES.get(name, name) for name, value in self.model_kwargs.items() if value is not None}
        twice = {name for name in self.model_fields_set & more if getattr(self, name) is not None}
        if twice and not self._is_copy:
            msg = f"{', '.join(sorted(twice))} given twice, as argument and in model_kwargs; give each once"
            raise InvalidRequestError(msg)
        if (self.client is None) != (self.tokenizer is None):
            msg = "client and tokenizer belong together; give both, or neither to have them loaded"
            raise InvalidRequestError(msg)
        self._tell(self._call_options(None, {}).warnings)
        return self

    @property
    def _is_copy(self) -> bool:
        """Whether all fields were given: LangChain's configurable_fields copies objects so."""
        return self.model_fields_set >= set(type(self).model_fields)

    @property
    def _given(self) -> set[str]:
        """The fields that were given, and not left at their defaults."""
        return {
            name
            for name in self.model_fields_set
            if not self._is_copy or getattr(self, name) != type(self).model_fields[name].default
        }

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy, perhaps with other values; it loads what it needs then, since that may be another model."""
        copied = super().model_copy(update=update, deep=deep)
        if update:
            copied._engine = None  # noqa: SLF001 - of this class
        return copied

    def to_json(self) -> SerializedConstructor | SerializedNotImplemented:
        """Return what `langchain_core.load.dumps` writes down: the arguments that were given, and no key.

        Defaults are left out. Among the arguments of `loads` they would count as given, and contradict others.
        """
        serialized = super().to_json()
        if serialized["type"] == "constructor":
            written = self._given | self.lc_secrets.keys()
            serialized["kwargs"] = {name: value for name, value in serialized["kwargs"].items() if name in written}
        return serialized

    def _own_options(self) -> dict[str, Any]:
        """Return the generation options among the fields."""
        own = {name: getattr(self, name) for name in OPTION_NAMES if name in type(self).model_fields}
        default = self.max_new_tokens == DEFAULT_MAX_NEW_TOKENS and self._is_copy
        if self.max_length is not None and (default or "max_new_tokens" not in self.model_fields_set):
            del own["max_new_tokens"]
        return own

    def _call_options(
        self, stop: Sequence[str] | None, kwargs: Mapping[str, Any], *, streams: bool = False
    ) -> GenerationOptions:
        """Return the options of one call.

        Args:
            stop: Stop sequences given with the call.
            kwargs: Its further options.
            streams: Whether the answer is streamed; then there can be one only.

        Raises:
            InvalidRequestError: See `resolve_options`; or several answers would have to be streamed.
        """
        options = resolve_options(
            self._own_options(), self.model_kwargs, kwargs, {"stop": stop}, name_unknown=self._no_option
        )
        if streams and options.n > 1:
            msg = f"a stream carries one answer, but n is {options.n}; set n=1, or use invoke, generate or batch"
            raise InvalidRequestError(msg)
        return options

    def _tell(self, warnings_: Iterable[str]) -> None:
        """Warn of each thing once."""
        for warning in warnings_:
            if warning not in self._told:
                self._told |= {warning}
                warnings.warn(warning, stacklevel=3)

    def _traced_options(self, stop: Sequence[str] | None, kwargs: Mapping[str, Any]) -> GenerationOptions | None:
        """Return a call's options, apart from the form of its answer; None if they are wrong: the call will say how."""
        layers = [
            {name: value for name, value in layer.items() if name in NAMES and name not in CONSTRAINT_OPTIONS}
            for layer in (self._own_options(), self.model_kwargs, kwargs, {"stop": stop})
        ]
        try:
            return resolve_options(*layers)
        except InvalidRequestError:
            return None

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        """Return what traces tell of a call: what it uses, whoever has said so."""
        params: LangSmithParams = super()._get_ls_params(**kwargs)  # type: ignore[misc]
        params["ls_provider"] = "petals"
        options = self._traced_options(stop, kwargs)
        if options is not None:
            params["ls_temperature"] = options.temperature
            for name, value in (("ls_max_tokens", options.max_new_tokens), ("ls_stop", list(options.stop) or None)):
                params.pop(name, None)  # type: ignore[misc]
                if value is not None:
                    params[name] = value  # type: ignore[literal-required]
        return params

    def _together(self, config: Any, number: int) -> list[RunnableConfig]:
        """Return the configurations of calls that run as many at a time as run together in a session.

        LangChain gives each call a thread, but no more threads than the machine has cores and a few. Here calls wait
        for one another's round trips rather than for the processor.
        """
        configs = get_config_list(config, number)
        if configs and configs[0].get("max_concurrency") is None:  # the first one's counts, as in the base class
            configs[0]["max_concurrency"] = self.max_batch_size
        return configs

    def batch_as_completed(self, inputs: Sequence[Any], config: Any = None, **kwargs: Any) -> Iterator[Any]:
        """Answer several inputs together, each as soon as it is complete; see `Runnable.batch_as_completed`."""
        together = self._together(config, len(inputs))
        answers: Iterator[Any] = super().batch_as_completed(inputs, together, **kwargs)  # type: ignore[misc]
        return answers

    @short_traceback
    def get_token_ids(self, text: str) -> list[int]:
        """Return the ids that the model's own tokenizer gives for `text`."""
        return self._get_engine().client.encode(text)

    def _token_text(self, token: int) -> str:
        text: str = self._get_engine().client.tokenizer.decode([token])
        return text

    def _settings(self) -> Settings:
        return Settings(
            **{field.name: getattr(self, field.name) for field in fields(Settings) if hasattr(self, field.name)}
        )

    def __getstate__(self) -> dict[Any, Any]:
        # what has been loaded stays in this process, and is loaded anew where the pickle is opened
        private = {name: attribute.get_default() for name, attribute in self.__private_attributes__.items()}
        return super().__getstate__() | {"__pydantic_private__": private}

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        loaded = (self.client, self.tokenizer, *(self.__pydantic_private__ or {}).values())
        shared = {id(each): each for each in loaded}
        return super().__deepcopy__((memo or {}) | shared)

    def _get_engine(self) -> Engine:
        """Return the engine over the model, loading it on first use; several objects share it."""
        if self._engine is None:
            from langchain_petals.engine import engines  # noqa: PLC0415 - loads torch

            given = self.client is not None
            self._engine = engines.over(self.client, self.tokenizer) if given else engines.connect(self._connection())
        return self._engine

    def _expecting(self) -> AbstractContextManager[None]:
        """Return what lets requests that wait for companions wait for the one that is being made."""
        return contextlib.nullcontext() if self._engine is None else self._engine.expecting()

    def _connection(self) -> Connection:
        from langchain_petals.engine import Connection  # noqa: PLC0415 - loads torch

        return Connection(
            model=self.model_name,
            initial_peers=tuple(self.initial_peers or ()),
            dht_prefix=self.dht_prefix,
            allowed_servers=tuple(self.allowed_servers or ()),
            blocked_servers=tuple(self.blocked_servers or ()),
            active_adapter=self.active_adapter,
            torch_dtype=self.torch_dtype,
            device=self.device,
            revision=self.revision,
            cache_dir=self.cache_dir,
            local_files_only=self.local_files_only,
            trust_remote_code=self.trust_remote_code,
            key=self.huggingface_api_key,
        )

    def _submit(self, prompts: Sequence[Sequence[int]], options: GenerationOptions, **extra: Any) -> list[Generation]:
        """Start `options.n` generations for each prompt, one prompt after the other; all may share a session.

        Args:
            prompts: Token ids.
            options: How to go on after them.
            extra: Further fields of the engine's `Request`.

        Raises:
            InvalidRequestError: A prompt is empty.
            PromptTooLongError: A prompt leaves no room for an answer.
        """
        engine = self._get_engine()
        if options.num_beams > 1 and not engine.client.can_search_beams:
            msg = "num_beams > 1 needs petals 2.2.0.post1: servers of 2.3.0.dev2 cannot reorder beams. Set num_beams=1."
            raise InvalidRequestError(msg)
        requests = []
        for ids in prompts:
            if not ids:
                msg = "A prompt is empty, so there is nothing to continue; give at least one character."
                raise InvalidRequestError(msg)
            budget = options.budget(len(ids), engine.client.context_length)
            requests += [
                Request(
                    ids,
                    budget,
                    options.sampling(row),
                    stop=options.stop,
                    timeout=options.timeout,
                    top_logprobs=(options.top_logprobs or 0) if options.logprobs else None,
                    num_beams=options.num_beams,
                    on_prefill=self.on_prefill,
                    **{"constraint": options.constraint} | extra,
                )
                for row in range(options.n)
            ]
        return engine.submit(requests, self._settings())
