"""A model's files, read from recorded traffic of a hub."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from cassettes import BLOT, SECRET
from local_hub import LocalHub, point_at
from pydantic import SecretStr
from transformers import AutoConfig, AutoTokenizer, LlamaConfig, LlamaForCausalLM, LlamaTokenizer

from langchain_petals.errors import (
    AccessDeniedError,
    HubUnreachableError,
    InvalidKeyError,
    InvalidRequestError,
    ModelLoadError,
    ModelNotFoundError,
)
from langchain_petals.petals_compat import load_petals

if TYPE_CHECKING:
    from collections.abc import Callable

    from langchain_petals.hub import Repository

TINY = Path(__file__).parents[3] / "langchain_petals" / "swarm" / "tiny"
CASSETTES = Path(__file__).with_name("cassettes")
READER, STRANGER, UNKNOWN = "hf_mayReadTheGatedModel", "hf_belongsToSomebodyElse", "hf_isNoKeyAtAll"


@pytest.fixture(scope="module", autouse=True)
def _shims() -> None:
    load_petals()


@pytest.fixture
def exchanges(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return a function that returns method and path of the HTTP requests since it was last called."""
    caplog.set_level(logging.DEBUG, "urllib3.connectionpool")

    def exchanges() -> list[str]:
        found = [re.search(r'"([A-Z]+ \S+) ', record.getMessage()) for record in caplog.records]
        caplog.clear()
        return [match[1] for match in found if match]

    return exchanges


