"""The servers' program: what it imports, what it says of an environment that does not fit, and what it changes."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from langchain_petals.swarm.interpreter import PROGRAM, UNUSABLE

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., subprocess.CompletedProcess[str]]

SOURCES = sorted(PROGRAM.rglob("*.py"))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs an interpreter on the program's modules and those of a test's folder."""

    def run(python: Path | str, *arguments: Path | str) -> subprocess.CompletedProcess[str]:
        folders = [str(tmp_path), *([] if PROGRAM in arguments else [str(PROGRAM)])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
        return subprocess.run([python, *arguments], env=environment, capture_output=True, text=True, check=False)

    return run


def write(folder: Path, **sources: str) -> None:
    """Write modules; `petals__server` is petals/server.py or, if others lie below it, petals/server/__init__.py."""
    for name, source in sources.items():
        path = folder.joinpath(*name.split("__"))
        is_package = any(each.startswith(f"{name}__") for each in sources)
        target = path / "__init__.py" if is_package else path.with_suffix(".py")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source)


def write_environment(folder: Path, name: str = "petals", **sources: str) -> None:
    """Write modules that take the place of petals and of the heavy packages beside it."""
    empty = {name: "", f"{name}__server": "", f"{name}__server__server": "class Server: pass"}
    others = {
        "hivemind": "",
        "hivemind__utils": "",
        "hivemind__utils__logging": "def use_hivemind_log_handler(where): pass",
        "torch": "def set_num_threads(count): pass",
        "transformers": "__version__ = '9'",
        "huggingface_hub": "",
    }
    write(folder, **empty | others | sources)


# ---- what it imports


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_the_program_imports_only_python_psutil_and_itself(source: Path) -> None:
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert {str(name).partition(".")[0] for name in names} <= {*sys.stdlib_module_names, "psutil"}


def test_the_folder_of_the_program_hides_no_other_modules() -> None:
    assert {path.name for path in PROGRAM.iterdir()} - {"__pycache__"} == {"__main__.py", "petals_servers"}


def test_a_running_supervisor_has_imported_neither_langchain_nor_the_client(run: Run, servers_python: Path) -> None:
    program = """
import sys, tempfile
from petals_servers import supervisor
with tempfile.TemporaryDirectory() as folder:
    supervisor.prepare(folder)
print(*sys.modules)
"""
    ended = run(servers_python, "-c", program)
    assert ended.returncode == 0, ended.stderr
    loaded = {name.partition(".")[0] for name in ended.stdout.split()}
    assert {"petals", "hivemind", "torch"} <= loaded
    assert not {name for name in loaded if name.startswith(("langchain", "langgraph"))}


# ---- environments


def test_the_check_tells_versions(run: Run, servers_python: Path) -> None:
    ended = run(servers_python, PROGRAM, "check")
    answers = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    assert len(answers) == 1, ended.stderr
    assert {"python", "petals", "hivemind", "torch", "transformers"} == answers[0].keys()


@pytest.mark.parametrize("missing", ["petals", "hivemind", "torch"])
def test_a_package_that_is_missing_is_named(run: Run, tmp_path: Path, missing: str) -> None:
    write_environment(tmp_path)
    for place in (tmp_path / missing, tmp_path / f"{missing}.py"):
        if place.exists():
            place.rename(tmp_path / "away")
    ended = run(sys.executable, "-S", PROGRAM, "check")  # without the packages of the test's own environment
    assert ended.returncode == UNUSABLE
    sentence = ended.stderr.splitlines()[-1]
    assert sentence.startswith(f"{sys.executable} cannot run petals' servers: its environment lacks ")
    assert missing in sentence


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ('assert False, "Please install a proper\\ntransformers version"', "AssertionError: Please install a proper"),
        ("from hivemind import lost_name", "ImportError: cannot import name 'lost_name'"),
        ("import bitsandbytes_9", "ModuleNotFoundError: No module named 'bitsandbytes_9'"),
    ],
)
def test_a_petals_that_cannot_be_imported_ends_with_one_sentence(
    run: Run, tmp_path: Path, broken: str, told: str
) -> None:
    write_environment(tmp_path, petals=broken)
    ended = run(sys.executable, PROGRAM, "check")
    assert ended.returncode == UNUSABLE
    assert f"cannot run petals' servers: importing petals fails with {told}" in ended.stderr.splitlines()[-1]


def test_a_fork_that_lacks_all_that_is_changed_can_be_imported(run: Run, tmp_path: Path) -> None:
    write_environment(tmp_path)
    ended = run(sys.executable, PROGRAM, "check")
    assert json.loads(ended.stdout)["transformers"] == "9", ended.stderr


def test_a_fork_with_another_name_is_found_by_what_it_needs(run: Run, tmp_path: Path) -> None:
    write_environment(tmp_path, name="corolla", corolla="__version__ = '2.3.1'")
    facts = tmp_path / "corolla_llm-2.3.1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Name: corolla-llm\nVersion: 2.3.1\nRequires-Dist: hivemind>=1.1.12\n")
    (facts / "top_level.txt").write_text("tests\ncorolla\n")
    ended = run(sys.executable, "-S", "-c", "from petals_servers import environment as e; print(e.petals_package())")
    assert ended.stdout.split() == ["corolla"], ended.stderr


