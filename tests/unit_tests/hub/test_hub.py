"""A model's files, read from recorded traffic of a hub."""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cassettes import BLOT, SECRET
from local_hub import LocalHub, point_at
from pydantic import SecretStr

from langchain_petals.errors import (
    AccessDeniedError,
    HubUnreachableError,
    InvalidKeyError,
    InvalidRequestError,
    ModelLoadError,
    ModelNotFoundError,
)
from langchain_petals.hub import Repository, missing, read_json, read_text
from langchain_petals.hub.bars import download_bars
from langchain_petals.progress import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable

TINY = Path(__file__).parents[3] / "langchain_petals" / "swarm" / "tiny"
CASSETTES = Path(__file__).with_name("cassettes")
READER, STRANGER, UNKNOWN = "hf_mayReadTheGatedModel", "hf_belongsToSomebodyElse", "hf_isNoKeyAtAll"


@pytest.fixture
def exchanges(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return a function that returns the methods of the HTTP requests since it was last called."""
    for library in ("urllib3.connectionpool", "httpx", "httpx2"):
        caplog.set_level(logging.DEBUG, library)
    form = re.compile(r'HTTP Request: ([A-Z]+) |"([A-Z]+) /')  # of httpx, of urllib3

    def exchanges() -> list[str]:
        found = [form.search(record.getMessage()) for record in caplog.records]
        caplog.clear()
        return [match[1] or match[2] for match in found if match]

    return exchanges


@pytest.fixture(scope="module")
def small_files() -> dict[str, bytes]:
    """Return a model with the bundled tokenizer and few weights."""
    config = {"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1}
    header = b'{"weight":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    weights = len(header).to_bytes(8, "little") + header + bytes(8)
    tokenizer = {path.name: path.read_bytes() for path in TINY.glob("*token*.json")}
    return tokenizer | {"config.json": json.dumps(config).encode(), "model.safetensors": weights}


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


@pytest.mark.vcr
@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(
    ("name", "key"),
    [("acme/open", None), ("acme/gated", READER), ("acme/private", READER)],
    ids=["open", "gated", "private"],
)
def test_config_tokenizer_and_weights_are_read(find: Callable[..., Repository], name: str, key: str | None) -> None:
    repository = find(name, key)
    config = read_json(repository, "config.json")
    assert config is not None
    assert config["hidden_size"] == 8
    text = read_text(repository, "tokenizer.json")
    assert text == (TINY / "tokenizer.json").read_text(encoding="utf-8")
    weights = repository.file("model.safetensors")
    assert weights is not None
    assert weights.resolve().name == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert weights.is_relative_to(str(repository.cache_dir))
    assert repository.file("pytorch_model.bin") is None


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
    names = ("tokenizer.json", "no_such_file.json")
    first = [*map(find("acme/open").file, names)]
    assert "GET" in exchanges()
    assert [*map(find("acme/open").file, names)] == first
    assert exchanges() == ["HEAD", "HEAD"]  # the second one is redirected


@pytest.mark.vcr
@pytest.mark.usefixtures("models")
def test_local_files_only_sends_no_request(find: Callable[..., Repository], exchanges: Callable[[], list[str]]) -> None:
    with pytest.raises(ModelLoadError, match="local_files_only=True forbids"):
        find("acme/open", local_files_only=True)
    assert exchanges() == []
    found = find("acme/open").file("config.json")
    assert exchanges() != []
    offline = find("acme/open", local_files_only=True)
    assert offline.file("config.json") == found
    assert offline.file("tokenizer.json") is None
    told = f"not all in the cache {offline.cache_dir}, and local_files_only=True forbids downloads: there is no token"
    assert told in str(missing(offline, "tokenizer.json"))
    assert exchanges() == []


@pytest.mark.vcr
@pytest.mark.usefixtures("models")
def test_cached_files_stay_readable_without_the_key(find: Callable[..., Repository]) -> None:
    found = find("acme/gated", READER).file("config.json")
    repository = find("acme/gated")
    assert repository.file("config.json") == found
    with pytest.raises(AccessDeniedError, match="no key was given"):
        repository.file("tokenizer.json")


@pytest.mark.usefixtures("hub")
def test_an_impossible_hub_name_is_refused(find: Callable[..., Repository]) -> None:
    with pytest.raises(InvalidRequestError, match="'no/such/folder' is neither a folder nor a name of a model"):
        find("no/such/folder")


def test_a_folder_is_read_without_a_hub(find: Callable[..., Repository]) -> None:
    repository = find(str(TINY), READER)
    assert repository.key is None
    config = read_json(repository, "config.json")
    assert config is not None
    assert config["model_type"] == "llama"
    assert repository.file("no_such_file.json") is None
    assert str(missing(repository, "no_such_file.json")).startswith(f"{str(TINY)!r} has no no_such_file.json. Check")


def test_a_name_that_no_file_of_a_folder_can_have_is_absent(find: Callable[..., Repository]) -> None:
    assert find(str(TINY)).file("x" * 300) is None


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{", "config.json of .* is not valid JSON"),
        (b"[]", "config.json of .* holds no JSON object"),
        (b"[" * 100_000, "config.json of .* is not valid JSON"),
        (b"\xff{}", "config.json of .* cannot be read"),
        (b"9" * 10_000, "config.json of .* is not valid JSON"),
    ],
    ids=["cut off", "a list", "nested deeply", "no text", "a huge number"],
)
def test_a_broken_file_is_named_with_its_model(
    find: Callable[..., Repository], tmp_path: Path, content: bytes, told: str
) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ModelLoadError, match=told) as caught:
        read_json(find(str(tmp_path)), "config.json")
    assert str(tmp_path) in str(caught.value)


def test_a_huge_text_is_not_read_into_memory(find: Callable[..., Repository], tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(2**40)  # a sparse file
    with pytest.raises(ModelLoadError, match="more than 134217728 bytes"):
        read_json(find(str(tmp_path)), "config.json")


def test_the_error_for_an_impossible_name_shows_a_possible_one(find: Callable[..., Repository]) -> None:
    for name in (
        "/no/such/folder",
        "./no/such",
        "a/b/c",
        "a b",
        "https://huggingface.co/acme/open",
        "a\0b",
        "a" * 5000,
    ):
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


@pytest.mark.usefixtures("offline")
def test_hf_endpoint_selects_the_hub(
    find: Callable[..., Repository], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    point_at(monkeypatch, "http://elsewhere.test", tmp_path)
    with pytest.raises(HubUnreachableError, match=re.escape("http://elsewhere.test")):
        find("acme/open")


@pytest.mark.usefixtures("offline")
def test_offline_mode_counts_what_the_cache_lacks_as_absent(find: Callable[..., Repository], tmp_path: Path) -> None:
    commit = tmp_path / "cache" / "models--acme--open" / "snapshots" / ("0" * 40)
    commit.mkdir(parents=True)
    (commit / "config.json").write_text("{}")
    (commit.parents[1] / "refs").mkdir()
    (commit.parents[1] / "refs" / "main").write_text(commit.name)
    cached = find("acme/open")
    assert cached.file("config.json") == commit / "config.json"
    assert cached.file("tokenizer.json") is None
    assert "HF_HUB_OFFLINE forbids downloads: there is no tokenizer.json" in str(missing(cached, "tokenizer.json"))


@pytest.mark.usefixtures("hub", "offline")
def test_the_cache_is_where_huggingface_hub_has_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "elsewhere"))
    with pytest.raises(HubUnreachableError, match=re.escape(f"must be in the cache {tmp_path / 'elsewhere'}")):
        Repository("acme/open").located()


@pytest.mark.vcr
@pytest.mark.usefixtures("models")
def test_a_download_leaves_the_programs_own_bars_as_they_were(
    find: Callable[..., Repository], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    utils = importlib.import_module("huggingface_hub.utils")
    monkeypatch.setenv(VARIABLE, "0")
    assert find("acme/open").file("model.safetensors")
    assert not utils.are_progress_bars_disabled("huggingface_hub.http_get")
    assert "safetensors" not in capfd.readouterr().err


@pytest.mark.parametrize("before", [None, "3"])
def test_bars_in_a_notebook_leave_the_environment_as_it_was(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    monkeypatch.setattr("langchain_petals.progress.is_in_notebook", lambda: True)
    if before is None:
        monkeypatch.delenv("TQDM_POSITION", raising=False)
    else:
        monkeypatch.setenv("TQDM_POSITION", before)
    with download_bars():
        with download_bars():
            pass
        assert os.environ["TQDM_POSITION"] == "-1"
    assert os.environ.get("TQDM_POSITION") == before
