"""`langchain-petals status`, `swarm` and `doctor` on real swarms."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from command import run

from langchain_petals.cli.swarms.doctor_checks import check_hub
from langchain_petals.cli.swarms.swarm_checks import _try_peer, check_swarm
from langchain_petals.swarm import LocalSwarm

if TYPE_CHECKING:
    from local_hub import LocalHub

ROOT = Path(__file__).parents[2]
PROGRAM = """
import signal
# tests that a shell runs in the background begin with Ctrl-C ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
from langchain_petals.cli import app
app(prog_name="langchain-petals")
"""


def peers_of(swarm: LocalSwarm) -> list[str]:
    return ["--initial-peers", ",".join(swarm.initial_peers)]


def test_the_status_of_a_swarm_is_usable(swarm: LocalSwarm) -> None:
    result = run("status", swarm.model, *peers_of(swarm), "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["usable"], found["missing"]) == (0, True, [])
    servers = {each["peer_id"]: each for each in found["servers"]}
    assert {peer: each["blocks"] for peer, each in servers.items()} == {
        each.peer_id: [each.blocks.start, each.blocks.stop] for each in swarm.servers
    }
    for each in servers.values():
        assert each["state"] == "online"
        assert 0 < each["round_trip"] < 60
        assert each["free_cache_tokens"] > 0
        assert each["version"]


def test_the_models_of_a_swarm_are_listed(swarm: LocalSwarm) -> None:
    result = run("status", *peers_of(swarm), "--json")
    assert result.exit_code == 0
    [tiny] = [each for each in json.loads(result.stdout)["models"] if each["dht_prefix"] == swarm.dht_prefix]
    assert (tiny["blocks"], tiny["missing"]) == (4, [])


def test_a_killed_server_is_a_gap_although_it_is_still_announced() -> None:
    with LocalSwarm(servers=2) as swarm:
        assert run("status", swarm.model, *peers_of(swarm)).exit_code == 0
        swarm.servers[1].kill()
        result = run("status", swarm.model, *peers_of(swarm))
        assert result.exit_code == 1
        assert "no answer" in result.stdout
        assert "nobody" in result.stdout
        assert "No server that can be used holds 2 blocks: 2:4." in result.stdout
        *_, blocks = check_swarm({"model": swarm.model, "initial_peers": swarm.initial_peers})
        assert (blocks.subject, blocks.state) == ("blocks", "wrong")


class Command:
    """The command as a process with a process group of its own."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )

    def end(self, number: signal.Signals) -> int:
        """Send a signal, and return the exit code when it and all it began are gone."""
        begun = psutil.Process(self.process.pid).children(recursive=True)
        assert begun
        os.kill(self.process.pid, number)
        self.process.communicate()
        assert psutil.wait_procs(begun, 60)[1] == []
        return self.process.returncode

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


def test_a_program_that_names_nothing_uses_the_swarm_whose_exports_a_shell_has_read(tmp_path: Path) -> None:
    (tmp_path / "command.py").write_text(PROGRAM)
    (tmp_path / "program.py").write_text(
        "from langchain_petals import ChatPetals, Petals\n"
        'print(Petals(temperature=0, max_new_tokens=8).invoke("Human: Hello!\\nAI:"))\n'
        'print(ChatPetals(temperature=0, max_tokens=8).invoke("Hello!").text)\n'
    )
    script = """
mkfifo swarm.env
"$PYTHON" command.py swarm --exports > swarm.env &
. ./swarm.env
"$PYTHON" program.py
kill $!
wait $!
echo $?
"""
    variables = {"PYTHONPATH": str(ROOT), "PYTHON": sys.executable}
    ended = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path, env=os.environ | variables
    )
    *answers, code = ended.stdout.splitlines()
    assert code == "143", ended.stderr
    assert len(answers) >= 2
    assert "Error" not in ended.stderr


def test_ctrl_c_ends_a_swarm_and_all_its_processes() -> None:
    command = Command("swarm", "--json", "--servers", "1")
    try:
        assert command.process.stdout is not None
        text = command.process.stdout.read()  # ends with the document
        assert text, command.process.communicate()
        assert [each["blocks"] for each in json.loads(text)["servers"]] == [[0, 4]]
        assert command.end(signal.SIGINT) == 130
    finally:
        command.kill()


def test_the_doctor_reaches_hub_peers_and_servers(swarm: LocalSwarm, hub: LocalHub) -> None:
    document = json.loads(run("doctor", swarm.model, *peers_of(swarm), "--json").stdout)
    found = {each["subject"]: each for each in document["findings"]}
    told = {subject: each["state"] for subject, each in found.items() if subject != "packages"}
    expected = ["Python", "hivemind", "key", "hub", "servers", swarm.model, *swarm.initial_peers, "swarm", "blocks"]
    assert told == dict.fromkeys(expected, "ok")
    assert found["hub"]["text"].startswith(f"{hub.url} answered in ")
    assert "petals 2" in found["servers"]["text"]
    assert "its port is open" in found[swarm.initial_peers[0]]["text"]


def test_a_hub_without_an_answer_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://user:secret@127.0.0.1:1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    found = check_hub()
    assert found.state == "wrong"
    assert found.text.startswith("http://127.0.0.1:1 gave no answer within 5 s: ")
    assert check_hub(is_needed=False).state == "note"


def test_peers_that_nobody_listens_at_are_told_one_by_one() -> None:
    peer = "/p2p/QmedTaZXmULqwspJXz44SsPZyTNKxhnnFvYRajfH7MGhCY"
    closed, unknown = f"/ip4/127.0.0.1/tcp/1{peer}", f"/dns4/no-such-host.invalid/tcp/1{peer}"
    found = {each.subject: each for each in check_swarm({"initial_peers": [closed, unknown]})}
    assert "its port could not be reached" in found[closed].text
    assert "the name no-such-host.invalid leads to no address" in found[unknown].text
    assert found["swarm"].state == "wrong"


@pytest.mark.parametrize("host", ["dns/" + "a" * 70 + ".com", "dns4/" + "\u00e9" * 80, "dns/tcp"])
def test_a_peer_whose_name_leads_nowhere_is_not_reached(host: str) -> None:
    is_reached, text = _try_peer(f"/{host}/tcp/1/p2p/QmedTaZXmULqwspJXz44SsPZyTNKxhnnFvYRajfH7MGhCY")
    assert not is_reached
    assert f"the name {host.partition('/')[2]} leads to no address: " in text
