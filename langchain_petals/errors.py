"""The exceptions of this package; each message says what to do.

Every error of this package is a `PetalsError`. Most also have one of LangChain's own types, so that middleware for
retries and summaries treats them like the errors of other providers. *When things fail* in the documentation names
these types, and shows what each error looks like.

    PetalsError
    |- PetalsNotInstalledError
    |- InvalidRequestError
    |  `- MissingChatTemplateError
    |- PromptTooLongError
    |- UnsupportedModelError
    |- ModelLoadError
    |  |- ModelNotFoundError
    |  |- AccessDeniedError
    |  |  `- InvalidKeyError
    |  `- HubUnreachableError
    |- SwarmError
    |  |- SwarmUnreachableError
    |  |- BlocksMissingError
    |  `- SpanFailedError
    |- DeadlineExceededError
    |- OutputLimitError
    `- LocalSwarmError
"""

from __future__ import annotations

import copyreg
import re
from typing import TYPE_CHECKING, Any

from langchain_core import exceptions as langchain

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "AccessDeniedError",
    "BlocksMissingError",
    "DeadlineExceededError",
    "HubUnreachableError",
    "InvalidKeyError",
    "InvalidRequestError",
    "LocalSwarmError",
    "MissingChatTemplateError",
    "ModelLoadError",
    "ModelNotFoundError",
    "OutputLimitError",
    "PetalsError",
    "PetalsNotInstalledError",
    "PromptTooLongError",
    "SpanFailedError",
    "SwarmError",
    "SwarmUnreachableError",
    "UnsupportedModelError",
]


# Patterns in the texts of hivemind and its p2pd, with their replacements.
_STAMP = r"(\d{4}[/-]\d\d[/-]\d\d[ T]|[A-Z][a-z]{2} +\d+ )\d\d:\d\d:\d\d([.,]\d+)?(Z|[+-]\d\d:?\d\d)? *"
_REPLACEMENTS = {
    _STAMP: "",
    r"^(p2pd |p2p )?daemon failed to start: *(None$)?|^failed to start p2pd daemon: *": "",
    r"^daemon failed to start in": "no answer within",
    r"\b(p2pd? )?daemon\b": "p2pd",
}


def reason_of(error: BaseException) -> str:
    """Return the text of an error of hivemind, a server or the network, for users.

    Time stamps are removed, since logs add their own. hivemind's daemon is called p2pd.
    """
    name, text = type(error).__name__, str(error)
    for pattern, words in _REPLACEMENTS.items():
        text = re.sub(pattern, words, text, flags=re.IGNORECASE).strip()
    return f"{name}: {text}" if "Daemon" not in name else text or "no connection"


class PetalsError(Exception):
    """Base of every error that this package raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Make errors picklable, although their constructors do not take `args`."""
        return copyreg.__newobj__, (type(self),), {"args": self.args, **vars(self)}  # type: ignore[attr-defined]


class PetalsNotInstalledError(PetalsError, ImportError):
    """Petals, which runs the servers of a `LocalSwarm`, is not installed or does not fit; a client does not need it.

    What to do: Run `langchain-petals server install`, which makes an environment for servers. If the text names an
    interpreter that you chose (`python=`, `LANGCHAIN_PETALS_SERVER_PYTHON`), correct it or leave it out.
    """


class InvalidRequestError(PetalsError, langchain.ModelInvalidRequestError, ValueError):
    """An argument is unknown, of a wrong type or out of range, or contradicts another one.

    What to do: Change the argument that the text names. For a misspelt name it suggests the nearest one. A retry
    cannot help.
    """