# ---- shims


def apply(run: Run, tmp_path: Path, then: str, **sources: str) -> Any:
    """Apply all shims to modules of a test; return what a program prints then, which is JSON."""
    write_environment(tmp_path, **sources)
    program = f"import json\nfrom petals_servers.shims import apply_shims\napply_shims('/a/folder')\n{then}"
    ended = run(sys.executable, "-c", program)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_sockets_lie_in_the_swarms_own_folder(run: Run, tmp_path: Path) -> None:
    p2p = "class P2P:\n    _UNIX_SOCKET_PREFIX = '/unix/tmp/'"
    then = "from hivemind.p2p.p2p_daemon import P2P\nprint(json.dumps(P2P._UNIX_SOCKET_PREFIX))"
    assert apply(run, tmp_path, then, hivemind__p2p="", hivemind__p2p__p2p_daemon=p2p) == "/unix/a/folder/"


@pytest.mark.parametrize(
    ("version", "location"),
    [("0.17.3", "https://hub.example/old/config.json"), ("0.20.0", "https://hub.example/new/config.json")],
)
def test_old_hub_libraries_send_the_key_when_the_hub_redirects_within_itself(
    run: Run, tmp_path: Path, version: str, location: str
) -> None:
    download = """
import dataclasses

@dataclasses.dataclass(frozen=True)
class Metadata:
    location: str

def get_hf_file_metadata(url):
    return Metadata(url.replace("/old/", "/new/").replace("hub.example/file", "cdn.example/file"))
"""
    then = """
from huggingface_hub.file_download import get_hf_file_metadata as get
print(json.dumps([get("https://hub.example/old/config.json").location, get("https://hub.example/file").location]))
"""
    hub = {"huggingface_hub": f"__version__ = '{version}'", "huggingface_hub__file_download": download}
    assert apply(run, tmp_path, then, **hub) == [location, "https://cdn.example/file"]


def test_no_converter_gets_the_key(run: Run, tmp_path: Path) -> None:
    modeling = {"transformers": "", "transformers__modeling_utils": "def auto_conversion(*_, **__): return 'posted'"}
    then = "import transformers.modeling_utils as m\nprint(json.dumps(m.auto_conversion('model', token='key')))"
    assert apply(run, tmp_path, then, **modeling) == [None, None, False]


def test_a_broken_file_of_a_local_folder_is_an_error_and_other_models_come_from_the_hub(
    run: Run, tmp_path: Path
) -> None:
    loading = """
def _load_state_dict_from_repo_file(model, filename, *, block_prefix=None, token=None):
    return ["hub", model, filename, block_prefix, token]

def _load_state_dict_from_local_file(path, *, block_prefix=None):
    return ["folder", path, block_prefix]
"""
    then = f"""
from petals.server.from_pretrained import _load_state_dict_from_repo_file as load
folder = load({str(tmp_path)!r}, "a.bin", block_prefix="h.0.", token="key")
print(json.dumps([folder, load("org/model", "a.bin", block_prefix="h.0.", token="key")]))
"""
    assert apply(run, tmp_path, then, petals__server__from_pretrained=loading) == [
        ["folder", str(tmp_path / "a.bin"), "h.0."],
        ["hub", "org/model", "a.bin", "h.0.", "key"],
    ]


def test_a_killed_server_holds_no_lock_that_other_servers_need(run: Run, servers_python: Path) -> None:
    program = """
import multiprocessing
from petals_servers.shims import restore_hivemind_names, use_own_locks
restore_hivemind_names()
from hivemind.utils import mpfuture as futures

def take_all(report):
    use_own_locks()
    locks = [futures.MPFuture._initialization_lock, futures.MPFuture._update_lock, futures.SharedBytes._lock]
    report.send([lock.acquire(timeout=5) for lock in locks])
    report.recv()

fork = multiprocessing.get_context("fork")
for _ in range(2):
    ours, theirs = fork.Pipe()
    process = fork.Process(target=take_all, args=[theirs], daemon=True)
    process.start()
    print(*ours.recv())
    process.kill()
    process.join()
"""
    ended = run(servers_python, "-c", program)
    assert ended.stdout.split() == ["True"] * 6, ended.stderr


def test_a_forks_server_gets_the_options_that_it_knows_and_all_that_it_was_ordered(run: Run, tmp_path: Path) -> None:
    server = """
import json

class Server:
    def __init__(self, *, device, torch_dtype, block_indices, **of_hivemind):
        assert (device, torch_dtype, block_indices) == ("cpu", "float32", "0:2")
        print(json.dumps(sorted(of_hivemind)))

    def run(self):
        pass
"""
    write_environment(tmp_path, petals__server__server=server)
    order = "from petals_servers.tasks import run_server; run_server(print, hop_delay=0, block_indices='0:2', new=1)"
    ended = run(sys.executable, "-c", order)
    assert json.loads(ended.stdout) == [
        "auto_nat", "host_maddrs", "nat_port_map", "new", "use_auto_relay", "use_relay"
    ], ended.stderr  # fmt: skip


