"""What petals' own client answers, in the servers' environment."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import petals_client

from langchain_petals.swarm.interpreter import servers_python

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_petals.swarm import LocalSwarm

_SHIMS = Path(petals_client.__file__).parents[2] / "langchain_petals" / "swarm" / "program"


def answers_of_petals(
    swarm: LocalSwarm, prefixes: Sequence[str], dtypes: Sequence[str], prompts: Sequence[list[int]], new_tokens: int
) -> dict[str, dict[str, list[list[int]]]]:
    """Return greedy tokens by the client's type and the servers' prefix.

    Args:
        swarm: Its model is the client's, too.
        prefixes: The names of servers with that model on the same swarm.
        dtypes: Names of types.
        prompts: Token ids.
        new_tokens: Number of tokens that follow each prompt.
    """
    order = {
        "model": swarm.model,
        "initial_peers": swarm.initial_peers,
        "shims": str(_SHIMS),
        "dht_prefixes": prefixes,
        "dtypes": dtypes,
        "prompts": prompts,
        "new_tokens": new_tokens,
    }
    ran = subprocess.run(
        [servers_python(), petals_client.__file__],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        start_new_session=True,
    )
    assert ran.stdout, ran.stderr
    answers: dict[str, dict[str, list[list[int]]]] = json.loads(ran.stdout.splitlines()[-1])
    return answers
