"""Single tensors of a checkpoint, from files that may be broken or harmful."""

from __future__ import annotations

import gc
import json
import warnings
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from langchain_petals.engine.loading.checkpoint import Checkpoint
from langchain_petals.errors import ModelLoadError
from langchain_petals.hub import Repository

ONE, TWO = torch.arange(6.0).reshape(2, 3), torch.ones(4, dtype=torch.bfloat16)


class AskedFiles:
    """The files of a folder, and which of them were asked for."""

    def __init__(self, folder: Path) -> None:
        self.name, self._files, self.asked = str(folder), Repository(str(folder)), list[str]()

    def file(self, filename: str) -> Path | None:
        found = self._files.file(filename)
        self.asked += [filename] if found is not None else []
        return found


def in_parts(folder: Path, write: Any, kind: str, whole: str) -> None:
    write({"one": ONE}, folder / f"part-1.{kind}")
    write({"two": TWO}, folder / f"part-2.{kind}")
    places = {"one": f"part-1.{kind}", "two": f"part-2.{kind}", "lost": f"part-3.{kind}"}
    (folder / f"{whole}.index.json").write_text(json.dumps({"weight_map": places}))


def write_index(folder: Path, content: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Any:
    """Return a function that opens the checkpoint in the test's folder."""

    def checkpoint() -> Checkpoint:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*pickles only")
            return Checkpoint(Repository(str(tmp_path)))

    return checkpoint


def test_only_files_that_hold_asked_tensors_are_fetched(tmp_path: Path) -> None:
    in_parts(tmp_path, save_file, "safetensors", "model.safetensors")
    files = AskedFiles(tmp_path)
    read = Checkpoint(files).read
    assert torch.equal(read("two"), TWO)
    assert read("another") is None
    assert files.asked == ["model.safetensors.index.json", "part-2.safetensors"]


def test_a_tensor_is_mapped_and_not_read(tmp_path: Path, checkpoint: Any) -> None:
    save_file({"large": torch.zeros(2**22), "one": ONE}, tmp_path / "model.safetensors")
    large = checkpoint().read("large")
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.seek(-(2**24), 2)
        file.write(b"\x00\x00\x80\x3f")  # 1.0
    changed = int(large.sum())
    assert changed == 1


@pytest.mark.parametrize("is_archive", [True, False], ids=["archive", "before torch 1.6"])
def test_pickles_give_the_same_tensors(*, tmp_path: Path, checkpoint: Any, is_archive: bool) -> None:
    torch.save({"one": ONE, "two": TWO}, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=is_archive)
    assert torch.equal(checkpoint().read("one"), ONE)
    assert torch.equal(checkpoint().read("two"), TWO)
    assert checkpoint().read("three") is None


def test_pickles_in_parts_give_the_same_tensors(tmp_path: Path, checkpoint: Any) -> None:
    in_parts(tmp_path, torch.save, "bin", "pytorch_model.bin")
    assert torch.equal(checkpoint().read("two"), TWO)
    with pytest.raises(ModelLoadError, match=r"has no part-3\.bin"):
        checkpoint().read("lost")


def test_pickles_are_read_with_a_warning_and_only_without_safetensors(tmp_path: Path) -> None:
    torch.save({"one": TWO}, tmp_path / "pytorch_model.bin")
    with pytest.warns(UserWarning, match="has its weights in pickles only, which can hold harmful code") as caught:
        Checkpoint(Repository(str(tmp_path)))
    assert len(caught) == 1
    save_file({"one": ONE}, tmp_path / "model.safetensors")
    assert torch.equal(Checkpoint(Repository(str(tmp_path))).read("one"), ONE)


def test_pickles_leave_memory_with_their_checkpoint(tmp_path: Path, checkpoint: Any) -> None:
    torch.save({"one": ONE}, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    opened = checkpoint()
    opened.read("one")
    reference = weakref.ref(opened)
    gc.disable()  # so only a checkpoint without reference cycles is freed
    try:
        del opened
        assert reference() is None
    finally:
        gc.enable()


class Harm:
    """Would write a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("is_archive", [True, False], ids=["archive", "before torch 1.6"])
def test_weights_in_a_harmful_pickle_run_no_code(*, tmp_path: Path, checkpoint: Any, is_archive: bool) -> None:
    harm = tmp_path / "harm"
    content = {"weight": Harm(harm)}
    torch.save(content, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=is_archive)
    with pytest.raises(ModelLoadError, match=r"'pytorch_model\.bin' of .* cannot be read"):
        checkpoint().read("weight")
    assert not harm.exists()


@pytest.mark.parametrize(
    "content",
    [
        [ONE],
        {"one": "a text"},
        {"one": torch.zeros(1).expand(2**40)},
        {"one": torch.eye(3).to_sparse()},
        {"one": torch.nn.Parameter(torch.zeros(3)).to("meta")},
    ],
    ids=["no dictionary", "no tensor", "a huge view of one number", "sparse", "without numbers"],
)
def test_a_pickle_without_a_dense_tensor_is_refused(tmp_path: Path, checkpoint: Any, content: Any) -> None:
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match="cannot be read"):
        checkpoint().read("one")


@pytest.mark.parametrize("kind", [torch.int8, torch.int64, torch.bool, torch.float8_e4m3fn])
def test_quantized_weights_are_refused_with_what_to_do(tmp_path: Path, checkpoint: Any, kind: torch.dtype) -> None:
    save_file({"one": torch.zeros(3, 3).to(kind)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelLoadError, match=r"is of the type \w+; .* Take a checkpoint that is not quantized"):
        checkpoint().read("one")


@pytest.mark.parametrize(
    "name",
    [
        "../outside.safetensors",
        "/etc/passwd",
        "..",
        ".",
        "",
        "a/b.safetensors",
        "..\\x",
        "a\0b",
        "a\nb",
        "\ud800",
        5,
        None,
        ["x"],
    ],
)
def test_an_index_names_only_files_beside_it(tmp_path: Path, checkpoint: Any, name: Any) -> None:
    save_file({"one": ONE}, tmp_path.parent / "outside.safetensors")
    write_index(tmp_path, {"weight_map": {"one": name}})
    with pytest.raises(
        ModelLoadError, match=r"model\.safetensors\.index\.json of .* names .*, which is no file beside"
    ):
        checkpoint()


@pytest.mark.parametrize("content", [{}, [], 5, {"weight_map": None}, {"weight_map": ["one"]}])
def test_an_index_without_a_map_is_refused(tmp_path: Path, checkpoint: Any, content: Any) -> None:
    write_index(tmp_path, content)
    with pytest.raises(
        ModelLoadError, match=r"model\.safetensors\.index\.json of .* (has no weight_map|no JSON object)"
    ):
        checkpoint()


@pytest.mark.parametrize("length", [0, 3, 8, 40, -1])
def test_cut_off_files_are_refused(tmp_path: Path, checkpoint: Any, length: int) -> None:
    save_file({"one": ONE}, tmp_path / "whole")
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "whole").read_bytes()[:length])
    with pytest.raises(ModelLoadError, match=r"'model\.safetensors' of .* cannot be read"):
        checkpoint().read("one")
    torch.save({"one": ONE}, tmp_path / "whole")
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes((tmp_path / "whole").read_bytes()[:length])
    with pytest.raises(ModelLoadError, match=r"'pytorch_model\.bin' of .* cannot be read"):
        checkpoint().read("one")


def test_a_model_without_weights_says_what_is_missing(tmp_path: Path, checkpoint: Any) -> None:
    with pytest.raises(ModelLoadError, match=r"has no model\.safetensors and no pytorch_model\.bin"):
        checkpoint()
