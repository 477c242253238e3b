"""What `langchain-petals doctor` looks at on this machine, and at the hub."""

from __future__ import annotations

import contextlib
import http.client
import importlib.metadata
import os
import platform
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from langchain_petals.errors import PetalsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_OWN = "langchain-petals"
_SHOWN = ("langchain-core", "torch", "hivemind", "huggingface-hub", "tokenizers", "pydantic")
_OPTIONAL = ("transformers", "sentencepiece")
_HUB_SECONDS = 5.0


@dataclass(frozen=True)
class Finding:
    """What one check has found.

    Attributes:
        subject: What was looked at.
        state: "ok", "wrong", or "note" for what is worth knowing.
        text: What was seen.
        mend: What to do; a command where there is one.
    """

    subject: str
    state: Literal["ok", "note", "wrong"]
    text: str
    mend: str | None = None


def check_python() -> Finding:
    """Look at the interpreter and the operating system."""
    seen = f"{platform.python_version()} at {_shown(sys.executable)}, on {platform.system()} {platform.machine()}"
    needed = _needed_python()
    if needed and not SpecifierSet(needed).contains(platform.python_version(), prereleases=True):
        return Finding(
            "Python", "wrong", f"{seen}; Python {needed} is needed", "Make an environment with another Python."
        )
    if platform.system() == "Windows":
        return Finding("Python", "wrong", f"{seen}; hivemind does not run on Windows", "Use WSL, which is Linux.")
    return Finding("Python", "ok", seen)


def check_packages(requirements: list[str] | None = None) -> Iterator[Finding]:
    """Compare the versions of packages with those that this package needs.

    Args:
        requirements: As a package's metadata has them; None takes this package's own.
    """
    if requirements is None:
        requirements = _requirements()
    if requirements is None:
        yield Finding(
            "packages",
            "note",
            f"{_OWN} is not installed but found on the path, so what it needs is not known; {_versions(_SHOWN)}",
            "python -m pip install .",
        )
        return
    misfits = False
    for requirement in map(Requirement, requirements):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = _version(requirement.name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            misfits = True
            seen = "not installed" if found is None else f"version {found}"
            wanted = f"{requirement.name}{requirement.specifier}"
            mend = f"python -m pip install --upgrade '{wanted}'"
            yield Finding(requirement.name, "wrong", f"{seen}; {wanted} is needed", mend)
    if not misfits:
        yield Finding("packages", "ok", _versions((_OWN, *_SHOWN, *_OPTIONAL)))


def check_p2pd() -> Finding:
    """Look for the program that comes with hivemind and speaks the swarm's protocol."""
    mend = "python -m pip install --force-reinstall --no-deps hivemind"
    try:
        from langchain_petals.engine.network import P2PD  # noqa: PLC0415 - takes seconds
    except Exception as error:  # noqa: BLE001 - a broken package raises anything
        return Finding("hivemind", "wrong", f"cannot be imported: {type(error).__name__}: {error}", mend)
    if not os.access(P2PD, os.X_OK):
        return Finding("hivemind", "wrong", f"its program {P2PD} is missing or cannot be run", mend)
    return Finding("hivemind", "ok", "its program p2pd can be run")


def check_key() -> Finding:
    """Look whether there is a key for the hub; the key itself is shown nowhere."""
    from langchain_petals.hub import key_origin  # noqa: PLC0415 - heavy

    try:
        origin = key_origin()
    except PetalsError as error:
        return Finding("key", "wrong", str(error))
    if origin is None:
        return Finding("key", "ok", "none; only gated and private models need one (HF_TOKEN)")
    return Finding("key", "ok", f"there is one, from {origin}")


def check_hub(*, is_needed: bool = True, seconds: float = _HUB_SECONDS) -> Finding:
    """Ask the hub for an answer, unless HF_HUB_OFFLINE forbids it.

    Args:
        is_needed: Whether no answer is wrong; a model in a folder needs no hub.
        seconds: How long to wait.
    """
    from huggingface_hub import constants  # noqa: PLC0415 - heavy

    if constants.HF_HUB_OFFLINE:
        return Finding("hub", "note", f"HF_HUB_OFFLINE is set: only files in {_shown(constants.HF_HUB_CACHE)} are used")
    # without a name and a password, which errors would show; an answer that asks for them is one, too
    scheme, slashes, rest = constants.ENDPOINT.partition("//")
    host, slash, path = rest.partition("/")
    address = f"{scheme}{slashes}{host.rpartition('@')[2]}{slash}{path}"
    began = time.monotonic()
    try:
        request = urllib.request.Request(address, method="HEAD")  # noqa: S310 - the user's HF_ENDPOINT
        with urllib.request.urlopen(request, timeout=seconds):  # noqa: S310 - as above
            pass
    except urllib.error.HTTPError:
        pass  # an answer
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        text = f"{address} gave no answer within {seconds:g} s: {reason}"
        if not is_needed:
            return Finding("hub", "note", f"{text}; a model in a folder needs no hub")
        mend = "Check the network and HF_ENDPOINT. With HF_HUB_OFFLINE=1, only downloaded files are used."
        return Finding("hub", "wrong", text, mend)
    return Finding("hub", "ok", f"{address} answered in {time.monotonic() - began:.1f} s")


def check_servers() -> Finding:
    """Look whether servers can run on this machine, which only a local swarm and `server run` need."""
    from langchain_petals import swarm  # noqa: PLC0415 - takes a second

    subject, mend = "servers", "langchain-petals server install"
    try:
        python = swarm.found_python()
        if python is None:
            return Finding(subject, "note", "no environment with Petals; only servers on this machine need it", mend)
        versions = swarm.check(python, lambda _: None)
    except PetalsError as error:
        return Finding(subject, "wrong", str(error), mend)
    made = swarm.installed()
    if made is not None and made.interpreter == python and made.is_outdated:
        return Finding(
            subject, "note", f"{_listed(versions)}, at {_shown(python)}, older than this package's list", mend
        )
    return Finding(subject, "ok", f"{_listed(versions)}, at {_shown(python)}")


def _shown(path: str | Path) -> str:
    """Return a path; one in the user's folder begins with ~."""
    with contextlib.suppress(ValueError, RuntimeError):
        return f"~/{Path(path).relative_to(Path.home())}"
    return str(path)


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _versions(names: tuple[str, ...]) -> str:
    return _listed({name: version for name in names if (version := _version(name)) is not None})


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _needed_python() -> str | None:
    try:
        return importlib.metadata.metadata(_OWN)["Requires-Python"]
    except (importlib.metadata.PackageNotFoundError, KeyError):
        return None


def _requirements() -> list[str] | None:
    try:
        return importlib.metadata.requires(_OWN) or []
    except importlib.metadata.PackageNotFoundError:
        return None
