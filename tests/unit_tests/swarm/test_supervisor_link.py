"""What an interpreter that cannot run servers ends in; the processes are real, and petals is not needed."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from langchain_petals.errors import LocalSwarmError, PetalsNotInstalledError
from langchain_petals.swarm.interpreter import UNUSABLE
from langchain_petals.swarm.supervisor_link import SupervisorLink


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder for temporary files, empty."""
    folder = tmp_path / "t"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setattr("langchain_petals.swarm.interpreter._LONGEST_SOCKET_FOLDER", 1000)
    return folder


@pytest.fixture
def interpreter(tmp_path: Path) -> Path:
    """Return a file for an interpreter, which tests fill."""
    path = tmp_path / "python"
    path.touch(mode=0o755)
    return path


def start(python: Path) -> None:
    link = SupervisorLink(python, None)
    try:
        link.start("bootstrap", task="bootstrap")
        link.wait_ready({"bootstrap": "The bootstrap peer"}, time.monotonic() + 60, 60, lambda _: None)
    finally:
        link.end()


@pytest.mark.usefixtures("temporary")
def test_the_last_line_of_an_unusable_interpreter_is_the_error(interpreter: Path) -> None:
    interpreter.write_text(f"#!/bin/sh\necho a traceback\necho it lacks petals\nexit {UNUSABLE}\n")
    with pytest.raises(
        PetalsNotInstalledError, match=r"^it lacks petals\. Run .*, and do not name another interpreter"
    ):
        start(interpreter)


@pytest.mark.usefixtures("temporary")
def test_a_program_that_is_no_python_is_named_with_what_it_said(interpreter: Path) -> None:
    interpreter.write_text("#!/bin/sh\necho Hello\nexit 3\n")
    with pytest.raises(LocalSwarmError) as caught:
        start(interpreter)
    assert f"The supervisor of the servers ({interpreter}) ended with exit code 3." in str(caught.value)
    assert str(caught.value).endswith("\nHello")


@pytest.mark.parametrize(("mode", "text"), [(0o644, "#!/bin/sh\n"), (0o755, "no program"), (0o755, "#!/nowhere\n")])
def test_a_file_that_cannot_be_started_is_one_sentence_and_leaves_nothing(
    interpreter: Path, temporary: Path, mode: int, text: str
) -> None:
    interpreter.write_text(text)
    interpreter.chmod(mode)
    with pytest.raises(PetalsNotInstalledError, match=re.escape(str(interpreter))) as caught:
        start(interpreter)
    assert "\n" not in str(caught.value)
    assert list(temporary.iterdir()) == []


def test_logs_that_cannot_be_written_leave_nothing(interpreter: Path, temporary: Path) -> None:
    (temporary.parent / "logs" / "supervisor.log").mkdir(parents=True)
    for folder in (interpreter, temporary.parent / "logs"):  # a file instead of a folder, and the other way round
        with pytest.raises(OSError, match=re.escape(str(folder))):
            SupervisorLink(interpreter, folder)
    assert list(temporary.iterdir()) == []


def test_both_programs_mean_the_same_exit_code() -> None:
    source = Path(__file__).parents[3] / "langchain_petals/swarm/program/petals_servers/environment.py"
    assert re.search(r"^EXIT_CODE = (\d+)$", source.read_text(), re.MULTILINE)[1] == str(UNUSABLE)