# ---- a server in the foreground

COMMAND = """
import argparse
from petals.server.server import Server

class configargparse:
    class ArgParser(argparse.ArgumentParser):
        def __init__(self, default_config_files=("config.yml",), **options):
            super().__init__(**options)
            assert not default_config_files

def validate_version():
    raise SystemExit("asks PyPI")

def main():
    parser = configargparse.ArgParser()
    parser.add_argument("model")
    parser.add_argument("--device")
    parser.add_argument("--torch_dtype", default="auto")
    parser.add_argument("--initial_peers", nargs="+", default=["public"])
    parser.add_argument("--new_swarm", action="store_true")
    options = vars(parser.parse_args())
    if options.pop("new_swarm"):
        options["initial_peers"] = []
    validate_version()
    Server(**options)
"""
SERVER = """
PUBLIC_INITIAL_PEERS = ["public"]

class Server:
    def __init__(self, **options):
        raise ValueError(options)
"""
TORCH = """
class cuda:
    is_available = staticmethod(lambda: {gpu})
class backends:
    mps = cuda
def set_num_threads(count): pass
"""


@pytest.fixture
def foreground(tmp_path: Path, servers_python: Path) -> Callable[..., list[dict[str, Any]]]:
    """Return a function that starts the program with options for a stand-in of petals, and returns the events."""

    def foreground(*arguments: str, gpu: bool = False) -> list[dict[str, Any]]:
        torch = TORCH.format(gpu=gpu)
        command = {"petals__cli": "", "petals__cli__run_server": COMMAND}
        write_environment(tmp_path, petals="__version__ = '3'", petals__server__server=SERVER, torch=torch, **command)
        work_dir = tmp_path / "work"
        work_dir.mkdir()
        order = {"command": os.getpid(), "work_dir": str(work_dir), "arguments": ["m", *arguments], "token": "key"}
        ended = subprocess.run(
            [servers_python, PROGRAM, "run"],
            input=json.dumps(order) + "\n",
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not work_dir.exists(), ended.stderr
        return [json.loads(line) for line in ended.stdout.splitlines()]

    return foreground


@pytest.mark.parametrize(
    ("arguments", "gpu", "dtype"),
    [
        ((), False, "float32"),
        ((), True, "auto"),
        (("--device", "cpu"), True, "float32"),
        (("--device", "cuda:1"), True, "auto"),
        (("--torch_dtype", "bfloat16"), False, "bfloat16"),
    ],
)
def test_a_server_keeps_the_models_types_on_a_gpu_and_has_float32_on_a_cpu(
    foreground: Callable[..., list[dict[str, Any]]], *, arguments: tuple[str, ...], gpu: bool, dtype: str
) -> None:
    imported, failed = foreground("--new_swarm", *arguments, gpu=gpu)
    assert imported == {"event": "imported", "petals": "3"}
    assert failed["event"] == "failed"
    assert f"'torch_dtype': '{dtype}'" in failed["reason"]
    assert "'token': 'key'" in failed["reason"]
    assert "'reachable_via_relay': False" in failed["reason"]  # nobody is there to ask


def test_an_option_that_petals_does_not_have_is_refused_with_those_that_it_has(
    foreground: Callable[..., list[dict[str, Any]]],
) -> None:
    refused = foreground("--speed", "9")[-1]
    assert refused["problem"] == "unrecognized arguments: --speed 9"
    assert refused["options"] == ["--device", "--help", "--initial_peers", "--new_swarm", "--torch_dtype"]


def test_the_network_of_a_private_swarm_is_not_measured_with_a_stranger(run: Run, tmp_path: Path) -> None:
    measure = """
def measure_network_rps(config):
    raise AssertionError("asks speedtest.net")

def get_server_throughput(model, config):
    return [model, measure_network_rps(config)]
"""
    server = "from petals.server.throughput import get_server_throughput"
    then = """
from types import SimpleNamespace
from petals_servers.shims import measure_no_network
measure_no_network()
from petals.server import server
print(json.dumps(server.get_server_throughput("m", SimpleNamespace(hidden_size=1000))))
"""
    sources = {"petals__server__throughput": measure, "petals__server__server": server}
    assert apply(run, tmp_path, then, **sources) == ["m in a private swarm", 6250]


def test_shared_memory_is_removed_and_what_others_have_there_is_left(run: Run) -> None:
    name = f"torch_{os.getpid()}_{uuid.uuid4().hex}"
    own, other = (Path("/dev/shm", each) for each in (name, f"torch_x_{name}"))
    script = """
import sys
from pathlib import Path
from petals_servers.leavings import remove_shared_memory
own, other = map(Path, sys.argv[1:])
own.touch()
other.touch()
remove_shared_memory(1, {int(own.name.split("_")[1]): 1})
print(own.exists(), other.exists())
other.unlink()
"""
    ended = run(sys.executable, "-c", script, own, other)
    assert (ended.stdout, ended.stderr) == ("False True\n", "")
