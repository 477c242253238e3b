"""The environment that `langchain-petals server install` makes: by what orders, and when it counts as complete."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from scripted_uv import ANSWER, ScriptedUv

from langchain_petals.errors import InvalidRequestError, PetalsNotInstalledError
from langchain_petals.swarm import installation
from langchain_petals.swarm.installation import install, installed, needs_of_fork, uninstall
from langchain_petals.swarm.installers import Pip, Uv, run
from langchain_petals.swarm.interpreter import MARKER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REQUIREMENTS = Path(str(files("langchain_petals.swarm"))) / "requirements"


class Steps:
    """Keeps the names of the steps, and the lines about them."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.lines: list[str] = []

    @contextmanager
    def __call__(self, what: str) -> Iterator[Callable[[str], None]]:
        self.names.append(what)
        yield self.lines.append


def make(petals: str = "2.2.0.post1", python: str | None = None) -> installation.Installation:
    return install(petals, python, step=Steps())


def read(name: str) -> list[Requirement]:
    lines = (REQUIREMENTS / name).read_text().splitlines()
    return [Requirement(line.partition(" #")[0]) for line in lines if line and not line.startswith("#")]


# ---- the locked list


def test_every_requirement_of_the_servers_is_locked_to_one_version_that_fits() -> None:
    locked: dict[str, list[Requirement]] = {}
    for each in read("servers.txt"):
        assert re.fullmatch(r"==[\w.]+", str(each.specifier))
        locked.setdefault(canonicalize_name(each.name), []).append(each)
    for needed in read("servers.in"):
        for each in locked[canonicalize_name(needed.name)]:
            assert needed.specifier.contains(str(each.specifier).removeprefix("=="))


def test_the_locked_list_does_not_ask_for_cuda() -> None:
    names = {canonicalize_name(each.name) for each in read("servers.txt")}
    assert not {name for name in names if name.startswith(("nvidia", "cuda", "triton"))}


# ---- orders


def test_the_released_petals_is_installed_without_its_own_requirements(uv: ScriptedUv, data: Path) -> None:
    steps = Steps()
    made = install(step=steps)
    folder = data / "servers"
    python = str(folder / "bin" / "python")
    assert [order[:-1] for order in uv.orders] == [
        ["venv", "--allow-existing", "--python", "3.11", str(folder)],
        ["pip", "install", "--python", python, "-r", str(REQUIREMENTS / "servers.txt")],
        ["pip", "install", "--python", python, "--no-deps", "petals==2.2.0.post1"],
    ]
    assert (made.folder, made.python, made.petals, made.source) == (folder, "3.11.7", "2.2.0.post1", "2.2.0.post1")
    assert installed() == made
    assert len(steps.names) == 4
    assert "Resolved 70 packages" in steps.lines


