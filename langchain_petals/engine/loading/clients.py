"""What an engine runs on: a model on a swarm, or a plain transformers model in this process."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

from langchain_petals.engine.sessions import LocalSession, SwarmSession
from langchain_petals.engine.step_costs import StepCosts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from langchain_petals.engine.causal_model import CausalModel
    from langchain_petals.engine.model_parts import ModelParts
    from langchain_petals.engine.network import Routes
    from langchain_petals.engine.sessions import Session
    from langchain_petals.engine.settings import Settings
    from langchain_petals.tokenizer import Tokenizer

# A session that will be kept reserves a multiple of what its first request needs, in units of some tokens: a
# conversation grows by about one question and answer a turn.
_HEADROOM, _RESERVATION_UNIT = 2, 256


class Client(Protocol):
    """A model and its tokenizer, and what opens sessions for its `Engine`, which owns it."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""

    @property
    def step_costs(self) -> StepCosts:
        """Measures the steps of its sessions."""

    @property
    def family(self) -> str | None:
        """`model_type` of the model's config; None if it has none."""

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """Ids that end a generation."""

    @property
    def generation_config(self) -> Mapping[str, Any]:
        """What the model's generation_config.json holds; it comes from a stranger, and nothing of it is checked."""

    @property
    def context_length(self) -> int | None:
        """Most tokens of a row, by the model's config; None for no limit (BLOOM, Falcon)."""

    @property
    def vocabulary_size(self) -> int | None:
        """Number of the model's logits; None if it is not known."""

    @property
    def is_open(self) -> bool:
        """Whether sessions can be opened: its swarm has not been left."""

    def encode(self, text: str) -> list[int]:
        """Return the text's token ids, with the special tokens that the tokenizer puts in front of a prompt."""

    def open_session(self, rows: int, needed: int, settings: Settings, make_room: Callable[[], bool]) -> Session:
        """Return a fresh session.

        Args:
            rows: Rows of the session.
            needed: Most tokens that each row will have.
            settings: Bounds of its waits. If idle sessions are kept, a session of one row reserves more than `needed`.
            make_room: Closes idle sessions, or waits until another session ends; called when a server's attention cache
                is full. Returns whether there was one.
        """

    @property
    def room(self) -> float:
        """Tokens of attention cache that are free on each server that is used; infinite where that is not known."""

    def reservation(self, settings: Settings, rows: int, needed: int) -> int:
        """Return the tokens of attention cache that such a session takes on each server; see `open_session`."""

    def rejoined(self) -> Client:
        """Return a client of the same model with a connection of its own, for a swarm that was left, or after a fork.

        Raises:
            SwarmUnreachableError: The swarm could not be joined.
        """

    def shut_down(self) -> None:
        """Leave the swarm; may be called twice."""


