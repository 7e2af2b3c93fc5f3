"""Hugging Face folders as tensors, and back."""

import json
from pathlib import Path

import pytest

from tailrace.weights import folder
from tailrace.weights.tensors import ITEM_BYTES, digest
from tests.weights.models import FILES, model, same, tensor


def test_every_dtype_comes_back(tmp_path: Path) -> None:
    tensors = {dtype: tensor(dtype, (3, 5), seed) for seed, dtype in enumerate(ITEM_BYTES)}
    tensors |= {"scalar": tensor("bfloat16", ()), "empty": tensor("float32", (0, 4))}
    folder.write(tmp_path / "model", tensors, FILES)
    assert same(folder.read(tmp_path / "model"), tensors)
    assert folder.read_files(tmp_path / "model") == FILES


def test_a_folder_made_by_transformers(tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file
    import torch

    ours = folder.read(tiny_model)
    theirs = load_file(tiny_model / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert "lm_head.weight" not in ours  # tied: stored once
    for name, weights in theirs.items():
        assert ours[name].shape == tuple(weights.shape)
        assert (ours[name].bits == weights.view(torch.uint16).numpy().ravel()).all()
    folder.write(tmp_path / "copy", ours, folder.read_files(tiny_model))
    again = load_file(tmp_path / "copy" / "model.safetensors")
    assert all(torch.equal(again[name], theirs[name]) for name in theirs)
    assert {"config.json", "tokenizer.json"} <= folder.read_files(tiny_model).keys()


def test_a_sharded_folder(tmp_path: Path) -> None:
    whole = model()
    names = sorted(whole)
    sharded = tmp_path / "sharded"
    sharded.mkdir()
    weight_map: dict[str, str] = {}
    for number, share in enumerate((names[:2], names[2:])):
        folder.write(tmp_path / "part", {name: whole[name] for name in share}, {})
        shard = f"model-{number + 1}-of-2.safetensors"
        (tmp_path / "part" / folder.WEIGHTS_FILE).rename(sharded / shard)
        weight_map |= dict.fromkeys(share, shard)
    index = sharded / folder.INDEX_FILE
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert digest(folder.read(sharded)) == digest(whole)
    assert folder.read_files(sharded) == {}
    index.write_text(json.dumps({"weight_map": weight_map | {"lost": shard}}))
    with pytest.raises(ValueError, match="shards lack 'lost'"):
        folder.read(sharded)
    index.write_text(json.dumps({"weight_map": {"x": "../part/model.safetensors"}}))
    with pytest.raises(ValueError, match="outside the folder"):
        folder.read(sharded)


def _stored(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x05\0\0\0\0\0\0\0{}",
        b"\xff" * 16,
        b"\x02\0\0\0\0\0\0\0[]",
        b"\x02\0\0\0\0\0\0\0{",
        _stored({"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}, b"0"),
        _stored({"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}, b"000"),
        _stored({"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 2]}}, b"0000"),
        _stored({"a": {"dtype": "BF16", "shape": [-1], "data_offsets": [2, 0]}}, b"0000"),
        _stored({"a": {"shape": [2]}}),
        _stored({"a": 7}),
    ],
)
def test_broken_safetensors_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / folder.WEIGHTS_FILE).write_bytes(content)
    with pytest.raises(ValueError, match="model.safetensors: (broken|no) safetensors"):
        folder.read(tmp_path)


def test_no_safetensors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        folder.read(tmp_path)


def test_writing_replaces_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "model"
    folder.write(target, model(1), FILES)
    mapped = folder.read(target)
    folder.write(target, model(2), {})
    assert same(folder.read(target), model(2))
    assert folder.read_files(target) == {}
    assert same(mapped, model(1))  # who mapped the old one keeps it
    with pytest.raises(TypeError):
        folder.write(target, model(3), {"config.json": "text"})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="cannot be a file"):
        folder.write(target, model(3), {"../config.json": b""})
    assert same(folder.read(target), model(2))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