def test_installers_do_not_run_in_a_folder_whose_project_could_change_them(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PIP_USER", raising=False)
    data.mkdir()
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\npwd >>{tmp_path}/folders\necho $PIP_USER >>{tmp_path}/folders\n")
    python.chmod(0o755)
    (data / "servers" / "bin").mkdir(parents=True)
    shutil.copy(python, data / "servers" / "bin" / "python")
    for installer in (Pip(), Uv(str(python))):
        installer.make(data / "servers", str(python), str)
        installer.install(data / "servers", ["petals"], str)
    assert (tmp_path / "folders").read_text().splitlines() == [str(data), "", str(data), "0", *2 * (str(data), "")]


def test_an_interrupted_step_ends_only_after_its_program(tmp_path: Path) -> None:
    program = f"trap 'sleep 1; touch {tmp_path}/ended; exit' TERM; echo started; while :; do :; done"

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(["/bin/sh", "-c", program], interrupt, {})
    assert (tmp_path / "ended").exists()


@pytest.mark.usefixtures("data")
def test_installers_do_not_see_the_hubs_key(uv: ScriptedUv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    make()
    assert {order[-1] for order in uv.orders} == {"no key"}


def test_a_fork_gets_its_own_requirements(uv: ScriptedUv, data: Path, tmp_path: Path) -> None:
    fork = tmp_path / "fork"
    fork.mkdir()
    (fork / "pyproject.toml").touch()
    made = make(str(fork))
    assert made.source == str(fork)
    assert uv.orders[1][-3:-1] == ["--no-deps", str(fork)]
    needs = (data / "servers" / "requirements.txt").read_text().splitlines()
    assert "transformers==4.43.1" in needs
    assert [each for each in needs if each.startswith("hivemind")] == ["hivemind==1.1.12"]


def test_what_does_not_fit_beside_our_hivemind_is_replaced_in_a_forks_requirements() -> None:
    own = [
        "torch<2.7,>=2.6",
        "bitsandbytes==0.41.1",
        "pydantic<2.0,>=1.10",
        "hivemind==1.1.10.post2",
        "transformers<5.14,>=5.13",
        'cpufeature>=0.2.0; platform_machine == "x86_64"',
        "tensor_parallel==1.0.23",
        'pytest==6.2.5; extra == "dev"',
    ]
    needs = needs_of_fork(own)
    assert not set(needs) & {*own[:4], *own[5:6], *own[7:]}
    assert {"transformers<5.14,>=5.13", "tensor_parallel==1.0.23"} < set(needs)
    ours = {Requirement(each).name for each in needs}
    assert {"torch", "bitsandbytes", "pydantic", "hivemind", "cpufeature", "psutil"} < ours


def test_a_forks_requirement_that_cannot_be_read_is_named() -> None:
    with pytest.raises(PetalsNotInstalledError, match="cannot be read: 'transformers=>4'"):
        needs_of_fork(["transformers=>4"])


@pytest.mark.parametrize(
    ("address", "taken"),
    [
        ("https://example.org/petals", "git+https://example.org/petals"),
        ("git+ssh://example.org/petals@main", "git+ssh://example.org/petals@main"),
        ("https://example.org/petals-2.3-py3-none-any.whl", "https://example.org/petals-2.3-py3-none-any.whl"),
    ],
)
@pytest.mark.usefixtures("data")
def test_an_address_is_taken_as_a_repository_unless_it_names_a_file(uv: ScriptedUv, address: str, taken: str) -> None:
    assert make(address).source == taken
    assert uv.orders[1][-2] == taken


@pytest.mark.parametrize("user", ["ada:secret", "secret", ":secret", "secret:"])
def test_an_addresss_user_and_password_are_neither_shown_nor_kept(uv: ScriptedUv, data: Path, user: str) -> None:
    steps = Steps()
    made = install(f"https://{user}@example.org/petals@main", step=steps)
    assert made.source == "git+https://example.org/petals@main"
    assert uv.orders[1][-2] == f"git+https://{user}@example.org/petals@main"
    assert not [shown for shown in (*steps.names, (data / "servers" / MARKER).read_text()) if "secret" in shown]


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize("petals", ["2.1.0", "nowhere", "http://example.org/petals", "", str(Path(__file__).parent)])
def test_a_petals_that_cannot_be_installed_is_refused_before_anything_is_made(uv: ScriptedUv, petals: str) -> None:
    with pytest.raises(InvalidRequestError):
        make(petals)
    assert not uv.orders


# ---- complete, half made, in the way


@pytest.mark.usefixtures("data")
def test_an_environment_that_is_complete_is_not_made_again(uv: ScriptedUv) -> None:
    made = make()
    orders = uv.orders
    assert make() == made
    assert uv.orders == orders


def test_an_environment_of_another_source_or_list_is_replaced(uv: ScriptedUv, data: Path) -> None:
    make("https://example.org/petals")
    left = data / "servers" / "left"
    left.touch()
    made = make()
    assert not left.exists()
    marker = data / "servers" / MARKER
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"lock": "older"}))
    assert make() == made
    assert len([order for order in uv.orders if order[0] == "venv"]) == 3