class SwarmClient:
    """A model whose blocks are on a swarm.

    Args:
        parts: What of the model runs in this process.
        tokenizer: Its tokenizer.
        join: Joins the swarm; returns the model's routes there, and what leaves the swarm.
        generation_config: What generation_config.json holds.

    Raises:
        SwarmUnreachableError: The swarm could not be joined.
    """

    def __init__(
        self,
        parts: ModelParts,
        tokenizer: Tokenizer,
        join: Callable[[], tuple[Routes, Callable[[], object]]],
        generation_config: Mapping[str, Any],
    ) -> None:
        self.parts, self.tokenizer = parts, tokenizer
        self._join, self.generation_config = join, generation_config
        self.routes, self._leave = join()
        self.step_costs = StepCosts(lambda: self.routes.latency)
        self._is_left = False

    def rejoined(self) -> SwarmClient:
        """Return a client of the same model that has joined the swarm anew; nothing is read again.

        Raises:
            SwarmUnreachableError: The swarm could not be joined.
        """
        return SwarmClient(self.parts, self.tokenizer, self._join, self.generation_config)

    @property
    def family(self) -> str | None:
        """`model_type` of the model's config."""
        kind: str = self.parts.config["model_type"]
        return kind

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """Ids that end a generation; of the generation config, the config or the tokenizer, the first that has any."""
        own = {"eos_token_id": self.tokenizer.eos_token_id}
        return _end_tokens(source.get("eos_token_id") for source in (self.generation_config, self.parts.config, own))

    @property
    def context_length(self) -> int | None:
        """Most tokens of a row, by the model's config."""
        return _whole(self.parts.config.get("max_position_embeddings"))

    @property
    def vocabulary_size(self) -> int:
        """Number of the model's logits."""
        return self.parts.vocabulary_size

    @property
    def is_open(self) -> bool:
        """Whether neither it nor its swarm has been left."""
        return not self._is_left and self.routes.is_open

    def encode(self, text: str) -> list[int]:
        """Return the text's token ids; see `Client.encode`."""
        return self.tokenizer(text, verbose=False)["input_ids"]  # its length is checked later, with an error

    def open_session(self, rows: int, needed: int, settings: Settings, make_room: Callable[[], bool]) -> Session:
        """Return a fresh session; see `Client.open_session`."""
        return SwarmSession(
            self.parts,
            self.routes,
            needed=needed,
            max_length=self._max_length(settings, rows, needed),
            settings=settings,
            make_room=make_room,
            step_costs=self.step_costs,
        )

    def _max_length(self, settings: Settings, rows: int, needed: int) -> int:
        if rows > 1 or not settings.session_cache:
            return needed
        roomy = -(-_HEADROOM * needed // _RESERVATION_UNIT) * _RESERVATION_UNIT
        return max(needed, min(roomy, self.context_length or roomy, settings.session_cache_tokens))

    @property
    def room(self) -> float:
        """Tokens of attention cache that are free on each server of the latest chain; infinite where not announced."""
        return self.routes.room

    def reservation(self, settings: Settings, rows: int, needed: int) -> int:
        """Return the tokens of attention cache that a session takes on each server; see `Client.reservation`."""
        return rows * self._max_length(settings, rows, needed)

    def shut_down(self) -> None:
        """Leave the swarm; may be called twice."""
        if not self._is_left:
            self._is_left = True
            self.routes.close()
            self._leave()


class LocalClient:
    """A plain transformers model in this process.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
    """

    is_open = True
    room = math.inf

    def __init__(self, model: CausalModel, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.step_costs = StepCosts(lambda: 0.0)  # there is no way to a server

    @property
    def family(self) -> str | None:
        """`model_type` of the model's config; None if it has none."""
        return getattr(self.model.config, "model_type", None)

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """Ids that end a generation; of the generation config, the config or the tokenizer, the first that has any."""
        sources = (getattr(self.model, "generation_config", None), self.model.config, self.tokenizer)
        return _end_tokens(getattr(source, "eos_token_id", None) for source in sources)

    @property
    def generation_config(self) -> Mapping[str, Any]:
        """The model's `generation_config`; empty if it has none."""
        found = getattr(self.model, "generation_config", None)
        return {} if found is None else found.to_dict()

    @property
    def context_length(self) -> int | None:
        """Most tokens of a row, by the model's config."""
        return _whole(getattr(self.model.config, "max_position_embeddings", None))

    @property
    def vocabulary_size(self) -> int | None:
        """Number of the model's logits, by the model's config."""
        return _whole(getattr(self.model.config, "vocab_size", None))

    def encode(self, text: str) -> list[int]:
        """Return the text's token ids; see `Client.encode`."""
        return self.tokenizer(text, verbose=False)["input_ids"]

    def open_session(self, rows: int, needed: int, settings: Settings, make_room: Callable[[], bool]) -> LocalSession:  # noqa: ARG002 - there is no server
        """Return a fresh session; see `Client.open_session`."""
        return LocalSession(self.model, self.step_costs)

    def reservation(self, settings: Settings, rows: int, needed: int) -> int:  # noqa: ARG002 - all sessions are alike
        """Return the tokens of attention cache that a session takes."""
        return rows * needed

    def rejoined(self) -> LocalClient:
        """Return a client of the same model, which knows nothing of the steps of a parent process."""
        return LocalClient(self.model, self.tokenizer)

    def shut_down(self) -> None:
        """Do nothing: there is no swarm."""


def _end_tokens(candidates: Iterable[Any]) -> tuple[int, ...]:
    for found in candidates:
        if found is not None:
            return (found,) if isinstance(found, int) else tuple(found)
    return ()


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
