"""The only module of the client that imports petals; each workaround names its versions and its reason.

Two versions of petals are supported:

* released: petals 2.2.0.post1 with transformers 4.32-4.34
* git main: petals 2.3.0.dev2 with transformers 4.43 (Mixtral, Llama 3.1, sessions that can be rolled back)

Importing this module is cheap; `load_petals` imports torch, transformers, hivemind and petals on first use.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import importlib
import importlib.metadata
import logging
import os
import sys
import threading
import time
import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from packaging.version import Version

from langchain_petals.errors import PetalsNotInstalledError, SwarmUnreachableError, UnsupportedModelError, reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

# petals version -> the transformers versions it asserts at import
_FITTING_TRANSFORMERS = {"2.2.0.post1": ("4.32.0", "4.35.0"), "2.3.0.dev2": ("4.43.1", "4.44.0")}

_HOW_TO_INSTALL = (
    "Run `pip install langchain-petals` and then `pip install --no-deps petals==2.2.0.post1` "
    "(--no-deps, since the requirements in petals' metadata contradict those of LangChain 1.x)."
)

# Since 1.1.11, hivemind no longer re-exports these modules' names from its packages; petals 2.2.0.post1 and 2.3.0.dev2
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

_PARENT_CHECK_SECONDS = 1.0
_LOOP_END_SECONDS = 5.0

_loading = threading.Lock()  # held while `load_petals` runs; one for the process, which imports petals once


def installed_petals_version() -> str:
    """Return the version of the installed petals; raise PetalsNotInstalledError if it is missing or unusable."""
    try:
        version = importlib.metadata.version("petals")
    except importlib.metadata.PackageNotFoundError:
        msg = f"petals is not installed. {_HOW_TO_INSTALL}"
        raise PetalsNotInstalledError(msg) from None
    if version not in _FITTING_TRANSFORMERS:
        msg = f"petals {version} is not supported; {' and '.join(_FITTING_TRANSFORMERS)} are. {_HOW_TO_INSTALL}"
        raise PetalsNotInstalledError(msg)
    lowest, above = _FITTING_TRANSFORMERS[version]
    try:
        transformers = importlib.metadata.version("transformers")
    except importlib.metadata.PackageNotFoundError:
        msg = f"transformers, which petals needs, is not installed. {_HOW_TO_INSTALL}"
        raise PetalsNotInstalledError(msg) from None
    if not Version(lowest) <= Version(transformers) < Version(above):
        msg = (
            f"petals {version} needs transformers>={lowest},<{above}, but {transformers} is installed. "
            f"Run `pip install 'transformers>={lowest},<{above}'`."
        )
        raise PetalsNotInstalledError(msg)
    return version


def load_petals() -> SimpleNamespace:
    """Import petals with all workarounds, once; return the parts of petals and hivemind that the engine uses.

    Raises:
        PetalsNotInstalledError: Petals or a package that it needs is missing or does not fit; says what to run.
    """
    with _loading:
        return _load_once()


@functools.cache
def _load_once() -> SimpleNamespace:
    version = installed_petals_version()
    # petals would put hivemind's coloured handler on the root logger, which belongs to the program
    os.environ.setdefault("PETALS_LOGGING", "False")
    # prevents a warning about forks: the DHT is a forked process, and never tokenizes
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    with warnings.catch_warnings():
        # deprecations inside the pinned packages (pkg_resources, pynvml, ...), which users cannot change
        warnings.simplefilter("ignore")
        try:
            _restore_hivemind_names()
            petals = importlib.import_module("petals")
            handler = importlib.import_module("petals.server.handler")
        except ImportError as error:
            msg = f"petals {version} could not be imported ({error}). {_HOW_TO_INSTALL}"
            raise PetalsNotInstalledError(msg) from error
    hivemind = importlib.import_module("hivemind")
    hivemind.utils.logging.use_hivemind_log_handler("nowhere")
    _never_wait_when_collected(importlib.import_module("petals.client.inference_session"))
    _cancel_on_the_right_loop()
    end_with_parent(hivemind.DHT)
    _keep_key_on_one_host()
    _keep_key_from_converter()
    _read_no_pickled_vocabulary()
    auto_config = importlib.import_module("petals.utils.auto_config")
    return SimpleNamespace(
        version=version,
        petals=petals,
        hivemind=hivemind,
        handler=handler.TransformerConnectionHandler,
        p2p=hivemind.P2P,
        worker=importlib.import_module("hivemind.moe.client.remote_expert_worker").RemoteExpertWorker,
        runtime_pb2=importlib.import_module("hivemind.proto.runtime_pb2"),
        chain_delimiter=importlib.import_module("petals.data_structures").CHAIN_DELIMITER,
        pack_args_kwargs=importlib.import_module("petals.utils.packaging").pack_args_kwargs,
        class_mapping=auto_config._CLASS_MAPPING,  # noqa: SLF001 - petals has no public list of its families
        default_revisions=auto_config.DefaultRevisionMixin.DEFAULT_REVISIONS,
        can_roll_back=Version(version) >= Version("2.3.0.dev0"),
    )


def _restore_hivemind_names() -> None:
    hivemind = importlib.import_module("hivemind")
    for name in _HIVEMIND_MODULES_WITH_LOST_NAMES:
        module = importlib.import_module(f"hivemind.{name}")
        parent = importlib.import_module(f"hivemind.{name}".rpartition(".")[0])
        for key, value in vars(module).items():
            if key.startswith("_"):
                continue
            for target in (hivemind, parent):
                if not hasattr(target, key):
                    setattr(target, key, value)


def _never_wait_when_collected(inference_session: Any) -> None:
    """Prevent a deadlock of petals 2.2.0.post1 and 2.3.0.dev2.

    `_ServerInferenceSession.__del__` calls `close()`, which waits for the network's event loop. If a stream breaks
    while it is closed, the object is part of a reference cycle. The garbage collector may then run `__del__` on
    that loop, and all later calls hang for ever. Dropping the stream is enough, since that ends the connection.
    """

    def drop_stream(session: Any) -> None:
        session._outputs_stream = session._inputs_queue = None  # noqa: SLF001 - the defect is in a private class

    inference_session._ServerInferenceSession.__del__ = drop_stream  # noqa: SLF001 - as above


def _keep_key_on_one_host() -> None:
    """Let huggingface_hub 0.17 send the key when the hub redirects to another path of the same host.

    The hub redirects small files and renamed models. `hf_hub_download` treats each redirect as one to a CDN and follows
    it without the key, and a gated model answers with 401. As in later versions, the key is sent only to the host of
    the first request.
    """
    hub = importlib.import_module("huggingface_hub")
    if Version(hub.__version__) >= Version("0.20"):
        return
    module: Any = importlib.import_module("huggingface_hub.file_download")
    get_metadata = module.get_hf_file_metadata

    @functools.wraps(get_metadata)
    def get(url: str, *arguments: Any, **options: Any) -> Any:
        metadata = get_metadata(url, *arguments, **options)
        if urlsplit(metadata.location).netloc == urlsplit(url).netloc:
            return dataclasses.replace(metadata, location=url)
        return metadata

    module.get_hf_file_metadata = get


def _keep_key_from_converter() -> None:
    """Prevent transformers 4.43 from sending the hub's key to another host.

    For a model without safetensors, its `auto_conversion` posts the model's name and the key to a converter (a "space",
    safetensors-convert.hf.space), which opens a pull request. With huggingface_hub 0.30 it fails before that.
    Versions 4.32-4.34 have no `auto_conversion`.
    """
    modeling_utils: Any = importlib.import_module("transformers.modeling_utils")
    if hasattr(modeling_utils, "auto_conversion"):
        # the original returns this when it has found nothing
        modeling_utils.auto_conversion = lambda *_, **__: (None, None, False)


def _read_no_pickled_vocabulary() -> None:
    """Fix CVE-2023-7018 of transformers 4.32-4.34: reading a tokenizer can run harmful code.

    The `tokenizer_config.json` of any model may name `TransfoXLTokenizer`, and that class unpickles its vocabulary.
    From 4.36 on it does so only if an environment variable allows it.
    """
    try:
        module: Any = importlib.import_module("transformers.models.transfo_xl.tokenization_transfo_xl")
    except ImportError:
        return  # transformers 4.43 has moved the module
    tokenizer = module.TransfoXLTokenizer
    construct = tokenizer.__init__

    @functools.wraps(construct)
    def construct_without_pickle(self: Any, *arguments: Any, **options: Any) -> None:
        if options.get("pretrained_vocab_file") is not None:
            msg = "the tokenizer's vocabulary is a pickle, which can hold harmful code and is not read"
            raise ValueError(msg)
        construct(self, *arguments, **options)

    tokenizer.__init__ = construct_without_pickle


def _cancel_on_the_right_loop() -> None:
    """Allow hivemind's connections to be garbage-collected on any thread.

    In hivemind 1.1.12, `P2P.__del__` and similar methods cancel their tasks through the current thread's event loop.
    Without a loop, that raises ("Exception ignored in ..."). With one, it cancels from the wrong thread.
    """

    def cancel_if_running(task: Any) -> None:
        if task is not None and not task.done() and not task.get_loop().is_closed():
            task.get_loop().call_soon_threadsafe(task.cancel)

    for name in ("p2p_daemon", "p2p_daemon_bindings.control"):
        module: Any = importlib.import_module(f"hivemind.p2p.{name}")
        module.cancel_task_if_running = cancel_if_running


def end_with_parent(process_class: Any) -> None:
    """Make the processes of a class end, with their child processes, when their parent has ended.

    hivemind 1.1.12 and petals rely on the parent's exit handlers. After a SIGKILL of the parent, a `hivemind.DHT` with
    its p2pd and a server's connection handlers would run for ever.
    """
    run = process_class.run

    @functools.wraps(run)
    def run_and_watch(process: Any) -> None:
        watch_parent(os.getppid())
        run(process)

    process_class.run = run_and_watch


def watch_parent(parent: int) -> None:
    """Start a thread that ends this process and its children when `parent` is no longer its parent.

    Read the parent's id early: a parent that dies before this call is then noticed, too.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_CHECK_SECONDS)
        psutil = importlib.import_module("psutil")
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since it was listed
                child.kill()
        os._exit(1)

    threading.Thread(target=watch, name="langchain-petals-watch-parent", daemon=True).start()


