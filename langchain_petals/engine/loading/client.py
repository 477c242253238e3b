"""A model's part in this process, and the sessions that it opens on its swarm."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from langchain_petals import hub, petals_compat
from langchain_petals.addresses import default_prefix
from langchain_petals.engine.causal_model import is_distributed
from langchain_petals.engine.network import Routes
from langchain_petals.engine.sessions import LocalSession, SwarmSession
from langchain_petals.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from langchain_petals.engine.causal_model import CausalModel
    from langchain_petals.engine.loading.connection import Connection
    from langchain_petals.engine.sessions import Session
    from langchain_petals.engine.settings import Settings
    from langchain_petals.tokenizer import Tokenizer

logger = logging.getLogger(__name__)


# A session that may be kept reserves `_HEADROOM` times the tokens of its first request, rounded up to a multiple of
# `_RESERVATION_UNIT`: each turn of a conversation adds about one question and one answer.
_HEADROOM, _RESERVATION_UNIT = 2, 256


class Client:
    """Petals' distributed model, or a plain one, and its tokenizer; opens sessions for its `Engine`, which owns it."""

    def __init__(self, model: CausalModel, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer
        self._swarm = (model, Routes(model)) if is_distributed(model) else None
        self._cache_limit: int | None = None

    def encode(self, text: str) -> list[int]:
        """Return the text's token ids, with the special tokens that the tokenizer puts in front of a prompt."""
        return self.tokenizer(text, verbose=False)["input_ids"]  # its length is checked later, with an error

    @property
    def family(self) -> str | None:
        """`model_type` of the model's config; None if it has none."""
        return getattr(self.model.config, "model_type", None)

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """Ids that end a generation, from the first that has them: generation config, config, tokenizer."""
        for source in (getattr(self.model, "generation_config", None), self.model.config, self.tokenizer):
            found = getattr(source, "eos_token_id", None)
            if found is not None:
                return (found,) if isinstance(found, int) else tuple(found)
        return ()

    @property
    def context_length(self) -> int | None:
        """Most tokens of a row, by the config's and the servers' limits; None for no limit (BLOOM, Falcon)."""
        limits = (getattr(self.model.config, "max_position_embeddings", None), self._cache_limit)
        return min((limit for limit in limits if limit), default=None)

    @property
    def can_search_beams(self) -> bool:
        """Whether `generate` can reorder rows; petals 2.3.0.dev2 raises NotImplementedError."""
        return self._swarm is None or not self._swarm[1].can_roll_back

    def learn_limit(self, limit: int) -> None:
        """Remember how many tokens the servers' attention caches hold for one session."""
        self._cache_limit = limit

    def open_session(self, rows: int, needed: int, settings: Settings, make_room: Callable[[], object]) -> Session:
        """Return a fresh session for rows of at most `needed` tokens; see `SwarmSession`.

        If idle sessions are kept, a session of one row reserves more than `needed` tokens.
        """
        if self._swarm is None:
            return LocalSession(self.model)
        max_length = needed
        if rows == 1 and settings.session_cache:
            roomy = -(-_HEADROOM * needed // _RESERVATION_UNIT) * _RESERVATION_UNIT
            max_length = max(needed, min(roomy, self.context_length or roomy, settings.session_cache_tokens))
        model, routes = self._swarm
        return SwarmSession(model, routes, needed=needed, max_length=max_length, settings=settings, make_room=make_room)

    def shut_down(self) -> None:
        """Leave the swarm."""
        if self._swarm is not None:
            petals_compat.shut_down(self.model)


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # no such device, or torch was built without support for it
        msg = f"device={device!r} cannot be used: {str(error).splitlines()[0]}"
        raise InvalidRequestError(msg) from None


def load_client(connection: Connection) -> Client:
    """Return a model's part in this process, connected to its swarm.

    Raises:
        InvalidRequestError: The device does not exist.
        PetalsNotInstalledError: Petals is missing, or does not fit the installed packages.
        ModelLoadError: The files could not be read; the subclass tells why.
        UnsupportedModelError: Petals has no code for the model's family.
        SwarmUnreachableError: No initial peer could be reached.
    """
    _check_device(connection.device)
    petals_compat.load_petals()
    from transformers import AutoConfig, AutoTokenizer  # noqa: PLC0415 - load_petals checks its version first

    logger.info("Loading the client part of %s", connection.model)
    name = petals_compat.original_repository(connection.model)
    repository = hub.Repository(
        name,
        revision=connection.revision or petals_compat.default_revision(name),
        cache_dir=connection.cache_dir,
        local_files_only=connection.local_files_only,
        trust_remote_code=connection.trust_remote_code,
        key=connection.key,
    ).located()
    petals_compat.check_family(name, repository.read(AutoConfig.from_pretrained))
    with petals_compat.only_errors_from("transformers.tokenization_utils_base"):  # its warnings are for fine-tuning
        tokenizer = repository.read(AutoTokenizer.from_pretrained)
    options: dict[str, Any] = {
        # transformers 4.34 takes a torch.dtype and "auto", but no other name
        "torch_dtype": getattr(torch, connection.torch_dtype, connection.torch_dtype),
        "initial_peers": list(connection.initial_peers),
        "dht_prefix": connection.dht_prefix or (default_prefix(name) if Path(name).is_dir() else None),
        "allowed_servers": list(connection.allowed_servers),
        "blocked_servers": list(connection.blocked_servers),
        "active_adapter": connection.active_adapter,
    }
    options = {key: value for key, value in options.items() if value}
    # the engine itself retries, bounds its waits and logs its routes
    options |= {"max_retries": 1, "show_route": False}
    model = repository.read(petals_compat.load_distributed_model, **repository.weights_format(), **options)
    return Client(model.to(connection.device), tokenizer)
