"""What petals and hivemind need changed to run here; each shim names its versions and its reason.

Petals' versions and its forks differ in their modules. So a shim looks for its target first, and does nothing where
there is none.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import os
import traceback
import warnings
from typing import Any
from urllib.parse import urlsplit

from .environment import end_as_unusable, petals_package
from .parent import end_with_parent

# Since 1.1.11, hivemind no longer re-exports these modules' names from its packages. petals 2.2.0.post1 and 2.3.0.dev2
# import them from there.
_HIVEMIND_MODULES_WITH_LOST_NAMES = (
    "compression",
    "compression.serialization",
    "dht",
    "dht.node",
    "dht.protocol",
    "moe",
    "optim",
    "p2p",
    "utils",
    "utils.asyncio",
    "utils.logging",
    "utils.mpfuture",
    "utils.nested",
    "utils.serializer",
    "utils.tensor_descr",
    "utils.timed_storage",
)

_UNMEASURED_BITS = 100e6  # a second, as petals' own


def petals(module: str) -> Any:
    """Return a module of petals, or of a fork that has renamed the package."""
    return importlib.import_module(f"{petals_package()}.{module}")


def import_petals() -> None:
    """Import petals' server and what it needs; if that fails, end this process with one line about it."""
    # petals would put hivemind's coloured handler on the root logger
    os.environ.setdefault(f"{str(petals_package()).upper()}_LOGGING", "False")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside pinned packages (pkg_resources, pynvml, ...)
            restore_hivemind_names()
            petals("server.server")
    except (ImportError, AssertionError) as error:  # petals asserts the version of transformers
        traceback.print_exc()
        end_as_unusable(f"importing petals fails with {type(error).__name__}: {error}")


def apply_shims(work_dir: str) -> None:
    """Change petals and hivemind, which are imported, where they have no option; `work_dir` is for sockets."""
    importlib.import_module("hivemind.utils.logging").use_hivemind_log_handler("nowhere")
    _put_sockets_into(work_dir)
    _cancel_on_the_right_loop()
    for process in _found(("hivemind", "DHT"), (f"{petals_package()}.server.handler", "TransformerConnectionHandler")):
        end_with_parent(process)
    _read_folders_once()
    _keep_key_on_one_host()
    _keep_key_from_converter()


def use_own_locks() -> None:
    """Give this fork its own copies of the locks that hivemind's processes share.

    hivemind makes them at import, for a process and its children. The supervisor imports hivemind, so all servers would
    share the locks. A server that is killed while it holds a lock would block the others for ever.
    """
    for futures in _found(("hivemind.utils.mpfuture", "MPFuture")):
        if hasattr(futures, "reset_backend"):
            futures.reset_backend()


def ask_nobody_whether_reachable() -> None:
    """Keep petals from starting a second p2pd per server, which tests whether other servers can be reached.

    Nobody needs that on one machine.
    """
    for protocol in _found((f"{petals_package()}.server.server", "ReachabilityProtocol")):
        protocol.attach_to_dht = lambda *_, **__: None


def measure_no_network() -> None:
    """Keep petals from measuring the network of a private swarm with speedtest.net, which is not its network.

    The machine's own speed is measured. For the network, petals takes 100 Mbit/s where it cannot measure. The results
    are kept under another name, so that a server of the public swarm does not take them for measured.
    """
    server, measure = (_module(f"{petals_package()}.server.{name}") for name in ("server", "throughput"))
    if not (hasattr(server, "get_server_throughput") and hasattr(measure, "measure_network_rps")):
        return
    get = server.get_server_throughput

    @functools.wraps(get)
    def get_under_another_name(model: str, *arguments: Any, **options: Any) -> Any:
        return get(f"{model} in a private swarm", *arguments, **options)

    measure.measure_network_rps = lambda config, **_: _UNMEASURED_BITS / (16 * config.hidden_size)
    server.get_server_throughput = get_under_another_name


def restore_hivemind_names() -> None:
    """Put back the names that hivemind 1.1.12 exports no more."""
    hivemind = importlib.import_module("hivemind")
    for name in _HIVEMIND_MODULES_WITH_LOST_NAMES:
        module = _module(f"hivemind.{name}")
        if module is None:
            continue
        parent = importlib.import_module(f"hivemind.{name}".rpartition(".")[0])
        for key, value in vars(module).items():
            if key.startswith("_"):
                continue
            for target in (hivemind, parent):
                if not hasattr(target, key):
                    setattr(target, key, value)


