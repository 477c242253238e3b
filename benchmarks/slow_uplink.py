"""The first token of a long prompt where the client sends slowly, and what compressing hidden states would change."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
import threading
import time
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from hivemind.compression.serialization import deserialize_torch_tensor, serialize_torch_tensor
from hivemind.proto.runtime_pb2 import CompressionType

from benchmarks.comparison import seconds
from langchain_petals import Petals
from langchain_petals.swarm import LocalSwarm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from langchain_petals.swarm import LocalServer

BITS_PER_SECOND = 10e6
PROMPT_TOKENS = 1_500
HIDDEN_SIZE = 1_024
MEGABYTE = 1e6
_READ = 2**14
_MODEL = str(files("langchain_petals.swarm") / "tiny")

Line = tuple[str, ...]
HEADER: Line = ("client", "servers", "sent", "the link is busy", "first token", "sent before", "first token before")
COMPRESSION_HEADER: Line = ("hidden states as", "bytes a number", "numbers that change", "choices that change")


class Uplink:
    """Proxies to servers that share a link of `BITS_PER_SECOND` from the client to them; the way back is not limited.

    Attributes:
        sent: Bytes that the client has sent.
    """

    def __init__(self) -> None:
        self.sent = 0
        self._free_at = 0.0  # when the link has sent what was read so far
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="uplink", daemon=True).start()

    def proxy(self, target: int) -> int:
        """Return a port that forwards connections to the port `target`."""
        listener = socket.create_server(("127.0.0.1", 0))

        async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                onward, to_server = await asyncio.open_connection("127.0.0.1", target)
                await asyncio.gather(self._send(reader, to_server), _pass_on(onward, writer))
            writer.close()

        asyncio.run_coroutine_threadsafe(asyncio.start_server(connect, sock=listener), self._loop).result()
        return int(listener.getsockname()[1])

    async def _send(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_READ):
            self.sent += len(data)
            self._free_at = max(self._free_at, time.monotonic()) + 8 * len(data) / BITS_PER_SECOND
            await asyncio.sleep(self._free_at - time.monotonic())
            writer.write(data)
            await writer.drain()
        writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_READ):
        writer.write(data)
        await writer.drain()
    writer.close()


def lines() -> Iterator[Line]:
    """Yield a line for each type of the client and of the servers: with the type that servers announce, and without."""
    with tempfile.TemporaryDirectory() as folder:
        _save_model(Path(folder))
        for servers in ("bfloat16", "float32"):
            uplink = Uplink()
            with _SlowSwarm(folder, uplink, servers) as swarm:
                options = swarm.connection | {"max_new_tokens": 1, "session_cache": 0, "step_timeout": 600}
                for client in ("float32", "bfloat16"):
                    llm = Petals(**options, torch_dtype=client)
                    llm.invoke("x")  # connects
                    sent, taken = _first_token(llm, uplink)
                    with mock.patch("langchain_petals.engine.network.span_stream._narrowed", lambda hidden, _: hidden):
                        before = _first_token(llm, uplink)
                    busy = 8 * sent / BITS_PER_SECOND
                    yield client, servers, *_cells(sent, busy, taken), *_cells(before[0], before[1])


def _first_token(llm: Petals, uplink: Uplink) -> tuple[int, float]:
    """Return the bytes that are sent for the first token, and the seconds until it is there."""
    begun = uplink.sent
    taken = seconds(lambda: llm.invoke("x" * PROMPT_TOKENS))
    return uplink.sent - begun, taken


def _cells(sent: int, *each: float) -> Line:
    return f"{sent / MEGABYTE:.1f} MB", *(f"{taken:.1f} s" for taken in each)


class _SlowSwarm(LocalSwarm):
    """Two servers that compute in a type, each behind a proxy of the link."""

    def __init__(self, folder: str, uplink: Uplink, dtype: str) -> None:
        self._uplink, self._dtype = uplink, dtype
        super().__init__(folder, dht_prefix=dtype)

    def _start_servers(self, *args: Any) -> list[LocalServer]:
        start = self._supervisor.start

        def behind_a_proxy(name: str, **order: Any) -> None:
            with socket.create_server(("127.0.0.1", 0)) as probe:
                port = int(probe.getsockname()[1])
            order["host_maddrs"] = [f"/ip4/127.0.0.1/tcp/{port}"]
            order["announce_maddrs"] = [f"/ip4/127.0.0.1/tcp/{self._uplink.proxy(port)}"]
            start(name, **order, torch_dtype=self._dtype)

        with mock.patch.object(self._supervisor, "start", behind_a_proxy):
            return super()._start_servers(*args)


def _save_model(folder: Path) -> None:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM  # noqa: PLC0415 - heavy

    tokenizer = AutoTokenizer.from_pretrained(_MODEL)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN_SIZE,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=8,
        max_position_embeddings=4096,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)


def compressions() -> Iterator[Line]:
    """Yield a line for each way of hivemind to write a tensor: its bytes, and what it changes.

    The hidden states are those of the bundled model, which computes in float32. They are written and read at two
    places, as on the way to two servers. The choices are the likeliest tokens at all positions of a text.
    """
    from transformers import AutoTokenizer, LlamaForCausalLM  # noqa: PLC0415 - heavy

    model: Any = LlamaForCausalLM.from_pretrained(_MODEL)
    ids = AutoTokenizer.from_pretrained(_MODEL)(Path(__file__).read_text(encoding="utf-8")[:PROMPT_TOKENS])["input_ids"]
    layers = model.model.layers[0], model.model.layers[len(model.model.layers) // 2]
    seen: dict[str, Any] = {}

    def passing(write: Callable[[torch.Tensor], tuple[torch.Tensor, int]]) -> torch.Tensor:
        seen["changed"] = seen["numbers"] = seen["bytes"] = 0

        def hook(_: Any, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor]) -> Any:
            hidden = args[0] if args else kwargs["hidden_states"]
            read, size = write(hidden)
            seen["changed"] += int((read != hidden).sum())
            seen["numbers"] += hidden.numel()
            seen["bytes"] += size
            return ((read, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": read})

        hooks = [layer.register_forward_pre_hook(hook, with_kwargs=True) for layer in layers]
        with torch.inference_mode():
            logits = model(torch.tensor([ids]), use_cache=False).logits
        for each in hooks:
            each.remove()
        choices: torch.Tensor = logits.argmax(-1)
        return choices

    def in_bfloat16(hidden: torch.Tensor) -> tuple[torch.Tensor, int]:
        return hidden.bfloat16().float(), 2 * hidden.numel()

    def compressed(number: int) -> Callable[[torch.Tensor], tuple[torch.Tensor, int]]:
        def write(hidden: torch.Tensor) -> tuple[torch.Tensor, int]:
            written = serialize_torch_tensor(hidden.clone(), number)
            return _read(written), len(written.buffer)

        return write

    exact = passing(compressed(CompressionType.Value("NONE")))
    ways = {"bfloat16": in_bfloat16} | {name: compressed(number) for name, number in CompressionType.items()}
    for name, write in ways.items():
        try:
            choices = passing(write)
        except ImportError:
            yield name, "needs bitsandbytes", "", ""
            continue
        share = seen["changed"] / seen["numbers"]
        different = int((choices != exact).sum())
        yield name, f"{seen['bytes'] / seen['numbers']:.2f}", f"{share:.1%}", f"{different} of {len(ids)}"


def _read(written: Any) -> torch.Tensor:
    """Return the hidden states of a message; where numpy is newer than 1, hivemind 1.1.12 cannot read 8 bits."""
    if not CompressionType.Name(written.compression).endswith("8BIT"):
        whole: torch.Tensor = deserialize_torch_tensor(written)
        return whole
    values = int.from_bytes(written.buffer[:8], "little")
    table = torch.frombuffer(bytearray(written.buffer[8 : 8 + 4 * values]), dtype=torch.float32)
    indices = torch.frombuffer(bytearray(written.buffer[8 + 4 * values :]), dtype=torch.uint8)
    return table[indices.long()].reshape(tuple(written.size))
