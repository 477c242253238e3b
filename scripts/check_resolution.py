"""Resolve the package's requirements for each supported Python and platform, and beside what people use with it.

Only metadata is fetched, and nothing is installed. With the newest of everything: all resolves for each Python and
platform, and no package of `COMPANIONS` gets another version because this one is beside it.

Usage: python scripts/check_resolution.py UV         UV is uv's executable; `make resolution` fetches one
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

PYTHONS = ("3.10", "3.12", "3.13", "3.14")  # the tests run with 3.11
PLATFORMS = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28", "aarch64-apple-darwin")
"""Where people run clients, as uv calls it."""

COMPANIONS = (
    "faiss-cpu",
    "langchain",
    "langchain-chroma",
    "langchain-huggingface",
    "langgraph",
    "numpy",
    "pandas",
    "sentence-transformers",
    "streamlit",
    "transformers",
)
"""What people use beside this package."""

COMPANIONS_PYTHONS = ("3.11", "3.12", "3.13")

SHOWN = ("langchain-core", "torch", "numpy", "pydantic", "protobuf")


def resolve(uv: str, python: str, platform: str, requirements: tuple[str, ...], *, ours: bool) -> dict[str, str]:
    """Return the version of each package of a resolution for a Python and a platform.

    Raises:
        SystemExit: There is none.
    """
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "requirements.in"
        wanted.write_text("\n".join(requirements), encoding="utf-8")
        command = [
            uv,
            "pip",
            "compile",
            "--quiet",
            "--no-header",
            "--no-annotate",
            "--no-config",
            "--no-python-downloads",
        ]
        command += ["--python-version", python, "--python-platform", platform]
        command += ["--only-binary", "hivemind"]  # its build downloads a program
        command += [str(wanted), *(["pyproject.toml"] if ours else [])]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        beside = f" beside {', '.join(requirements)}" if requirements else ""
        sys.exit(f"nothing fits Python {python} on {platform}{beside}:\n{done.stderr}")
    return dict(re.findall(r"^([a-z0-9.-]+)(?:\[.*\])?==(\S+)", done.stdout, re.MULTILINE))


def describe(found: dict[str, str], names: tuple[str, ...]) -> str:
    return ", ".join(f"{name} {found[name]}" for name in names)


def check_place(uv: str, python: str, platform: str) -> str:
    found = resolve(uv, python, platform, (), ours=True)
    return f"Python {python}, {platform}: {len(found)} packages; {describe(found, SHOWN)}"


def check_companions(uv: str, python: str) -> str:
    alone = resolve(uv, python, PLATFORMS[0], COMPANIONS, ours=False)
    together = resolve(uv, python, PLATFORMS[0], COMPANIONS, ours=True)
    moved = [f"{name} {alone[name]} to {together.get(name)}" for name in alone if alone[name] != together.get(name)]
    if moved:
        sys.exit(f"Python {python}: this package moves what is beside it: {', '.join(moved)}")
    come = len(together) - len(alone)
    return f"Python {python}, beside others: {len(alone)} packages stay, {come} come; {describe(alone, COMPANIONS)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("uv", help="uv's executable")
    uv = parser.parse_args().uv
    with ThreadPoolExecutor(2) as pool:  # they mostly wait for the index
        places = [(python, PLATFORMS[0]) for python in PYTHONS] + [("3.12", each) for each in PLATFORMS[1:]]
        checks = [pool.submit(check_place, uv, *place) for place in places]
        checks += [pool.submit(check_companions, uv, python) for python in COMPANIONS_PYTHONS]
        for check in checks:
            print(check.result(), flush=True)


if __name__ == "__main__":
    main()
