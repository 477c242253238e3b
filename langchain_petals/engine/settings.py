"""How the engine works: batching, sessions, time limits and retries."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """How the engine runs a `Request`; made from `PetalsParameters`, and equal for all calls of an object.

    Requests with equal settings may share a session.

    Attributes:
        max_batch_size: Most rows of one session.
        batch_window: Milliseconds to wait for further requests after each one.
        prefill_chunk_tokens: Most tokens (rows times length) of one step; a longer prompt needs several steps.
        session_cache: Most idle sessions to keep, for prompts that continue them; 0 keeps none.
        session_cache_tokens: Most tokens that all idle sessions together may reserve on each server.
        session_idle_timeout: Seconds after which an idle session is closed. Servers close one after 300.
        connect_timeout: Seconds to connect to a server, and to get the routes from the DHT.
        step_timeout: Seconds for a step on one server; see `step_bound`.
        seconds_per_token: Seconds added for each token of a step.
        max_retries: Further attempts after a failed step; the count starts again after each step that worked.
        longest_pause: Longest pause between two attempts, in seconds; the first retry comes at once.
        speculation: Whether to guess the next tokens and let one step check them, where all servers can roll back.
        runs_ahead: Whether to take tokens without a step where a grammar allows no other. Tokens are the same without;
            the loop then makes a step for each of them, as tests and benchmarks compare.
    """

    max_batch_size: int = 32
    batch_window: float = 1.0
    prefill_chunk_tokens: int = 1024
    session_cache: int = 4
    session_cache_tokens: int = 8192
    session_idle_timeout: float = 240.0
    connect_timeout: float = 10.0
    step_timeout: float = 30.0
    seconds_per_token: float = 0.05
    max_retries: int = 3
    longest_pause: float = 8.0
    speculation: bool = True
    runs_ahead: bool = True

    def step_bound(self, tokens: int) -> float:
        """Return how many seconds a step of some tokens (rows times length) may take on one server."""
        return self.step_timeout + self.seconds_per_token * tokens

    def pause(self, failures: int) -> float:
        """Return the seconds to wait after some failures in a row: 0 after the first one, then 0.5, 1, 2, ..."""
        return 0.0 if failures <= 1 else min(0.25 * 2.0 ** (failures - 1), self.longest_pause)