class MissingChatTemplateError(InvalidRequestError):
    """The model's tokenizer ships no chat template, and there is no built-in one for it.

    What to do: Name a built-in template, or give the text of one, as `chat_template`. Use `Petals` instead of
    `ChatPetals` for a model that was not trained on conversations.

    Attributes:
        model: The model's name.
        names: The built-in templates.
    """

    def __init__(self, model: str, names: Sequence[str]) -> None:
        self.model, self.names = model, tuple(names)
        super().__init__(
            f"{model} ships no chat template, and none is built in for it. If you know how its conversations are "
            f"written, pass a built-in template by name, as in ChatPetals(model=..., chat_template={names[0]!r}) "
            f"(there are {', '.join(names)}), or the text of a Jinja template. If the model is not made for "
            "conversations, use the Petals class."
        )


class PromptTooLongError(PetalsError, langchain.ContextOverflowError, ValueError):
    """The prompt leaves no room for an answer.

    What to do: Shorten the prompt. For conversations, `trim_messages(..., token_counter=chat)` counts with the model's
    own tokenizer. LangChain's middleware for summaries knows this error as `ContextOverflowError`.

    Attributes:
        prompt_tokens: Tokens of the prompt.
        limit: Most tokens of the context, the answer's tokens included.
    """

    def __init__(self, prompt_tokens: int, limit: int) -> None:
        self.prompt_tokens, self.limit = prompt_tokens, limit
        super().__init__(
            f"The prompt has {prompt_tokens} tokens, but the context holds {limit}, the answer included. Shorten the "
            "prompt, or use a model or servers with a longer context."
        )


class UnsupportedModelError(PetalsError, langchain.ModelInvalidRequestError, ValueError):
    """The model's family is none that the client knows.

    What to do: Choose a model of a family that the text lists.
    """


class ModelLoadError(PetalsError, OSError):
    """The model's config, tokenizer or weights could not be read or downloaded.

    What to do: Read the text: it names the file and what is wrong with it. Download an incomplete model again; with
    `local_files_only=True`, let the files be downloaded once.
    """


class ModelNotFoundError(ModelLoadError, langchain.ModelNotFoundError):
    """The hub has no such model or revision, or hides it from the key.

    What to do: Check the spelling, also of a folder's path. For a private model, set `HF_TOKEN` to a key that may read
    it.
    """


class AccessDeniedError(ModelLoadError, langchain.ModelPermissionDeniedError):
    """The hub refused access to the model: no key was sent, or a key without access.

    What to do: Request access on the model's page, then set `HF_TOKEN` to a key of your account.
    """


class InvalidKeyError(AccessDeniedError, langchain.ModelAuthenticationError):
    """The hub does not know the key that was sent.

    What to do: The text says where the key came from. Remove it there, or replace it by one that is valid.
    """


class HubUnreachableError(ModelLoadError, langchain.ModelConnectionError):
    """The hub could not be reached or failed, and the cache does not hold the files.

    What to do: Check the connection, `HF_ENDPOINT` and `HF_HUB_OFFLINE`, and try again. What was downloaded before is
    read from the cache. huggingface_hub asks six times before this error, which takes half a minute; with
    `HF_HUB_OFFLINE=1` it does not ask.
    """


class SwarmError(PetalsError):
    """The swarm failed.

    What to do: This is the base of the next three, for `except` and `with_fallbacks`. Try again later.
    """


class SwarmUnreachableError(SwarmError, langchain.ModelConnectionError):
    """No initial peer answered, the servers could not be looked up, or the swarm was closed.

    What to do: Check that the swarm runs, and that `initial_peers` has the full addresses that its servers print. A
    firewall or NAT before the peer may be in the way; `langchain-petals doctor` tells which peers it reaches.
    """


class BlocksMissingError(SwarmError, langchain.ModelConnectionError):
    """No server is online for some blocks of the model.

    What to do: Wait until servers join, or start one for these blocks. `connect_timeout` is the time that a call waits
    by itself; `langchain-petals status MODEL` shows the blocks. If servers are there, compare the model's name and
    `dht_prefix` with theirs, and check `active_adapter`, `allowed_servers` and `blocked_servers`.

    Attributes:
        blocks: Indices of the blocks that no server holds.
    """

    def __init__(self, blocks: Sequence[int], dht_prefix: str) -> None:
        self.blocks = tuple(blocks)
        super().__init__(
            f"No server of the swarm {dht_prefix!r} holds block(s) {', '.join(map(str, self.blocks))}. Wait until "
            "servers join, start one for these blocks, or check initial_peers, dht_prefix, active_adapter, "
            "allowed_servers and blocked_servers."
        )