def _put_sockets_into(work_dir: str) -> None:
    """Put hivemind's sockets into a folder that is removed; in /tmp they would outlive a process that is killed."""
    for p2p in _found(("hivemind.p2p.p2p_daemon", "P2P")):
        p2p._UNIX_SOCKET_PREFIX = f"/unix{work_dir}/"  # noqa: SLF001 - hivemind has no option for it


def _cancel_on_the_right_loop() -> None:
    """Allow hivemind's connections to be garbage-collected on any thread.

    In hivemind 1.1.12, `P2P.__del__` and similar methods cancel their tasks through the current thread's event loop.
    Without a loop, that raises ("Exception ignored in ..."). With one, it cancels from the wrong thread.
    """

    def cancel_if_running(task: Any) -> None:
        if task is not None and not task.done() and not task.get_loop().is_closed():
            task.get_loop().call_soon_threadsafe(task.cancel)

    for name in ("p2p_daemon", "p2p_daemon_bindings.control"):
        module = _module(f"hivemind.p2p.{name}")
        if hasattr(module, "cancel_task_if_running"):
            module.cancel_task_if_running = cancel_if_running


def _read_folders_once() -> None:
    """Let petals raise an error when it cannot read a file of a local folder.

    It would ask the hub for a new copy, for ever, and the hub has no files of a local folder.
    """
    weights = _module(f"{petals_package()}.server.from_pretrained")
    names = ("_load_state_dict_from_repo_file", "_load_state_dict_from_local_file")
    if not all(hasattr(weights, name) for name in names):
        return
    load_from_hub, load_from_folder = (getattr(weights, name) for name in names)

    @functools.wraps(load_from_hub)
    def load(model: str, filename: str, *, block_prefix: str | None = None, **options: Any) -> Any:
        if os.path.isdir(model):  # noqa: PTH112 - a hub name is not a path
            return load_from_folder(os.path.join(model, filename), block_prefix=block_prefix)  # noqa: PTH118 - as above
        return load_from_hub(model, filename, block_prefix=block_prefix, **options)

    weights._load_state_dict_from_repo_file = load  # noqa: SLF001 - petals has no public name for it


def _keep_key_on_one_host() -> None:
    """Let huggingface_hub before 0.20 send the key when the hub redirects to another path of the same host.

    The hub redirects small files and renamed models. `hf_hub_download` treats each redirect as one to a CDN and follows
    it without the key, and a gated model answers with 401. As in later versions, the key is sent only to the host of
    the first request.
    """
    module = _module("huggingface_hub.file_download")
    version = str(getattr(_module("huggingface_hub"), "__version__", "1"))
    if not version.startswith("0.") or int(version.split(".")[1]) >= 20:  # noqa: PLR2004
        return
    get_metadata = module.get_hf_file_metadata

    @functools.wraps(get_metadata)
    def get(url: str, *arguments: Any, **options: Any) -> Any:
        metadata = get_metadata(url, *arguments, **options)
        if urlsplit(metadata.location).netloc == urlsplit(url).netloc:
            return dataclasses.replace(metadata, location=url)
        return metadata

    module.get_hf_file_metadata = get


def _keep_key_from_converter() -> None:
    """Prevent transformers from 4.36 on from sending the hub's key to another host.

    For a model without safetensors, its `auto_conversion` posts the model's name and the key to a converter (a "space",
    safetensors-convert.hf.space), which opens a pull request.
    """
    module = _module("transformers.modeling_utils")
    if hasattr(module, "auto_conversion"):
        module.auto_conversion = lambda *_, **__: (None, None, False)  # as the original, when it has found nothing


def _module(name: str) -> Any:
    """Return a module, imported; None if there is no such module."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and name.startswith(error.name):
            return None
        raise


def _found(*targets: tuple[str, str]) -> list[Any]:
    """Return what exists of the targets, each a module's name and a name in it."""
    modules = ((_module(where), name) for where, name in targets)
    return [getattr(module, name) for module, name in modules if hasattr(module, name)]
