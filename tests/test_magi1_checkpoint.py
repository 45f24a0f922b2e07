"""MAGI-1 checkpoints: the official layouts load; others are refused in one line before generation starts."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from models.magi1.checkpoint import INDEX, SINGLE, CheckpointError, load_dit, random_dit
from models.magi1.config import ModelConfig

CONFIG = ModelConfig(
    num_layers=2,
    hidden_size=32,
    ffn_hidden_size=64,
    num_attention_heads=4,
    num_query_groups=2,
    kv_channels=8,
    caption_channels=12,
    params_dtype="float32",
)


@pytest.fixture(scope="module")
def weights():
    return {name: tensor.clone() for name, tensor in random_dit(CONFIG, seed=5).state_dict().items()}


def _sharded(folder, weights, count=3):
    folder.mkdir(parents=True, exist_ok=True)
    names, where = sorted(weights), {}
    for i in range(count):
        file = f"model-{i + 1:05d}-of-{count:05d}.safetensors"
        part = {name: weights[name] for name in names[i::count]}
        save_file(part, folder / file)
        where |= dict.fromkeys(part, file)
    (folder / INDEX).write_text(json.dumps({"weight_map": where}))
    return folder


def _equal(model, weights):
    return all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def _refused(folder, distill=True, config=CONFIG):
    with pytest.raises(CheckpointError) as caught:
        load_dit(config, folder, distill)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_single_and_sharded_weights_load_from_the_official_places(tmp_path, weights):
    _sharded(tmp_path / "inference_weight.distill", weights)
    assert _equal(load_dit(CONFIG, tmp_path, distill=True), weights)
    assert _equal(load_dit(CONFIG, tmp_path / "inference_weight.distill", distill=True), weights)
    plain = tmp_path / "anything"
    plain.mkdir()
    save_file(weights, plain / SINGLE)
    for distill in (True, False):  # nothing says which model it is
        assert _equal(load_dit(CONFIG, plain, distill), weights)


def test_weights_are_mapped_from_their_file_not_copied(tmp_path, weights):
    save_file(weights, tmp_path / SINGLE)
    model = load_dit(CONFIG, tmp_path, distill=True)
    stores = {p.untyped_storage().data_ptr() for p in model.parameters()}
    spans = sorted((p.data_ptr(), p.numel() * p.element_size()) for p in model.parameters())
    total = sum(size for _, size in spans)
    assert spans[-1][0] + spans[-1][1] - spans[0][0] <= total + 64 * len(spans), "one mapping, tensors side by side"
    assert len(stores) <= len(spans)


def test_bfloat16_checkpoints_keep_float32_where_they_must(tmp_path, weights):
    save_file({name: tensor.bfloat16() for name, tensor in weights.items()}, tmp_path / SINGLE)
    model = load_dit(replace(CONFIG, params_dtype="bfloat16"), tmp_path, distill=True)
    assert model.x_embedder.weight.dtype == torch.float32
    assert model.layers[0].self_attention.linear_qkv.q.weight.dtype == torch.bfloat16
    assert model.layers[0].self_attention.q_layernorm_xattn.weight.dtype == torch.bfloat16


def test_the_other_kind_of_model_is_refused(tmp_path, weights):
    _sharded(tmp_path / "inference_weight", weights)
    assert "holds the base model" in _refused(tmp_path, distill=True)
    assert "distill=false cfg_number=3" in _refused(tmp_path / "inference_weight", distill=True)
    assert _equal(load_dit(CONFIG, tmp_path, distill=False), weights)
    other = _sharded(tmp_path / "other" / "inference_weight.distill", weights)
    assert "distill=true cfg_number=1" in _refused(other, distill=False)
    told = _sharded(tmp_path / "told", weights)
    (told / "config.json").write_text(json.dumps({"engine_config": {"distill": False}}))
    assert "holds the base model" in _refused(told, distill=True)


def test_nothing_there_says_what_to_download(tmp_path):
    assert "hf download sand-ai/MAGI-1" in _refused(tmp_path / "absent")
    assert "no distilled MAGI-1 weights" in _refused(tmp_path)


def test_a_missing_shard_is_named(tmp_path, weights):
    folder = _sharded(tmp_path, weights)
    shard = folder / "model-00002-of-00003.safetensors"
    shard.unlink()
    assert "1 of 3 shards are missing" in _refused(folder) and shard.name in _refused(folder)
    (folder / f"{shard.name}.zst").touch()
    assert f"zstd -d {shard.name}.zst" in _refused(folder)


@pytest.mark.parametrize("keep", [0, 5, 4000, -1])
def test_a_file_that_was_cut_off_is_named(tmp_path, weights, keep):
    save_file(weights, tmp_path / SINGLE)
    whole = (tmp_path / SINGLE).read_bytes()
    (tmp_path / SINGLE).write_bytes(whole[:keep])
    assert "cut off" in _refused(tmp_path) and SINGLE in _refused(tmp_path)


def test_another_model_is_refused_with_the_names(tmp_path, weights):
    changed = dict(weights)
    changed["pos_embed"] = changed.pop("rope.bands")
    changed["final_linear.linear.weight"] = torch.zeros(64, 16)
    save_file(changed, tmp_path / SINGLE)
    message = _refused(tmp_path)
    assert "1 missing: rope.bands" in message and "1 unexpected: pos_embed" in message
    assert "final_linear.linear.weight (64, 16), want (64, 32)" in message
    deeper = _refused(tmp_path, config=replace(CONFIG, num_layers=4))
    assert "53 missing" in deeper and "and 47 more" in deeper


def test_an_index_that_lies_is_caught(tmp_path, weights):
    folder = _sharded(tmp_path, weights)
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["rope.bands"] = index["weight_map"]["x_embedder.weight"]
    holder = index["weight_map"]["rope.bands"]
    if "rope.bands" in sorted(weights)[int(holder[6:11]) - 1 :: 3]:
        index["weight_map"]["rope.bands"] = "model-00001-of-00003.safetensors"
    (folder / INDEX).write_text(json.dumps(index))
    assert "lacks rope.bands" in _refused(folder)
    (folder / INDEX).write_text("{}")
    assert "not an index of shards" in _refused(folder)


def test_quantised_weights_are_refused(tmp_path, weights):
    save_file({**weights, "videodit_blocks.layers.0.mlp.linear_fc1.weight_scale": torch.ones(1)}, tmp_path / SINGLE)
    assert "fp8" in _refused(tmp_path)