@contextlib.contextmanager
def only_errors_from(name: str) -> Iterator[None]:
    """Show only errors of a logger inside the block."""
    chatty = logging.getLogger(name)
    level = chatty.level
    chatty.setLevel(logging.ERROR)
    try:
        yield
    finally:
        chatty.setLevel(level)


def original_repository(model: str) -> str:
    """Return the repository that petals >= 1.2 reads for `model`: `bigscience/bloom-petals` -> `bigscience/bloom`."""
    if model.startswith("bigscience/") and model.endswith("-petals"):
        return model.removesuffix("-petals")
    return model


def default_revision(model: str) -> str | None:
    """Return the commit that petals reads instead of a model's main branch; None for almost all models."""
    revision: str | None = load_petals().default_revisions.get(model)
    return revision


def check_family(model: str, config: Any) -> None:
    """Raise UnsupportedModelError if petals has no code for a model's family, before its weights are downloaded."""
    api = load_petals()
    known = api.class_mapping.get(config.model_type)
    if known is None or known.model_for_causal_lm is None:
        msg = (
            f"petals {api.version} cannot run {model!r}: its family {config.model_type!r} is none of "
            f"{', '.join(sorted(api.class_mapping))}. Choose a model of these families."
        )
        raise UnsupportedModelError(msg)


