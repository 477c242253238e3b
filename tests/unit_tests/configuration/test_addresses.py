"""Names of peers, swarms and adapters: right ones are taken, and wrong ones refused with the right form."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_petals import ChatPetals, Petals
from langchain_petals.addresses import check_initial_peers
from langchain_petals.engine import Connection
from langchain_petals.engine.loading.load import PUBLIC_PEERS
from langchain_petals.errors import InvalidRequestError

PEER_ID = "12D3KooWQGTqmM7NKjV6ggU1ZCap8zWiyKR89RViDXiqehSiCpY5"
OLD_PEER_ID = "QmedTaZXmULqwspJXz44SsPZyTNKxhnnFvYRajfH7MGhCY"

both = pytest.mark.parametrize("model_class", [Petals, ChatPetals])


@both
@pytest.mark.parametrize(
    "address",
    [
        f"/ip4/127.0.0.1/tcp/31337/p2p/{PEER_ID}",
        f"/ip4/127.0.0.1/tcp/31337/p2p/{OLD_PEER_ID}",
        f"/ip4/127.0.0.1/tcp/31337/ipfs/{OLD_PEER_ID}",
        f"/ip6/2604:a880::1/tcp/31337/p2p/{PEER_ID}",
        f"/dns/bootstrap1.petals.dev/tcp/31337/p2p/{OLD_PEER_ID}",
        f"/dns6/bootstrap1.petals.dev/tcp/31337/p2p/{OLD_PEER_ID}",
        f"/dnsaddr/bootstrap.example/p2p/{PEER_ID}",
        f"/ip4/1.2.3.4/udp/4001/quic-v1/p2p/{PEER_ID}",
        f"/dns4/peer.example/tcp/443/wss/p2p/{PEER_ID}",
        f"/ip4/1.2.3.4/tcp/4001/p2p/{OLD_PEER_ID}/p2p-circuit/p2p/{PEER_ID}",
    ],
)
def test_valid_peer_addresses_are_accepted(model_class: type[Petals], address: str) -> None:
    assert model_class(model="m", initial_peers=[address]).initial_peers == [address]


@both
@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("", "is not a multiaddress"),
        ("127.0.0.1:31337", "is not a multiaddress"),
        ("https://example.com", "is not a multiaddress"),
        (PEER_ID, "is not a multiaddress"),
        ("/", "has an unknown part ''"),
        ("/ip4/127.0.0.1/tcp/31337", "does not end with the peer's id"),
        (f"/ip4/127.0.0.1/tcp/31337/p2p/{PEER_ID}/", "has an unknown part ''"),
        ("/ip4/127.0.0.1/tcp/31337/p2p/", "has '', which is not a value of /p2p"),
        ("/ip4/127.0.0.1/tcp/31337/p2p/12D3KooW", "has '12D3KooW', which is not a value of /p2p"),
        (f"/ip4/300.0.0.1/tcp/31337/p2p/{PEER_ID}", "has '300.0.0.1', which is not a value of /ip4"),
        (f"/ip6/127.0.0.1/tcp/31337/p2p/{PEER_ID}", "which is not a value of /ip6"),
        (f"/ip4/127.0.0.1/tcp/65536/p2p/{PEER_ID}", "has '65536', which is not a value of /tcp"),
        (f"/ip4/127.0.0.1/tcp/²/p2p/{PEER_ID}", "which is not a value of /tcp"),
        (f"/dns/no host/tcp/1/p2p/{PEER_ID}", "which is not a value of /dns"),
        (f"/tcp/31337/p2p/{PEER_ID}", "begins with /tcp, not with the host"),
        (f"/ip4/127.0.0.1/http/31337/p2p/{PEER_ID}", "has an unknown part 'http'"),
    ],
)
def test_invalid_peer_addresses_are_refused(model_class: type[Petals], address: str, told: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        model_class(model="m", initial_peers=[f"/ip4/127.0.0.1/tcp/31337/p2p/{PEER_ID}", address])
    assert told in str(caught.value)
    assert "the form is /ip4/203.0.113.7/tcp/31337/p2p/12D3KooW..." in str(caught.value)


def test_the_public_swarms_peers_have_valid_addresses() -> None:
    assert PUBLIC_PEERS
    for address in PUBLIC_PEERS:
        assert check_initial_peers([address]) == [address]


@given(
    st.lists(
        st.sampled_from(["ip4", "127.0.0.1", "ip6", "::1", "tcp", "80", "dns", "a.b", "p2p", PEER_ID, "ws", "quic-v1"]),
        max_size=8,
    )
)
def test_accepted_addresses_are_valid_for_hivemind(parts: list[str]) -> None:
    address = "/" + "/".join(parts)
    try:
        check_initial_peers([address])
    except ValueError:
        return
    multiaddr = importlib.import_module("hivemind.utils.multiaddr").Multiaddr(address)  # warns if it comes first
    assert str(multiaddr) == address


@both
@pytest.mark.parametrize("prefix", ["", "llama.3", "my model", "a\nb"])
def test_a_prefix_with_delimiters_is_refused(model_class: type[Petals], prefix: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"must be a name without '\.' and ' '.*for instance Llama-2-70b-hf"):
        model_class(model="m", dht_prefix=prefix)
    assert model_class(model="m", dht_prefix="Llama-2-70b-hf").dht_prefix == "Llama-2-70b-hf"


@both
@pytest.mark.parametrize("name", ["", "a b", "a/b/c", "/a", "a/", "https://huggingface.co/a/b", "a\nb"])
def test_impossible_adapter_names_are_refused(model_class: type[Petals], name: str) -> None:
    with pytest.raises(InvalidRequestError, match="is not a name on the hub; the form is artek0chumak/guanaco-65b"):
        model_class(model="m", active_adapter=name)
    name = "artek0chumak/guanaco-65b-v1.1"
    assert model_class(model="m", active_adapter=name).active_adapter == name


@both
@pytest.mark.parametrize("field", ["allowed_servers", "blocked_servers"])
def test_servers_must_be_named_by_their_peer_ids(model_class: type[Petals], field: str) -> None:
    assert getattr(model_class(model="m", **{field: [PEER_ID, OLD_PEER_ID]}), field) == [PEER_ID, OLD_PEER_ID]
    for wrong in ("server-0", f"/p2p/{PEER_ID}", PEER_ID[:-20], PEER_ID.replace("K", "0")):
        with pytest.raises(InvalidRequestError, match=f"{field}: .*the form is 12D3KooW"):
            model_class(model="m", **{field: [wrong]})


@both
def test_an_unknown_torch_dtype_is_refused_at_once(model_class: type[Petals]) -> None:
    with pytest.raises(InvalidRequestError, match="'auto', 'float32', 'bfloat16' or 'float16'"):
        model_class(model="m", torch_dtype="float31")


@both
def test_trusting_a_models_code_has_no_effect_and_says_so(model_class: type[Petals]) -> None:
    assert not model_class(model="m").trust_remote_code
    with pytest.warns(UserWarning, match="trust_remote_code=True has no effect: no code .* is run"):
        trusting = model_class(model="m", trust_remote_code=True)
    assert trusting._connection() == model_class(model="m")._connection()


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "", "tpu"])
def test_a_missing_device_is_refused_before_anything_is_loaded(device: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"device='{device}' cannot be used: "):
        Petals(model="no/such/folder", device=device).invoke("Hi")


@pytest.mark.parametrize("options", [{"local_files_only": True}, {"revision": "v1"}])
def test_connections_with_different_loading_options_are_not_equal(options: dict[str, Any]) -> None:
    assert Connection("m") != Connection("m", **options)


def test_checking_names_loads_nothing_heavy() -> None:
    check = (
        "import sys\n"
        "from langchain_petals import Petals\n"
        f"peers = ['/ip4/127.0.0.1/tcp/1/p2p/{PEER_ID}']\n"
        "Petals(model='m', initial_peers=peers, dht_prefix='a', active_adapter='a/b')\n"
        "print({'torch', 'transformers', 'hivemind', 'petals', 'huggingface_hub'} & set(sys.modules))"
    )
    root = Path(__file__).parents[3]
    run = subprocess.run([sys.executable, "-c", check], cwd=root, check=True, capture_output=True, text=True)
    assert run.stdout == "set()\n"
