"""A `uv` that installs nothing: it records its orders, and makes an interpreter that answers the servers' check."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

ANSWER = {"python": "3.11.7", "petals": "2.2.0.post1", "hivemind": "1.1.12"}

_PYTHON = sys.executable  # tests may hide it

_SCRIPT = """#!{python}
import json, os, pathlib, sys

orders = pathlib.Path({orders!r})
with orders.open("a") as file:
    file.write(json.dumps(sys.argv[1:] + [os.environ.get("HF_TOKEN", "no key")]) + "\\n")
print("Resolved 70 packages")
if "{fails}" and "{fails}" in sys.argv:
    print("no solution found")
    sys.exit(2)
if sys.argv[1] == "venv":
    folder = pathlib.Path(sys.argv[-1])
    (folder / "bin").mkdir(parents=True)
    (folder / "pyvenv.cfg").touch()
    interpreter = folder / "bin" / "python"
    interpreter.write_text({interpreter!r})
    interpreter.chmod(0o755)
"""

_INTERPRETER = f"""#!{_PYTHON}
import sys
if sys.argv[1] == "-c":
    print('["hivemind @ git+https://example.org/hivemind", "transformers==4.43.1"]')
elif sys.argv[2] == "check":
    print('{json.dumps(ANSWER)}')
    print("a warning at the end")
"""


class ScriptedUv:
    """The command in a folder, which a test puts on PATH.

    Attributes:
        folder: The folder that holds `uv`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._orders = folder, folder / "orders"
        self.fail_at("")

    def fail_at(self, word: str) -> None:
        """Let orders that hold a word fail."""
        script = _SCRIPT.format(python=_PYTHON, orders=str(self._orders), fails=word, interpreter=_INTERPRETER)
        command = self.folder / "uv"
        command.write_text(script)
        command.chmod(0o755)

    @property
    def orders(self) -> list[list[str]]:
        """The arguments of each call, and after them the key that it could read in its environment."""
        if not self._orders.exists():
            return []
        return [json.loads(line) for line in self._orders.read_text().splitlines()]