def load_distributed_model(model: str, **options: Any) -> Any:
    """Return petals' `Distributed...ForCausalLM`, loaded with the options of its `from_pretrained`.

    Raises:
        SwarmUnreachableError: No initial peer could be reached.
    """
    api = load_petals()
    daemon_error = importlib.import_module("hivemind.p2p.p2p_daemon_bindings.utils").P2PDaemonError
    try:
        return api.petals.AutoDistributedModelForCausalLM.from_pretrained(model, **options)
    except daemon_error as error:
        peers = options.get("initial_peers")
        which = ", ".join(peers) if peers else "those of the public swarm"
        msg = (
            f"Could not join the swarm through its initial peers ({which}): {reason_of(error)}. Check that they "
            "are running and that initial_peers holds their full addresses (/ip4/.../tcp/.../p2p/...)."
        )
        raise SwarmUnreachableError(msg) from error


def shut_down(model: Any) -> None:
    """End a distributed model's background thread, DHT process and p2pd."""
    manager = model.transformer.h.sequence_manager
    manager.shutdown()
    api = load_petals()
    api.worker.run_coroutine(manager.state.p2p.shutdown(), return_future=True)
    manager.dht.shutdown()


@atexit.register  # at import: exit functions run in reverse order, and idle sessions must be closed before
def _stop_event_loop() -> None:
    """Stop the thread of hivemind's event loop when the program ends.

    It is a daemon thread, and the program's end makes it busy with closing connections. The process aborts if a thread
    is inside torch or uvloop when the interpreter ends.
    """
    module = sys.modules.get("hivemind.moe.client.remote_expert_worker")
    worker = None if module is None else module.RemoteExpertWorker
    if worker is None or worker._event_thread is None or worker._pid != os.getpid():  # noqa: SLF001 - no public way
        return
    loop = worker._event_loop_fut.result()  # noqa: SLF001 - as above
    loop.call_soon_threadsafe(loop.stop)
    worker._event_thread.join(_LOOP_END_SECONDS)  # noqa: SLF001 - as above
    worker._event_thread = None  # noqa: SLF001 - else later calls would wait for the stopped loop
