"""The constructor arguments that locate a model: its files, its swarm and its device in this process."""

from __future__ import annotations

import warnings
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator, model_validator

from langchain_petals.addresses import check_adapter, check_initial_peers, check_peer_id, check_prefix
from langchain_petals.configuration.constructor import ArgumentChecks
from langchain_petals.environment import MODEL_VARIABLE, connection_from_environment
from langchain_petals.errors import InvalidRequestError
from langchain_petals.hub import KEY_FIELD, checked_key, key_from_environment

if TYPE_CHECKING:
    from typing_extensions import Self

    from langchain_petals.engine import Connection


class ConnectionParameters(ArgumentChecks):
    """The arguments of one connection; objects with equal arguments share a loaded model.

    No repr, dump or pickle shows the key. Copies keep it, and an unpickled object takes it from the environment.

    Environment variables are the defaults of `model_name`, `initial_peers` and `dht_prefix`; see
    `langchain_petals.environment`. They are read when an object is made. `langchain_core.load.dumps` leaves out what
    comes from them, as it leaves out other defaults. A pickle has it.
    """

    huggingface_api_key: SecretStr | None = Field(default_factory=key_from_environment)
    """Key for gated or private models on the hub.

    `api_key` is another name for it. None takes the key from HUGGINGFACE_API_KEY, HF_TOKEN or HUGGINGFACEHUB_API_TOKEN,
    or else the one that the login of huggingface_hub has stored."""

    model_name: str = Field(default="bigscience/bloom-petals", alias="model")
    """Folder or hub name of the model; by default the one that LANGCHAIN_PETALS_MODEL names."""

    initial_peers: Annotated[list[str], AfterValidator(check_initial_peers)] | None = None
    """Multiaddresses of peers through which to join a private swarm; [] joins the public one.

    None takes them from LANGCHAIN_PETALS_INITIAL_PEERS; if that is not set, it joins the public swarm."""

    dht_prefix: Annotated[str, AfterValidator(check_prefix)] | None = None
    """Name under which the swarm announces the model's blocks, where it is not the usual one: for a folder its name.

    None takes it from LANGCHAIN_PETALS_DHT_PREFIX, if neither other peers nor another model than there are given."""

    allowed_servers: list[str] | None = None
    """Peer ids of the only servers to use."""

    blocked_servers: list[str] | None = None
    """Peer ids of servers not to use."""

    active_adapter: Annotated[str, AfterValidator(check_adapter)] | None = None
    """Hub name of a LoRA adapter that the servers hold and apply."""

    torch_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Data type of embeddings and output layer in this process; "auto" is the checkpoint's."""

    device: str = "cpu"
    """Torch device of embeddings and output layer in this process."""

    revision: str | None = None
    """Commit, branch or tag on the hub."""

    cache_dir: str | None = None
    """Folder for files from the hub."""

    local_files_only: bool = False
    """Read the model's files from `cache_dir`, and send no request to the hub."""

    trust_remote_code: bool = False
    """Has no effect, and True causes a warning: no code of a model's repository is ever run in this process."""

    @field_validator(KEY_FIELD)
    @classmethod
    def _check_key(cls, key: SecretStr | None) -> SecretStr | None:
        return key_from_environment() if key is None else checked_key(key)

    @field_validator("trust_remote_code")
    @classmethod
    def _check_trust(cls, trust: bool) -> bool:  # noqa: FBT001 - pydantic passes it by position
        if trust:
            msg = (
                "trust_remote_code=True has no effect: no code of a model's repository is run. Leave it out. Models "
                "that need code of their own are not supported."
            )
            warnings.warn(msg, stacklevel=2)
        return trust

    @model_validator(mode="after")
    def _complete_from_environment(self) -> Self:
        if getattr(self, "client", None) is None:  # else that is the model, and knows its swarm
            model = self.model_name if "model_name" in self.model_fields_set else None
            found = connection_from_environment(model, self.initial_peers, self.dht_prefix)
            found["model_name"] = found.pop("model") or self.model_name
            self.__dict__.update(found)  # unlike an assignment, it does not make them arguments that were given
        if not self.model_name:
            msg = f"model is missing; give a folder or a hub name, or set {MODEL_VARIABLE}"
            raise InvalidRequestError(msg)
        return self

    @property
    def lc_secrets(self) -> dict[str, str]:
        """Fields for which LangChain's serialization writes the name of an environment variable."""
        return {KEY_FIELD: "HF_TOKEN"}

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        return state | {"__dict__": state["__dict__"] | {KEY_FIELD: None}}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self.__dict__[KEY_FIELD] = key_from_environment()

    @field_validator("allowed_servers", "blocked_servers")
    @classmethod
    def _check_servers(cls, peer_ids: list[str] | None, info: ValidationInfo) -> list[str] | None:
        return peer_ids if peer_ids is None else [check_peer_id(str(info.field_name), peer_id) for peer_id in peer_ids]

    def _connection(self) -> Connection:
        from langchain_petals.engine import Connection  # noqa: PLC0415 - loads torch

        names = {field.name for field in fields(Connection)} & type(self).model_fields.keys()
        given: dict[str, Any] = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
        return Connection(model=self.model_name, key=self.huggingface_api_key, **given)
