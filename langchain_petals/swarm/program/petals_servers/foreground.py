"""One real server, for `langchain-petals server run`: `python <the program's folder> run`.

It is what `python -m petals.cli.run_server` would be, with the shims that it needs today: petals' own options, its own
`Server`, and all that this does in a real swarm. It is a child of the command, in a session of its own.

    standard input     one line of JSON: {"command": its process id, "work_dir": folder for sockets and temporary files,
                       "arguments": [petals' options, as on a command line], "token": the hub's key or null}
    standard output    events, each a JSON object on a line; see below
    standard error     petals' log, and the bars of downloads

Events, in this order, each with `event`:

    imported    `petals`: its version
    refused     `problem`, `options`: petals does not take the arguments; the options that it has
    joined      `peer_id`, `addresses`, `dht_prefix`, `total`: it is a peer of the swarm; the model has `total` blocks
    loading     `blocks`: [first, end), `device`, `torch_dtype`, `quant_type`, `throughput`, `reachable`: whether other
                servers can reach this one without a relay
    loaded      `block`
    ready       as `status`: its blocks can be found and used
    status      `blocks`, `throughput`, `cache_free`: share of the attention cache, 0 to 1; `servers`: how many hold
                blocks of this model, this one included; `missing`: blocks that no server holds; `peers`: connections
    failed      `reason`: petals raised an error
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import shutil
import signal
import sys
import threading
import traceback
import types
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from .leavings import family_of, remove_shared_memory
from .parent import watch_parent
from .shims import apply_shims, import_petals, petals
from .telling_server import telling_server

if TYPE_CHECKING:
    from .telling_server import Tell


def main() -> None:
    """Run the server until SIGTERM, an error, or the end of the command."""
    tell = _events()
    order = json.loads(sys.stdin.readline())
    work_dir = order["work_dir"]
    watch_parent(order["command"], lambda: _tidy_up(work_dir))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _interrupt_once)
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    code = 1
    try:
        code = _run(order["arguments"], order["token"], work_dir, tell)
    except KeyboardInterrupt:
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException as error:  # noqa: BLE001 - whatever it is, the command shows it
        traceback.print_exc()
        tell("failed", reason=f"{type(error).__name__}: {error}")
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.stderr.flush()
        _tidy_up(work_dir)
        os._exit(code)  # without the exit handlers of torch and petals, which may wait


def _events() -> Tell:
    """Take the standard output for events; what others print goes to the log. Return what tells an event."""
    stream, lock = os.fdopen(os.dup(1), "w", encoding="utf-8"), threading.Lock()
    os.dup2(2, 1)

    def tell(event: str, **more: Any) -> None:
        with lock:
            stream.write(json.dumps({"event": event, **more}) + "\n")
            stream.flush()

    return tell


def _interrupt_once(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # petals' own way to an end must not be interrupted
    raise KeyboardInterrupt


def _tidy_up(work_dir: str) -> None:
    """End what this process has started, and remove its files."""
    family = family_of(os.getpid())
    for pid in family.keys() - {os.getpid()}:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    remove_shared_memory(os.getpid(), family)
    shutil.rmtree(work_dir, ignore_errors=True)


def _run(arguments: list[str], token: str | None, work_dir: str, tell: Tell) -> int:
    """Run petals' own command with the arguments; return its exit code."""
    import_petals()
    apply_shims(work_dir)
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, force=True)  # now, since hivemind has changed the loggers
    for of_petals_own_calls in ("for .*: copying from a non-meta parameter", "The `use_auth_token` argument"):
        warnings.filterwarnings("ignore", of_petals_own_calls)
    command = petals("cli.run_server")
    package = importlib.import_module(command.__name__.partition(".")[0])
    tell("imported", petals=str(getattr(package, "__version__", "unknown")))
    command.configargparse = types.SimpleNamespace(ArgParser=_parser_class(command.configargparse.ArgParser, tell))
    command.validate_version = lambda: None  # asks PyPI whether there is a newer version
    command.Server = telling_server(command.Server, token, tell)
    sys.argv = ["run_server", *arguments]
    return int(command.main() or 0)


def _parser_class(parser_class: Any, tell: Tell) -> Any:
    class Parser(parser_class):  # type: ignore[misc]
        """Petals' parser of options; refuses in one event, and reads no `config.yml` that happens to lie there."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options | {"default_config_files": [], "allow_abbrev": False})

        def error(self, message: str) -> NoReturn:
            names = {name for action in self._actions for name in action.option_strings if name.startswith("--")}
            tell("refused", problem=message, options=sorted(names))
            raise SystemExit(2)

    return Parser
