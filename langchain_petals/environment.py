"""The environment variables that say which model is used, and on which swarm.

They are defaults of the arguments `model`, `initial_peers` and `dht_prefix`, so that a program needs no change between
swarms. `langchain-petals swarm` prints them for the swarm that it has started.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from langchain_petals.addresses import check_initial_peers, check_prefix

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MODEL_VARIABLE = "LANGCHAIN_PETALS_MODEL"
"""Folder or hub name of the model."""

PEERS_VARIABLE = "LANGCHAIN_PETALS_INITIAL_PEERS"
"""Multiaddresses of peers of the swarm, separated by commas or white space."""

PREFIX_VARIABLE = "LANGCHAIN_PETALS_DHT_PREFIX"
"""Name under which that model's blocks are announced on that swarm."""

VARIABLES = {"model": MODEL_VARIABLE, "initial_peers": PEERS_VARIABLE, "dht_prefix": PREFIX_VARIABLE}
"""Arguments and the variables that are their defaults."""


def connection_from_environment(
    model: str | None = None, initial_peers: Sequence[str] | None = None, dht_prefix: str | None = None
) -> dict[str, Any]:
    """Return a connection's arguments; those that are not given come from the environment.

    - An argument that is given wins. An empty variable counts as none.
    - The peers of the environment are used for every model: what a program sends must not go to the public swarm
      because it names another model than the environment does. `initial_peers=[]` stands for the public swarm.
    - The prefix of the environment belongs to one model on one swarm. So it is left out if `initial_peers` are
      given, or a `model` other than the environment's.

    Args:
        model: Folder or hub name.
        initial_peers: Multiaddresses.
        dht_prefix: Name under which the model's blocks are announced.

    Returns:
        `model`, `initial_peers` and `dht_prefix`; None where neither the caller nor the environment says anything.

    Raises:
        InvalidRequestError: A variable that is used holds something impossible; the message names the variable.
    """
    own = _value(MODEL_VARIABLE)
    if dht_prefix is None and initial_peers is None and model in {None, own or model}:
        dht_prefix = _value(PREFIX_VARIABLE)
        if dht_prefix is not None:
            check_prefix(dht_prefix, named=PREFIX_VARIABLE)
    if initial_peers is None:
        addresses = re.split(r"[,\s]+", _value(PEERS_VARIABLE) or "")
        initial_peers = check_initial_peers([each for each in addresses if each], named=PEERS_VARIABLE) or None
    return {
        "model": own if model is None else model,
        "initial_peers": None if initial_peers is None else list(initial_peers),
        "dht_prefix": dht_prefix,
    }


def variables_of(connection: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that stand for a connection, such as `LocalSwarm.connection`, by their names."""
    return {
        VARIABLES[name]: value if isinstance(value, str) else ",".join(value)
        for name, value in connection.items()
        if value is not None
    }


def _value(variable: str) -> str | None:
    return os.environ.get(variable, "").strip() or None
