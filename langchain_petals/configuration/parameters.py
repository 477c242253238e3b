"""The constructor arguments that `Petals` and `ChatPetals` share, and their use by the engine."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from langchain_core.runnables.config import get_config_list
from pydantic import Field, PrivateAttr, field_validator, model_validator

from langchain_petals.calls import short_traceback
from langchain_petals.configuration.argument_errors import suggestion
from langchain_petals.configuration.cache_key import identity_of_answers
from langchain_petals.configuration.connection import ConnectionParameters
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
from langchain_petals.environment import connection_from_environment
from langchain_petals.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from langchain_core.language_models import LangSmithParams
    from langchain_core.load.serializable import SerializedConstructor, SerializedNotImplemented
    from langchain_core.runnables import RunnableConfig
    from typing_extensions import Self

    from langchain_petals.engine import Engine, Generation  # noqa: TC004 - see `_engine`


class PetalsParameters(ConnectionParameters):
    """The arguments of a constructor: the connection, defaults of call options, and settings of the engine.

    Three objects are made from them. `GenerationOptions` are the options of one call, merged from fields,
    `model_kwargs` and the call's arguments. `Settings` tell the engine how to work. A `Request` becomes one row.
    """

    temperature: float = 0.7
    """Divides the logits before sampling; 0 is greedy."""

    max_new_tokens: int = Field(default=DEFAULT_MAX_NEW_TOKENS, alias="max_tokens")
    """Maximum number of tokens of an answer."""

    top_p: float | None = 0.9
    """Sample from the smallest set of the most likely tokens whose probabilities add up to this."""

    top_k: int | None = None
    """Sample from this number of most likely tokens; None or 0 means all."""

    do_sample: bool = True
    """Sample; False is greedy."""

    max_length: int | None = None
    """Maximum number of tokens of prompt and answer together; replaces `max_new_tokens`."""

    repetition_penalty: float | None = None
    """Values above 1 make tokens that occurred before less likely."""

    stop: list[str] | None = None
    """Stop sequences: they end an answer, and are not part of it. Those of a call replace these."""

    seed: int | None = None
    """Makes sampling repeatable; answer i of `n` uses `seed + i`."""

    n: int = 1
    """Answers per prompt."""

    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further generation options by name: `min_p`, `typical_p`, `no_repeat_ngram_size`, `bad_words_ids`, ..."""

    timeout: Seconds | None = None
    """Seconds that an answer may take, without loading the model; None for no limit."""

    max_retries: int = Field(default=3, ge=0)
    """Further attempts after a failed step; the count starts again after each step that worked."""

    connect_timeout: Seconds = 10
    """Seconds to connect to a server, and to look up the servers of the swarm."""

    step_timeout: Seconds = 30
    """Seconds for a step of one token on one server; a step of many tokens gets 0.05 s more for each."""

    max_batch_size: int = Field(default=32, ge=1)
    """Maximum number of rows (answers that are generated together) of one session."""

    batch_window: float = Field(default=1, ge=0, le=LONGEST_WAIT, allow_inf_nan=False)
    """Milliseconds that a request waits for others to share its session."""

    prefill_chunk_tokens: int = Field(default=1024, ge=1, lt=2**63)
    """Maximum number of tokens (rows times length) of one step; longer prompts are sent in several steps."""

    on_prefill: Callable[[int, int], Any] | None = Field(default=None, exclude=True, repr=False)
    """Called on another thread after each step of a prompt, with the tokens sent so far and their total."""

    speculation: bool = True
    """Guess the next tokens and let one step check them, where all servers can roll back; answers stay the same."""

    session_cache: int = Field(default=4, ge=0)
    """Maximum number of idle sessions to keep on the servers, for prompts that continue them; 0 keeps none."""

    session_cache_tokens: int = Field(default=8192, ge=0)
    """Maximum number of tokens of attention cache that all idle sessions together may reserve on each server."""

    session_idle_timeout: Seconds = 240
    """Seconds after which an idle session is closed."""

    preload: bool = False
    """Load model and tokenizer in the constructor instead of on first use."""

    client: Any = Field(default=None, exclude=True, repr=False)
    """A loaded model: petals' distributed one, or a transformers model in this process. It needs `tokenizer`."""

    tokenizer: Any = Field(default=None, exclude=True, repr=False)
    """The loaded tokenizer of `client`."""

    _engine: Engine | None = PrivateAttr(default=None)
    _told: frozenset[str] = PrivateAttr(default=frozenset())

    def _complete(self) -> None:
        if self.preload:
            self._get_engine()

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """The key of LangChain's caches: what an answer depends on, and nothing else."""
        return self._identity(None, {})

    def _identity(self, stop: Sequence[str] | None, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the cache key of one call without its prompt."""
        return identity_of_answers(self, [self._own_options(), self.model_kwargs, kwargs, {"stop": stop}])

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Whether `langchain_core.load.dumps` can serialize the object."""
        return True

    @classmethod
    def _unknown_option(cls, name: str) -> str:
        if name in cls._argument_names():
            return f"{name!r} is no generation option; it is given to the constructor of {cls.__name__}"
        names, rest = NAMES | cls._of_calls | cls._argument_names(), f"help({cls.__name__}) shows what there is"
        return f"{name!r} is no generation option{suggestion(name, names, rest)}"

    @field_validator("stop", mode="before")
    @classmethod
    def _check_stop(cls, stop: Any) -> Any:
        return None if stop is None else stop_sequences(stop)

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
        """Whether all fields were given, as LangChain's `configurable_fields` does when it copies an object."""
        return self.model_fields_set >= set(type(self).model_fields)

    @property
    def _given(self) -> set[str]:
        """Names of the fields that the user has given."""
        return {
            name
            for name in self.model_fields_set
            if not self._is_copy or getattr(self, name) != type(self).model_fields[name].default
        }

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy. With other values it may need another model, so it gets its engine anew on first use."""
        copied = super().model_copy(update=update, deep=deep)
        if update:
            copied._engine = None  # noqa: SLF001 - an object of this class
            if not update.keys().isdisjoint({"model_name", "initial_peers"}) and "dht_prefix" not in copied._given:  # noqa: SLF001 - as above
                copied.__dict__["dht_prefix"] = copied._prefix_for(copied.model_name)  # noqa: SLF001 - as above
        return copied

    def _prefix_for(self, model: str) -> str | None:
        """Return the prefix that the environment has for a model on this object's swarm."""
        peers = self.initial_peers if "initial_peers" in self._given else None
        return connection_from_environment(model, peers)["dht_prefix"]  # type: ignore[no-any-return]

    def to_json(self) -> SerializedConstructor | SerializedNotImplemented:
        """Return what `langchain_core.load.dumps` writes: the arguments that were given, without the key.

        Defaults are left out, since `loads` would pass them as given arguments, which could contradict others.
        """
        serialized = super().to_json()
        if serialized["type"] == "constructor":
            written = self._given | self.lc_secrets.keys()
            serialized["kwargs"] = {name: value for name, value in serialized["kwargs"].items() if name in written}
        return serialized

    def _own_options(self) -> dict[str, Any]:
        """Return the fields that are generation options."""
        own = {name: getattr(self, name) for name in OPTION_NAMES if name in type(self).model_fields}
        default = self.max_new_tokens == DEFAULT_MAX_NEW_TOKENS and self._is_copy
        if self.max_length is not None and (default or "max_new_tokens" not in self.model_fields_set):
            del own["max_new_tokens"]
        return own

    def _call_options(
        self, stop: Sequence[str] | None, kwargs: Mapping[str, Any], *, streams: bool = False
    ) -> GenerationOptions:
        """Return the options of one call, from all layers.

        Raises:
            InvalidRequestError: See `resolve_options`; or a stream is asked for several answers.
        """
        options = resolve_options(
            self._own_options(), self.model_kwargs, kwargs, {"stop": stop}, unknown_name=self._unknown_option
        )
        if streams and options.n > 1:
            msg = f"a stream carries one answer, but n is {options.n}; set n=1, or use invoke, generate or batch"
            raise InvalidRequestError(msg)
        return options

    def _tell(self, warnings_: Iterable[str]) -> None:
        """Show each warning once per object."""
        for warning in warnings_:
            if warning not in self._told:
                self._told |= {warning}
                warnings.warn(warning, stacklevel=3)

    def _traced_options(self, stop: Sequence[str] | None, kwargs: Mapping[str, Any]) -> GenerationOptions | None:
        """Return a call's options without constraints, for traces; None if they are wrong: the call reports it."""
        layers = [
            {name: value for name, value in layer.items() if name in NAMES and name not in CONSTRAINT_OPTIONS}
            for layer in (self._own_options(), self.model_kwargs, kwargs, {"stop": stop})
        ]
        try:
            return resolve_options(*layers)
        except InvalidRequestError:
            return None

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        """Return the parameters that traces show: the ones that the call uses, from all layers."""
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
        """Return configurations for a batch that runs up to `max_batch_size` calls at a time.

        LangChain runs each call on a thread, and by default limits the threads by the number of cores. Here, calls do
        not need a core each: they share round trips, and wait for these.
        """
        configs = get_config_list(config, number)
        if configs and configs[0].get("max_concurrency") is None:  # the first one counts, as in the base class
            configs[0]["max_concurrency"] = self.max_batch_size
        return configs

    def batch_as_completed(self, inputs: Sequence[Any], config: Any = None, **kwargs: Any) -> Iterator[Any]:
        """Answer inputs together, and yield each answer when it is complete; see `Runnable.batch_as_completed`."""
        together = self._together(config, len(inputs))
        answers: Iterator[Any] = super().batch_as_completed(inputs, together, **kwargs)  # type: ignore[misc]
        return answers

    @short_traceback
    def get_token_ids(self, text: str) -> list[int]:
        """Return the token ids of `text` by the model's own tokenizer."""
        return self._get_engine().client.encode(text)

    def _token_text(self, token: int) -> str:
        text: str = self._get_engine().client.tokenizer.decode([token])
        return text

    def _settings(self) -> Settings:
        return Settings(
            **{field.name: getattr(self, field.name) for field in fields(Settings) if hasattr(self, field.name)}
        )

    def __getstate__(self) -> dict[Any, Any]:
        # a loaded model stays in this process; the unpickled object loads its own
        private = {name: attribute.get_default() for name, attribute in self.__private_attributes__.items()}
        return super().__getstate__() | {"__pydantic_private__": private}

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        loaded = (self.client, self.tokenizer, *(self.__pydantic_private__ or {}).values())
        shared = {id(each): each for each in loaded}
        return super().__deepcopy__((memo or {}) | shared)

    def _get_engine(self) -> Engine:
        """Return the engine of the model, loaded on first use; objects of one connection share it.

        If its swarm was left, or this process was forked, another one takes its place.
        """
        if self._engine is None or not self._engine.is_open:
            from langchain_petals.engine import engines  # noqa: PLC0415 - loads torch

            given = self.client is not None
            self._engine = engines.over(self.client, self.tokenizer) if given else engines.connect(self._connection())
        return self._engine

    @property
    def route(self) -> list[tuple[str, range]]:
        """The servers that were chosen last, and the blocks that each of them runs, in the order of the blocks.

        Servers are named by their peer ids. The list is empty before the first call, and for a model in this process.
        """
        routes = None if self._engine is None else getattr(self._engine.client, "routes", None)
        return [] if routes is None else [(span.server.peer_id, range(span.start, span.end)) for span in routes.latest]

    def _expecting(self) -> AbstractContextManager[None]:
        """Return a context manager for the preparation of a request: other waiting requests wait for this one."""
        engine = self._engine if self._engine is not None and self._engine.is_open else None
        return contextlib.nullcontext() if engine is None else engine.expecting()

    def _submit(self, prompts: Sequence[Sequence[int]], options: GenerationOptions, **extra: Any) -> list[Generation]:
        """Start `options.n` generations for each prompt, given as token ids; `extra` holds further fields of `Request`.

        Raises:
            InvalidRequestError: A prompt is empty.
            PromptTooLongError: A prompt leaves no room for an answer.
        """
        engine = self._get_engine()
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