@pytest.fixture(scope="module")
def small_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return a model with the bundled tokenizer and few weights."""
    folder = tmp_path_factory.mktemp("small")
    with torch.random.fork_rng():
        torch.manual_seed(6)
        config = LlamaConfig(
            vocab_size=259, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
        )
        LlamaForCausalLM(config).save_pretrained(folder, safe_serialization=True)
    tokenizer = {path.name: path.read_bytes() for path in TINY.glob("*token*.json")}
    return tokenizer | {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def models(hub: LocalHub | None, small_files: dict[str, bytes]) -> None:
    """Fill the hub that is recorded."""
    if hub is None:
        return
    hub.keys |= {READER, STRANGER}
    hub.add("acme/open", small_files)
    hub.add("acme/open", small_files | {"README.md": b"older"}, branch="v1")
    hub.add("acme/gated", small_files, gated=True, readers={READER})
    hub.add("acme/private", small_files, private=True, readers={READER})
    weights = {"pytorch_model.bin": b"a pickle"}
    pickled = {name: body for name, body in small_files.items() if not name.endswith(".safetensors")}
    hub.add("acme/pickled", pickled | weights)
    coded = json.loads(small_files["config.json"]) | {
        "model_type": "novel",
        "auto_map": {"AutoConfig": "configuration_novel.NovelConfig"},
    }
    hub.add("acme/coded", small_files | {"config.json": json.dumps(coded).encode(), "configuration_novel.py": b""})


@pytest.mark.vcr
@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(
    ("name", "key"),
    [("acme/open", None), ("acme/gated", READER), ("acme/private", READER)],
    ids=["open", "gated", "private"],
)
def test_config_tokenizer_and_weights_are_read(find: Callable[..., Repository], name: str, key: str | None) -> None:
    repository = find(name, key)
    config = repository.read(AutoConfig.from_pretrained)
    assert config.hidden_size == 8
    assert repository.read(AutoTokenizer.from_pretrained)("Hi").input_ids == [72, 105]
    assert repository.weights_format() == {"use_safetensors": True}
    assert repository.read(LlamaForCausalLM.from_pretrained, use_safetensors=True).config.hidden_size == 8
    cached = list(Path(str(repository.cache_dir)).glob("models--*/snapshots/*/model.safetensors"))
    assert [path.resolve().name for path in cached] == [hashlib.sha256(cached[0].read_bytes()).hexdigest()]


@pytest.mark.vcr
@pytest.mark.usefixtures("models")
def test_a_branch_is_read_at_its_commit(find: Callable[..., Repository]) -> None:
    main, older = find("acme/open"), find("acme/open", revision="v1")
    assert re.fullmatch("[0-9a-f]{40}", str(main.revision))
    assert re.fullmatch("[0-9a-f]{40}", str(older.revision))
    assert main.revision != older.revision
    assert find("acme/open", revision=older.revision).revision == older.revision


@pytest.mark.vcr
@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(
    ("key", "error", "told"),
    [
        (None, AccessDeniedError, "no key was given"),
        (UNKNOWN, InvalidKeyError, "does not know the key"),
        (STRANGER, AccessDeniedError, "has no access"),
    ],
    ids=["no key", "an unknown key", "a key without access"],
)
def test_the_error_of_a_gated_model_says_what_is_wrong_with_the_key(
    find: Callable[..., Repository], key: str | None, error: type[Exception], told: str
) -> None:
    with pytest.raises(AccessDeniedError) as caught:
        find("acme/gated", key)
    assert type(caught.value) is error
    message = str(caught.value)
    for part in (told, "'acme/gated'", "HF_TOKEN", "/acme/gated", "requested"):
        assert part in message
    assert key is None or key not in message


@pytest.mark.vcr
@pytest.mark.usefixtures("models")
def test_an_error_says_which_variable_the_key_came_from(
    find: Callable[..., Repository], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUGGINGFACEHUB_API_TOKEN", UNKNOWN)
    with pytest.raises(InvalidKeyError, match="the one in HUGGINGFACEHUB_API_TOKEN"):
        find("acme/gated", UNKNOWN)


@pytest.mark.vcr
@pytest.mark.usefixtures("models")
def test_a_key_that_was_stored_by_the_hubs_own_tool_is_used(find: Callable[..., Repository], tmp_path: Path) -> None:
    with pytest.raises(AccessDeniedError, match="no key"):
        find("acme/gated")
    (tmp_path / "token").write_text(f"{READER}\n")
    assert find("acme/gated").key == SecretStr(READER)


@pytest.mark.vcr
@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("key", [None, STRANGER], ids=["no key", "a key"])
@pytest.mark.parametrize("name", ["acme/private", "acme/nothing"])
def test_a_missing_or_hidden_model_is_not_found(find: Callable[..., Repository], name: str, key: str | None) -> None:
    with pytest.raises(ModelNotFoundError, match=f"no folder '{name}', and the hub has no such model, or hides it"):
        find(name, key)


@pytest.mark.vcr
@pytest.mark.usefixtures("models")
def test_a_missing_revision_is_not_found(find: Callable[..., Repository]) -> None:
    with pytest.raises(ModelNotFoundError, match="'acme/open' has no revision 'v9'"):
        find("acme/open", revision="v9")


@pytest.mark.vcr
@pytest.mark.usefixtures("models")
def test_a_cached_model_needs_one_request(find: Callable[..., Repository], exchanges: Callable[[], list[str]]) -> None:
    find("acme/open").read(AutoTokenizer.from_pretrained)
    exchanges()
    find("acme/open").read(AutoTokenizer.from_pretrained)
    assert [method for method, _ in map(str.split, exchanges())] == ["HEAD", "HEAD"]  # the second one is redirected


@pytest.mark.vcr
@pytest.mark.usefixtures("models")
def test_local_files_only_sends_no_request(find: Callable[..., Repository], exchanges: Callable[[], list[str]]) -> None:
    with pytest.raises(ModelLoadError, match="local_files_only=True forbids"):
        find("acme/open", local_files_only=True)
    assert exchanges() == []
    found = find("acme/open").read(AutoConfig.from_pretrained)
    assert exchanges() != []
    assert find("acme/open", local_files_only=True).read(AutoConfig.from_pretrained).to_dict() == found.to_dict()
    assert exchanges() == []


@pytest.mark.vcr
@pytest.mark.usefixtures("models")
def test_cached_files_stay_readable_without_the_key(find: Callable[..., Repository]) -> None:
    found = find("acme/gated", READER).read(AutoConfig.from_pretrained)
    repository = find("acme/gated")
    assert repository.read(AutoConfig.from_pretrained).to_dict() == found.to_dict()
    with pytest.raises(AccessDeniedError, match="no key was given"):
        repository.read(AutoTokenizer.from_pretrained)


@pytest.mark.vcr
@pytest.mark.usefixtures("models")
def test_pickles_are_read_with_a_warning_and_only_without_safetensors(find: Callable[..., Repository]) -> None:
    with pytest.warns(UserWarning, match="'acme/pickled' has its weights in pickles only") as caught:
        assert find("acme/pickled").weights_format() == {"use_safetensors": False}
    assert len(caught) == 1


@pytest.mark.vcr
@pytest.mark.usefixtures("models")
def test_code_of_a_model_does_not_run_by_default(find: Callable[..., Repository]) -> None:
    with pytest.raises(InvalidRequestError, match="set trust_remote_code=True if you trust it"):
        find("acme/coded").read(AutoConfig.from_pretrained)


def test_no_converter_gets_the_key() -> None:
    convert = getattr(transformers.modeling_utils, "auto_conversion", None)  # new in 4.43
    assert convert is None or convert("acme/pickled", token=READER, revision="main") == (None, None, False)


@pytest.mark.usefixtures("hub")
def test_an_impossible_hub_name_is_refused(find: Callable[..., Repository]) -> None:
    with pytest.raises(InvalidRequestError, match="'no/such/folder' is neither a folder nor a name of a model"):
        find("no/such/folder")


def test_a_folder_is_read_without_a_hub(find: Callable[..., Repository]) -> None:
    repository = find(str(TINY), READER)
    assert repository.key is None
    assert repository.read(AutoConfig.from_pretrained).model_type == "llama"
    assert repository.weights_format() == {"use_safetensors": True}


class Harm:
    """Would write a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_vocabulary_that_is_a_pickle_is_not_read(find: Callable[..., Repository], tmp_path: Path) -> None:
    model, harm = tmp_path / "model", tmp_path / "harm"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (model / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "TransfoXLTokenizer"}))
    (model / "vocab.pkl").write_bytes(pickle.dumps(Harm(harm)))
    with pytest.raises((InvalidRequestError, ImportError), match=r"vocabulary is a pickle|sacremoses"):  # 4.43: latter
        find(str(model)).read(AutoTokenizer.from_pretrained)
    assert not harm.exists()