@pytest.mark.parametrize("step", ["venv", "-r", "--no-deps"])
def test_an_environment_that_was_not_completed_is_made_anew(uv: ScriptedUv, data: Path, step: str) -> None:
    uv.fail_at(step)
    with pytest.raises(PetalsNotInstalledError, match=r"exit code 2; the end of its output:\n.*\nno solution found"):
        make()
    assert installed() is None
    left = data / "servers" / "left"
    if left.parent.is_dir():
        left.touch()
    uv.fail_at("")
    assert make() == installed()
    assert not left.exists()


@pytest.mark.parametrize("marker", ["", "[]", "{}", '{"python": "3.11.7"'])
@pytest.mark.usefixtures("uv")
def test_a_damaged_marker_means_that_the_environment_is_not_complete(data: Path, marker: str) -> None:
    made = make()
    (data / "servers" / MARKER).write_text(marker)
    assert installed() is None
    assert make() == made


def test_a_folder_that_is_no_environment_is_not_removed(uv: ScriptedUv, data: Path) -> None:
    thesis = data / "servers" / "thesis.txt"
    thesis.parent.mkdir(parents=True)
    thesis.touch()
    for change in (make, uninstall):
        with pytest.raises(PetalsNotInstalledError, match="holds something else"):
            change()
    assert thesis.exists()
    assert not uv.orders


