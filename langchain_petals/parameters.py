"""The fields that the language model and the chat model share: where the model is, and how it generates."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from langchain_core.utils import secret_from_env
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, ValidationError, model_validator

from langchain_petals.errors import InvalidRequestError, PromptTooLongError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Self

    from langchain_petals.engine.client import Client, Connection
    from langchain_petals.engine.generation import Generation
    from langchain_petals.engine.request import Sampling

DEFAULT_MAX_NEW_TOKENS = 256
_SAME = {"max_tokens": "max_new_tokens"}  # other names of options


class GenerationOptions(BaseModel):
    """All that can be said about one generation; the sum of constructor, `model_kwargs` and call arguments."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = Field(default=0.7, ge=0)
    top_p: float | None = Field(default=0.9, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0)
    min_p: float | None = Field(default=None, gt=0, le=1)
    typical_p: float | None = Field(default=None, gt=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0)
    no_repeat_ngram_size: int = Field(default=0, ge=0)
    bad_words_ids: tuple[tuple[int, ...], ...] | None = None
    min_new_tokens: int = Field(default=0, ge=0)
    do_sample: bool = True
    max_new_tokens: int | None = Field(default=None, ge=1)
    max_length: int | None = Field(default=None, ge=1)
    n: int = Field(default=1, ge=1)
    seed: int | None = None
    stop: tuple[str, ...] = ()
    timeout: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_length is not None and self.max_new_tokens is not None:
            msg = "max_length (prompt and answer together) and max_new_tokens (the answer) are both set; set one"
            raise ValueError(msg)
        if "" in self.stop:
            msg = "a stop sequence is empty, which would end every answer before it begins; remove it"
            raise ValueError(msg)
        return self

    def sampling(self, row: int) -> Sampling:
        """Return how to choose the tokens of answer `row` (of `n`) to a prompt."""
        from langchain_petals.engine.request import Sampling  # noqa: PLC0415 - the engine is loaded on first use

        return Sampling(
            temperature=self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=self.top_k or None,
            min_p=self.min_p,
            typical_p=self.typical_p,
            repetition_penalty=self.repetition_penalty or 1.0,
            no_repeat_ngram_size=self.no_repeat_ngram_size,
            bad_words_ids=self.bad_words_ids or (),
            min_new_tokens=self.min_new_tokens,
            greedy=not self.do_sample or self.temperature == 0,
            seed=None if self.seed is None else self.seed + row,
        )

    def budget(self, prompt_tokens: int, context_length: int | None) -> int:
        """Return how many new tokens there may be after a prompt.

        Args:
            prompt_tokens: Tokens of the prompt.
            context_length: Tokens that the model can hold, None for no limit.

        Raises:
            PromptTooLongError: There is room for none.
        """
        limits = [limit for limit in (self.max_length, context_length) if limit is not None]
        room = min(limits) - prompt_tokens if limits else None
        if room is not None and room < 1:
            raise PromptTooLongError(prompt_tokens, min(limits))
        wanted = self.max_new_tokens or (room if self.max_length else DEFAULT_MAX_NEW_TOKENS)
        return min(each for each in (wanted, room) if each is not None)


_OPTION_NAMES = frozenset(GenerationOptions.model_fields)