def test_weights_in_a_harmful_pickle_run_no_code(find: Callable[..., Repository], tmp_path: Path) -> None:
    model, harm = tmp_path / "model", tmp_path / "harm"
    model.mkdir()
    config = LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    config.save_pretrained(model)
    torch.save({"weight": Harm(harm)}, model / "pytorch_model.bin")
    repository = find(str(model))
    with pytest.warns(UserWarning, match="pickles only"):
        weights = repository.weights_format()
    with pytest.raises(ModelLoadError, match="Could not load the model from the folder"):
        repository.read(LlamaForCausalLM.from_pretrained, **weights)
    assert not harm.exists()


def test_safetensors_are_preferred_to_pickles(find: Callable[..., Repository], tmp_path: Path) -> None:
    for name in ("model.safetensors", "pytorch_model.bin"):
        (tmp_path / name).touch()
    assert find(str(tmp_path)).weights_format() == {"use_safetensors": True}


def test_an_empty_folder_says_what_is_missing(find: Callable[..., Repository], tmp_path: Path) -> None:
    repository = find(str(tmp_path))
    assert repository.weights_format() == {}
    with pytest.raises(ModelLoadError, match="Could not load the model from the folder"):
        repository.read(AutoConfig.from_pretrained)


@pytest.mark.parametrize("load", [AutoConfig, AutoTokenizer, LlamaTokenizer, LlamaForCausalLM])
@pytest.mark.parametrize("config", [None, "{", '{"model_type": "llama"}'])
def test_no_error_shows_a_folder_as_an_address_on_the_hub(
    find: Callable[..., Repository], tmp_path: Path, load: Any, config: str | None
) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    if load is AutoConfig and config and config.endswith("}"):
        return
    with pytest.raises((ModelLoadError, InvalidRequestError)) as caught:
        find(str(tmp_path)).read(load.from_pretrained)
    assert str(tmp_path) in str(caught.value)
    assert "https://" not in str(caught.value)


def test_the_error_for_an_impossible_name_shows_a_possible_one(find: Callable[..., Repository]) -> None:
    for name in ("/no/such/folder", "./no/such", "a/b/c", "a b", "https://huggingface.co/acme/open"):
        with pytest.raises(InvalidRequestError, match=r"nor a name of a model on the hub; the form is owner/name$"):
            find(name)


@pytest.fixture
def cassettes() -> list[Path]:
    found = sorted(CASSETTES.rglob("*.yaml"))
    assert found
    return found


def test_no_cassette_holds_a_secret(cassettes: list[Path]) -> None:
    for cassette in cassettes:
        text = cassette.read_text()
        assert not [found for found in SECRET.findall(text) if found != BLOT], cassette
        for word in ("authorization:", "cookie", "bearer", "session=", READER, STRANGER, UNKNOWN):
            assert word.lower() not in text.lower(), (cassette, word)


def test_no_cassette_names_the_machine(cassettes: list[Path]) -> None:
    for cassette in cassettes:
        hosts = set(re.findall(r"https?://([^/\s]+)", cassette.read_text()))
        assert hosts <= {"hub.test", "cdn.test"}, cassette


def test_hf_endpoint_selects_the_hub(
    find: Callable[..., Repository], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    point_at(monkeypatch, "http://elsewhere.test", tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubUnreachableError, match=re.escape("http://elsewhere.test")):
        find("acme/open")