@pytest.mark.usefixtures("uv")
def test_two_processes_do_not_change_the_environment_at_once(data: Path) -> None:
    data.mkdir()
    with (data / "servers.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for change in (make, uninstall):
            (data / "servers").mkdir(exist_ok=True)
            with pytest.raises(PetalsNotInstalledError, match="Another process"):
                change()
    assert make() == installed()


@pytest.mark.usefixtures("uv")
def test_uninstalling_leaves_only_the_lock(data: Path) -> None:
    assert not uninstall()
    assert not data.exists()
    make()
    assert uninstall()
    assert [each.name for each in data.iterdir()] == ["servers.lock"]
    assert installed() is None
    assert not uninstall()


@pytest.mark.parametrize("step", ["venv", "-r", "--no-deps"])
def test_an_environment_comes_back_if_the_one_that_replaces_it_fails(uv: ScriptedUv, data: Path, step: str) -> None:
    made = make()
    uv.fail_at(step)
    with pytest.raises(PetalsNotInstalledError, match="no solution found"):
        make("https://example.org/petals")
    assert installed() == made
    assert sorted(each.name for each in data.iterdir()) == ["servers", "servers.lock"]


@pytest.mark.usefixtures("uv")
def test_an_environment_comes_back_after_a_replacement_that_was_killed(data: Path) -> None:
    made = make()
    (data / "servers").rename(data / "servers.old")
    assert installed() is None
    (data / "servers").mkdir()
    (data / "servers" / "pyvenv.cfg").touch()
    assert make() == made
    assert not (data / "servers.old").exists()


@pytest.mark.usefixtures("uv")
def test_an_environment_that_was_replaced_does_not_come_back(data: Path) -> None:
    make("https://example.org/petals")
    shutil.copytree(data / "servers", data / "servers.old")
    made = make()
    assert made.source == "2.2.0.post1"
    assert not (data / "servers.old").exists()


@pytest.mark.usefixtures("uv")
def test_an_environment_kept_aside_is_uninstalled_too(data: Path) -> None:
    make()
    (data / "servers").rename(data / "servers.old")
    assert uninstall()
    assert [each.name for each in data.iterdir()] == ["servers.lock"]


@pytest.mark.usefixtures("uv")
def test_a_removal_that_was_interrupted_can_be_repeated(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make()
    remove = shutil.rmtree

    def remove_and_stop(folder: Path) -> None:
        remove(folder)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", remove_and_stop)
        with pytest.raises(KeyboardInterrupt):
            uninstall()
    assert installed() is None
    assert uninstall()
    assert not (data / "servers").exists()


def test_an_installer_that_ends_before_it_writes_pyvenv_cfg_blocks_nothing(uv: ScriptedUv, data: Path) -> None:
    uv.fail_at("venv")
    with pytest.raises(PetalsNotInstalledError):
        make()
    (data / "servers" / "lib").mkdir()
    uv.fail_at("")
    assert make() == installed()


@pytest.mark.usefixtures("uv")
def test_the_size_is_that_of_all_files(data: Path) -> None:
    made = make()
    before = made.size
    (data / "servers" / "weights").write_bytes(bytes(1000))
    assert made.size == before + 1000


# ---- interpreters


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize("python", ["/nowhere/python", "/bin/true", "/bin/sh", "/bin/echo", ""])
def test_something_else_than_python_is_refused(uv: ScriptedUv, python: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"{python}' is not a Python interpreter"):
        make(python=python)
    assert not uv.orders


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize("name", ["mine/python", "./mine/python", "corolla-python"])
def test_an_interpreter_may_be_named_by_a_relative_path_or_a_command(
    uv: ScriptedUv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    python = uv.folder / name if name == "corolla-python" else tmp_path / "mine" / "python"
    python.parent.mkdir(exist_ok=True)
    python.write_text("#!/bin/sh\necho 3.12\n")
    python.chmod(0o755)
    make(python=name)
    assert uv.orders[0][2:4] == ["--python", str(python)]


@pytest.mark.usefixtures("data")
def test_uv_needs_neither_venv_nor_ensurepip(uv: ScriptedUv, tmp_path: Path) -> None:
    python = tmp_path / "python3.10"
    python.write_text('#!/bin/sh\ncase "$2" in *ensurepip*) exit 1 ;; esac\necho 3.10\n')
    python.chmod(0o755)
    make(python=str(python))
    assert uv.orders[0][2:4] == ["--python", str(python)]
    (uv.folder / "uv").unlink()
    with pytest.raises(InvalidRequestError, match=r"can make an environment \(with venv and pip\)"):
        make("https://example.org/petals", python=str(python))


@pytest.mark.usefixtures("data")
def test_a_python_that_petals_cannot_use_is_refused(uv: ScriptedUv, tmp_path: Path) -> None:
    newer = tmp_path / "python3.13"
    newer.write_text("#!/bin/sh\necho 3.13\n")
    newer.chmod(0o755)
    with pytest.raises(InvalidRequestError, match=r"is Python 3\.13; Petals' servers need 3\.10 to 3\.12"):
        make(python=str(newer))
    assert not uv.orders


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12"])
@pytest.mark.usefixtures("data")
def test_an_interpreter_on_the_path_is_used(uv: ScriptedUv, version: str) -> None:
    for name in ("3.10", "3.11", "3.12"):  # the others exist, but do not run, as pyenv's do
        command = uv.folder / f"python{name}"
        command.write_text(f"#!/bin/sh\n{'echo ' + name if name == version else 'exit 127'}\n")
        command.chmod(0o755)
    make()
    assert uv.orders[0][2:4] == ["--python", str(uv.folder / f"python{version}")]


@pytest.mark.usefixtures("data")
def test_without_uv_and_without_a_fitting_python_the_error_names_both(uv: ScriptedUv) -> None:
    (uv.folder / "uv").unlink()
    with pytest.raises(PetalsNotInstalledError, match=r"--python PATH.*; or install uv"):
        make()


def test_without_uv_venv_and_pip_are_used(
    data: Path, tmp_path: Path, servers_python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # so that nothing is found
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(PetalsNotInstalledError, match="No matching distribution found for "):
        make(python=str(servers_python))
    python = data / "servers" / "bin" / "python"
    assert subprocess.run([python, "-c", "import pip"], check=False).returncode == 0
    assert installed() is None


@pytest.mark.usefixtures("data")
def test_the_check_finds_its_answer_between_other_lines(uv: ScriptedUv) -> None:
    made = make()
    lines: list[str] = []
    assert installation.check(made.folder / "bin" / "python", lines.append) == ANSWER
    assert lines[-1] == "a warning at the end"
    with pytest.raises(PetalsNotInstalledError, match="/bin/true is not a Python interpreter"):
        installation.check(Path("/bin/true"), lines.append)
    assert uv.orders
