"""`submit`: the one seam between LangChain's world and the swarm's."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from langchain_petals.engine.decoding import Row, decode
from langchain_petals.engine.generation import Generation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_petals.engine.client import Client
    from langchain_petals.engine.request import Request
    from langchain_petals.engine.session import Patience

# Rows of one session are stepped together. A row whose prompt is this many tokens longer than the shortest is put into
# a session of its own, since until its prompt is fed it gets one token where it could have had them all at once.
_LENGTH_SPREAD = 32
MAX_ROWS = 32


class Engine:
    """Runs requests on one client, each group of rows in a session and on a thread of its own.

    Args:
        client: The model and its tokenizer.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def submit(self, requests: Sequence[Request], patience: Patience) -> list[Generation]:
        """Start requests that belong together; rows of similar length share a session.

        Args:
            requests: What to generate.
            patience: Bounds of all waits, and how often to try again.

        Returns:
            A handle for each request, in the same order.
        """
        generations = [Generation(request) for request in requests]
        for group in _groups(generations):
            threading.Thread(
                target=self._run, args=(group, patience), name="langchain-petals-decoding", daemon=True
            ).start()
        return generations

    def _run(self, generations: Sequence[Generation], patience: Patience) -> None:
        client = self._client
        rows: list[Row] = []
        try:
            rows += [Row(generation, client.tokenizer, client.end_tokens) for generation in generations]
            longest = max(row.longest for row in rows)
            session = client.open_session(longest, patience, lambda: all(row.done for row in rows))
            try:
                decode(session, rows)
            finally:
                session.close()
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is waited for
            for generation in generations:
                generation.put(error)


def _groups(generations: Sequence[Generation]) -> list[list[Generation]]:
    """Put generations whose prompts are of similar length together."""
    groups: list[list[Generation]] = []
    shortest = 0
    for generation in sorted(generations, key=lambda each: len(each.request.prompt_ids)):
        length = len(generation.request.prompt_ids)
        if not groups or len(groups[-1]) == MAX_ROWS or length - shortest > _LENGTH_SPREAD:
            groups.append([])
            shortest = length
        groups[-1].append(generation)
    return groups