class SpanFailedError(SwarmError, langchain.ModelAPIError):
    """Every attempt to run a span of blocks failed.

    What to do: Try again later, add a server for these blocks, or raise `max_retries`. The last reason is in the text;
    a time-out may need a larger `step_timeout`.

    Attributes:
        start: First block of the span.
        end: First block after the span.
        attempts: Number of attempts.
    """

    def __init__(self, start: int, end: int, attempts: int, reason: BaseException) -> None:
        self.start, self.end, self.attempts = start, end, attempts
        super().__init__(
            f"Blocks {start}:{end} failed {attempts} time(s), the last one with {reason_of(reason)}. "
            "Try again later, raise max_retries, or add a server for these blocks."
        )


class DeadlineExceededError(PetalsError, langchain.ModelTimeoutError, TimeoutError):
    """The call's `timeout`, in seconds, has passed.

    What to do: Raise `timeout`, or lower `max_new_tokens`. `stream` delivers the text up to then.
    """

    def __init__(self, timeout: float, generated: int) -> None:
        self.timeout, self.generated = timeout, generated
        super().__init__(
            f"The call's timeout of {timeout:g} s passed after {generated} generated token(s). Raise timeout, or lower "
            "max_new_tokens; stream() returns the text that was generated before the timeout."
        )


class OutputLimitError(PetalsError, langchain.ModelError, ValueError):
    """The limit on new tokens is too small for an answer that a schema, a grammar or a tool call asks for.

    What to do: Raise `max_new_tokens`, or ask for less: fewer required properties, shorter strings. With
    `steered=False`, ask for simpler patterns. With `ended_early`, `partial` has the object as far as the model wrote
    it.

    Attributes:
        limit: The limit on new tokens.
        generated: The text generated up to the limit. It is not valid, unless `ended_early`.
        needed: Tokens of the shortest valid answer that was found; None if unknown.
        steered: Whether an ending of the answer was known. If not, only the model could end it, which a larger limit
            may not change.
        ended_early: Whether there is a valid answer, but the limit ended it before the model would have: its texts are
            cut, and the model did not choose the rest.
        partial: That answer as a JSON value; None if there is none.
    """

    def __init__(
        self,
        limit: int,
        *,
        generated: str = "",
        needed: int | None = None,
        steered: bool = True,
        ended_early: bool = False,
        partial: Any = None,
    ) -> None:
        self.limit, self.generated, self.needed, self.steered = limit, generated, needed, steered
        self.ended_early, self.partial = ended_early, partial
        if ended_early:
            advice = (
                f"was ended by the limit of {limit} new token(s) before the model finished it. It fits its schema, "
                "but a part of it is cut off or made up. Raise max_new_tokens, or ask for less"
            )
        elif steered:
            least = "" if needed is None else f" (the shortest found has {needed})"
            advice = (
                f"cannot be completed within {limit} new token(s){least}. Raise max_new_tokens, or ask for less: fewer "
                "required properties, shorter strings"
            )
        else:
            advice = (
                f"did not come to an end within {limit} new token(s), and no way to end it early was found. Ask for "
                "simpler or shorter patterns; a larger max_new_tokens alone may not help"
            )
        super().__init__(f"The answer {advice}. Generated until then: {generated!r}")


class LocalSwarmError(PetalsError, RuntimeError):
    """A server of a local swarm did not start, or the swarm is closed.

    What to do: Read the end of the server's log, which the text shows. Too little memory and a model that Petals does
    not know are common reasons. Raise `startup_timeout` for a large model or a busy machine.
    """
