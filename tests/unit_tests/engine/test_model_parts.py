"""The parts of a model in this process compute what transformers does before the first block and after the last one."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import pytest
import torch
from random_families import FAMILIES, random_model, save
from transformers import AutoConfig

from langchain_petals import hub
from langchain_petals.engine import head
from langchain_petals.engine.loading.checkpoint import Checkpoint
from langchain_petals.engine.loading.families import FAMILIES as KNOWN
from langchain_petals.engine.loading.families import family_of
from langchain_petals.engine.model_parts import ModelParts
from langchain_petals.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from transformers import PreTrainedModel

    from langchain_petals.hub import Repository

IDS = torch.tensor([[5, 11, 42, 7, 90], [0, 95, 1, 2, 3]])

of_families = pytest.mark.parametrize("fields", FAMILIES.values(), ids=FAMILIES)


def read(folder: Path, find: Callable[..., Repository], **options: Any) -> ModelParts:
    """Return the parts of a checkpoint."""
    files = find(str(folder))
    config = hub.read_json(files, "config.json")
    assert config is not None
    return ModelParts(config, family_of(config, "model"), Checkpoint(files).read, **options)


def around_the_blocks(model: PreTrainedModel) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return what transformers gives to the first block, what it gets from the last one, and the logits."""
    base = model.base_model
    blocks, norm = (base.h, base.ln_f) if hasattr(base, "h") else (base.layers, base.norm)
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_: object, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor]) -> None:
            seen[name] = args[0] if args else kwargs["hidden_states"]

        return hook

    hooks = [
        module.register_forward_pre_hook(keep(name), with_kwargs=True)
        for module, name in ((blocks[0], "embedded"), (norm, "hidden"))
    ]
    with torch.inference_mode():
        logits = model(input_ids=IDS, use_cache=False).logits
    for hook in hooks:
        hook.remove()
    return seen["embedded"], seen["hidden"], logits


def test_every_family_of_the_table_is_tested() -> None:
    assert {fields["model_type"] for fields in FAMILIES.values()} == set(KNOWN)


@pytest.mark.parametrize("kind", KNOWN)
def test_defaults_of_the_table_are_those_of_transformers(kind: str) -> None:
    family, config = KNOWN[kind], AutoConfig.for_model(kind)
    assert getattr(config, family.epsilon) == family.default_epsilon
    assert config.tie_word_embeddings == family.is_tied


@of_families
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("slow", [True, False], ids=["slow head", "fast head"])
@torch.inference_mode()
def test_parts_equal_those_of_transformers(
    fields: dict[str, Any],
    dtype: torch.dtype,
    find: Callable[..., Repository],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    tied: bool,
    slow: bool,
) -> None:
    model = random_model({**fields, "tie_word_embeddings": tied}, dtype)
    save(model, tmp_path / "model")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2" if slow else "AVX512")
    monkeypatch.setattr(head, "_PART_NUMBERS", 40 * 32)
    parts = read(tmp_path / "model", find)
    embedded, hidden, logits = around_the_blocks(model)
    assert torch.equal(parts.embed(IDS), embedded)
    ours = parts.logits(hidden[:, -1])
    assert ours.dtype == torch.float32
    assert torch.equal(ours.argmax(-1), logits[:, -1].argmax(-1))
    # matrix products of other shapes round differently; a slow head computes more exactly than transformers
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2 if slow else 0
    torch.testing.assert_close(ours, logits[:, -1].float(), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(parts.logits(hidden[:, -2:])[:, 1], ours, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("family", ["bloom", "llama", "falcon-40b"])
@torch.inference_mode()
def test_checkpoint_without_a_head_has_names_without_a_prefix(
    family: str, find: Callable[..., Repository], tmp_path: Path
) -> None:
    model = random_model({**FAMILIES[family], "tie_word_embeddings": True})
    save(model, tmp_path / "model", headless=True)
    parts = read(tmp_path / "model", find)
    embedded, hidden, logits = around_the_blocks(model)
    assert torch.equal(parts.embed(IDS), embedded)
    torch.testing.assert_close(parts.logits(hidden[:, -1]), logits[:, -1], rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_parts_take_the_type_that_is_asked_for(find: Callable[..., Repository], tmp_path: Path) -> None:
    save(random_model(FAMILIES["llama"]), tmp_path / "model")
    parts = read(tmp_path / "model", find, dtype=torch.bfloat16)
    assert parts.embed(IDS).dtype == torch.bfloat16
    assert parts.logits(parts.embed(IDS)[:, -1]).dtype == torch.float32


@torch.inference_mode()
def test_parts_of_mixed_types_take_the_type_of_the_embeddings() -> None:
    names = {"word_embeddings.weight": (6, 4)} | {
        f"{norm}.{part}": (4,) for norm in ("word_embeddings_layernorm", "ln_f") for part in ("weight", "bias")
    }
    tensors = {
        f"transformer.{name}": torch.ones(shape, dtype=torch.float32 if len(shape) == 2 else torch.float16)
        for name, shape in names.items()
    }
    parts = ModelParts({"n_layer": 1, "hidden_size": 4}, KNOWN["bloom"], tensors.get)
    hidden = parts.embed(IDS[:, :1])
    assert hidden.dtype == torch.float32
    assert parts.logits(hidden[:, -1]).shape == (2, 6)


class Tensors(dict[str, torch.Tensor]):
    """A checkpoint that weak references can refer to."""


def test_parts_do_not_keep_their_checkpoint() -> None:
    tensors = Tensors(WHOLE)
    reference = weakref.ref(tensors)
    parts = parts_of(tensors)
    del tensors
    assert reference() is None
    assert parts.vocabulary_size == 6


# ---- checkpoints that do not fit


def parts_of(tensors: Mapping[str, torch.Tensor], **config: Any) -> ModelParts:
    fields = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 4, "vocab_size": 6} | config
    return ModelParts(fields, KNOWN["llama"], tensors.get)


WHOLE = {
    "model.embed_tokens.weight": torch.ones(6, 4),
    "model.norm.weight": torch.ones(4),
    "lm_head.weight": torch.ones(6, 4),
}


def test_sizes_come_from_the_config_and_the_head() -> None:
    parts = parts_of(WHOLE)
    assert (parts.blocks, parts.hidden_size, parts.vocabulary_size) == (2, 4, 6)


@pytest.mark.parametrize("name", WHOLE)
def test_missing_tensor_is_an_error_with_its_name(name: str) -> None:
    with pytest.raises(ModelLoadError, match=f"no tensor '{name}'"):
        parts_of({other: tensor for other, tensor in WHOLE.items() if other != name})


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize(
    "wrong", [torch.ones(6, 5), torch.ones(5), torch.ones(1, 6, 4), torch.ones(6, 4, dtype=torch.int64)]
)
def test_tensor_of_another_shape_or_type_is_an_error_with_its_name(name: str, wrong: torch.Tensor) -> None:
    shape = r"\(4,\)" if "norm" in name else r"\(tokens, 4\)"
    with pytest.raises(ModelLoadError, match=f"tensor '{name}' has .* should have shape {shape} and floating-point"):
        parts_of({**WHOLE, name: wrong})


@pytest.mark.parametrize("wrong", [None, 0, -1, True, 1.5, "2", [2]], ids=repr)
@pytest.mark.parametrize("name", ["num_hidden_layers", "hidden_size"])
def test_size_that_is_no_whole_number_is_an_error_with_its_name(name: str, wrong: Any) -> None:
    with pytest.raises(ModelLoadError, match=name):
        parts_of(WHOLE, **{name: wrong})