class PetalsParameters(BaseModel):
    """Connection and generation fields, and the way from them to the engine."""

    model_config = ConfigDict(populate_by_name=True, extra="forbid", arbitrary_types_allowed=True)

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

    huggingface_api_key: SecretStr | None = Field(
        default_factory=secret_from_env(["HUGGINGFACE_API_KEY", "HF_TOKEN", "HUGGINGFACEHUB_API_TOKEN"], default=None)
    )
    """Key for gated or private models on the hub; from HUGGINGFACE_API_KEY, HF_TOKEN or HUGGINGFACEHUB_API_TOKEN."""

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

    torch_dtype: str = "auto"
    """Type of embeddings and head in this process: "auto" (the checkpoint's), "float32", "bfloat16" or "float16"."""

    device: str = "cpu"
    """Where embeddings and head live in this process."""

    revision: str | None = None
    """Commit, branch or tag on the hub."""

    cache_dir: str | None = None
    """Folder for files from the hub."""

    timeout: float | None = None
    """Seconds that an answer may take, loading the model not counted; None for no limit."""

    max_retries: int = Field(default=3, ge=0)
    """Further attempts when a server fails, before giving up."""

    preload: bool = False
    """Load model and tokenizer in the constructor instead of on first use."""

    client: Any = Field(default=None, exclude=True, repr=False)
    """A loaded model to use: petals' distributed one, or a plain transformers model in this process."""

    tokenizer: Any = Field(default=None, exclude=True, repr=False)
    """A loaded tokenizer to use."""

    _client: Client | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _collect_extra(cls, values: Any) -> Any:
        """Move unknown arguments to `model_kwargs`, with a warning."""
        if not isinstance(values, dict):
            return values
        known = set(cls.model_fields) | {field.alias for field in cls.model_fields.values()}
        model_kwargs = dict(values.get("model_kwargs") or {})
        for name in [name for name in values if name not in known]:
            if name in model_kwargs:
                msg = f"{name} is given twice, as an argument and in model_kwargs; give it once"
                raise ValueError(msg)
            warnings.warn(
                f"{name} is no field of {cls.__name__}; it was moved to model_kwargs and is checked when it is used.",
                stacklevel=3,
            )
            model_kwargs[name] = values[name]
        return {name: value for name, value in values.items() if name in known} | {"model_kwargs": model_kwargs}

    @model_validator(mode="after")
    def _check(self) -> Self:
        twice = self.model_fields_set & {_SAME.get(name, name) for name in self.model_kwargs}
        if twice and not self._is_copy:
            msg = f"{', '.join(sorted(twice))} given twice, as argument and in model_kwargs; give each once"
            raise ValueError(msg)
        self._options({name: self.model_kwargs[name] for name in self.model_kwargs if name in _OPTION_NAMES})
        if self.preload:
            self._get_client()
        return self

    @property
    def _is_copy(self) -> bool:
        """Whether all fields were given: LangChain's configurable_fields copies objects so."""
        return self.model_fields_set >= set(type(self).model_fields)

    def _options(self, *overriding: Mapping[str, Any]) -> GenerationOptions:
        """Return the fields' values, overridden by each mapping in turn.

        Raises:
            InvalidRequestError: An option is unknown, out of range or contradicts another; names it.
        """
        chosen = {name: getattr(self, name) for name in GenerationOptions.model_fields if hasattr(self, name)}
        limit_is_default = "max_new_tokens" not in self.model_fields_set or (
            self._is_copy and self.max_new_tokens == DEFAULT_MAX_NEW_TOKENS
        )
        if limit_is_default and self.max_length is not None:
            del chosen["max_new_tokens"]
        for given in overriding:
            options = {_SAME.get(name, name): value for name, value in given.items()}
            # one limit replaces the other; both at once contradict each other
            if options.get("max_length") is not None:
                chosen["max_new_tokens"] = None
            elif options.get("max_new_tokens") is not None:
                chosen["max_length"] = None
            chosen |= options
        chosen["stop"] = (chosen["stop"],) if isinstance(chosen["stop"], str) else tuple(chosen["stop"] or ())
        try:
            return GenerationOptions(**chosen)
        except ValidationError as error:
            raise InvalidRequestError("; ".join(map(_explained, error.errors()))) from None

    def _call_options(self, stop: Sequence[str] | None, kwargs: Mapping[str, Any]) -> GenerationOptions:
        """Return the options of one call."""
        return self._options(self.model_kwargs, kwargs, {} if stop is None else {"stop": stop})

    def _get_client(self) -> Client:
        """Return the model and tokenizer, loading them on first use; several objects share them."""
        if self._client is None:
            from langchain_petals.engine import client as clients  # noqa: PLC0415 - loads torch

            if self.client is None or self.tokenizer is None:
                shared = clients.get_client(self._connection())
                model, tokenizer = self.client or shared.model, self.tokenizer or shared.tokenizer
                self._client = shared if self.client is self.tokenizer is None else clients.Client(model, tokenizer)
            else:
                self._client = clients.Client(self.client, self.tokenizer)
        return self._client

    def _connection(self) -> Connection:
        from langchain_petals.engine.client import Connection  # noqa: PLC0415 - loads torch

        key = self.huggingface_api_key
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
            token=key.get_secret_value() if key else None,
        )

    def _submit(self, prompts: Sequence[str], options: GenerationOptions) -> list[Generation]:
        """Start `options.n` generations for each prompt, one prompt after the other; all may share a session.

        Raises:
            InvalidRequestError: A prompt is empty.
            PromptTooLongError: A prompt leaves no room for an answer.
        """
        from langchain_petals.engine.request import Request  # noqa: PLC0415 - loads torch
        from langchain_petals.engine.session import Patience  # noqa: PLC0415 - loads torch

        client = self._get_client()
        requests = []
        for prompt in prompts:
            ids = client.encode(prompt)
            if not prompt or not ids:
                msg = "A prompt is empty, so there is nothing to continue; give at least one character."
                raise InvalidRequestError(msg)
            budget = options.budget(len(ids), client.context_length)
            requests += [
                Request(ids, budget, options.sampling(row), stop=options.stop, timeout=options.timeout)
                for row in range(options.n)
            ]
        return client.engine.submit(requests, Patience(retries=self.max_retries))


def _explained(problem: Any) -> str:
    name = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"{name!r} is no generation option; there are {', '.join(sorted(_OPTION_NAMES | set(_SAME)))}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{name}: {message} (got {problem['input']!r})" if name else message
