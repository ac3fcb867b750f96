"""Bytes of quantised checkpoints, by hand."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, FineGrainedFP8Config
from transformers.integrations.finegrained_fp8 import replace_with_fp8_linear

from tests.small import SHARED, WRAPPERS, small_lvlm, small_wrapper
from workbench.lvlm.models import resolve
from workbench.lvlm.weights.quantized import NotComputed, linear_bytes, quantized_weights, stays
from workbench.probe.predicting.limit import predicted_limit
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell

ROWS, COLUMNS = 256, 512
N = ROWS * COLUMNS


@pytest.mark.parametrize(
    ("method", "fields", "expected"),
    [
        ("awq", {"bits": 4, "group_size": 128}, N // 2 + 4 * ROWS // 2 + 2 * 4 * ROWS),
        (
            "gptq",
            {"bits": 4, "group_size": 128},
            N // 2 + 4 * ROWS // 2 + 2 * 4 * ROWS + 4 * COLUMNS,
        ),
        ("gptq", {"bits": 8, "group_size": -1}, N + ROWS + 2 * ROWS + 4 * COLUMNS),
        ("bitsandbytes", {"load_in_8bit": True}, N + 4 * ROWS),
        ("bitsandbytes", {"load_in_4bit": True}, N // 2 + 4 * N // 64 + 64),
        (
            "bitsandbytes",
            {"load_in_4bit": True, "bnb_4bit_use_double_quant": True},
            N // 2 + N // 64 + 4 * (N // 64 // 256) + 4 + 64 + 1024,
        ),
        ("fp8", {"weight_block_size": [128, 128]}, N + 4 * 2 * 4),
        ("fp8", {"weight_block_size": [128, 128], "scale_fmt": "ue8m0"}, N + 2 * 4),
        (
            "compressed-tensors",
            {
                "format": "pack-quantized",
                "config_groups": {"g": {"weights": {"num_bits": 8, "strategy": "channel"}}},
            },
            N + 16 + 2 * ROWS,
        ),
        ("fbgemm_fp8", {}, N + 4 * ROWS + 4),
        (
            "compressed-tensors",
            {
                "config_groups": {
                    "g": {"weights": {"num_bits": 8, "strategy": "channel", "symmetric": True}}
                }
            },
            N + 2 * ROWS,
        ),
        (
            "compressed-tensors",
            {
                "config_groups": {
                    "g": {
                        "weights": {
                            "num_bits": 4,
                            "strategy": "group",
                            "group_size": 128,
                            "symmetric": True,
                        }
                    }
                }
            },
            N // 2 + 16 + 2 * N // 128,
        ),
    ],
)
def test_a_linear_layer(method, fields, expected):
    assert linear_bytes(method, fields, ROWS, COLUMNS) == expected


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("awq", {"bits": 5}),
        ("awq", {"group_size": 100}),
        ("awq", {"bits": "4"}),
        ("fp8", {"weight_block_size": [0, 1]}),
        ("compressed-tensors", {"config_groups": {"a": {}, "b": {}}}),
        (
            "compressed-tensors",  # MXFP4: scales of a byte.
            {
                "config_groups": {
                    "g": {
                        "weights": {
                            "num_bits": 4,
                            "type": "float",
                            "strategy": "group",
                            "group_size": 32,
                        }
                    }
                }
            },
        ),
        (
            "compressed-tensors",
            {"config_groups": {"g": {"targets": ["re:.*mlp.*"], "weights": {"num_bits": 8}}}},
        ),
        ("compressed-tensors", {"config_groups": {"a": {"weights": {"strategy": "spiral"}}}}),
    ],
)
def test_what_is_not_known_has_a_reason(method, fields):
    with pytest.raises(NotComputed):
        linear_bytes(method, fields, ROWS, COLUMNS)


def test_modules_that_stay():
    assert stays("model.layers.1.mlp.up_proj", ["layers.1"])
    assert not stays("model.layers.11.mlp.up_proj", ["layers.1"])
    assert stays("lm_head", ["re:.*head"])
    with pytest.raises(NotComputed, match="no pattern"):
        stays("lm_head", ["re:("])


def write(folder, quantization):
    fields = {
        **SHARED,
        "model_type": "llama",
        "torch_dtype": "bfloat16",
        "quantization_config": quantization,
    }
    (folder / "config.json").write_text(json.dumps(fields))
    return str(folder)


@pytest.mark.parametrize("scope", ["layer", "decoder"])
def test_what_stays_is_in_the_file_s_dtype(scope, tmp_path):
    """Linear layers of the layers that are not kept aside; embeddings, norms and head remain."""
    name = write(
        tmp_path,
        {
            "quant_method": "bitsandbytes",
            "load_in_8bit": True,
            "llm_int8_skip_modules": ["lm_head", "mlp"],
        },
    )
    cell = make_cell(model=name, scope=scope, num_visual=8, dtype="float32")
    record = predict(cell, "h100-80gb")
    # q and o are 32 × 32, k and v 16 × 32.
    layers = 1 if scope == "layer" else 2
    taken = layers * (2 * 32 * 32 + 2 * 16 * 32)
    rows = layers * 4 * (32 + 32 + 16 + 16)
    params = record.metrics["params"]
    assert record.metrics["quantized_weight_bytes"] == taken + rows + 2 * (params - taken)
    assert record.metrics["weight_bytes"] >= 4 * params
    assert any("priced and run in the cell's float32" in flag for flag in record.flags)


def test_what_gptqmodel_leaves_out_stays(tmp_path):
    """Patterns after ``-:``; others without settings of their own change nothing."""
    dynamic = {"lm_head": {}, "-:.*attn.*": {}, "-:.*visual.*": {}}
    scheme = {"quant_method": "gptq", "bits": 4, "group_size": 16, "lm_head": False}
    name = write(tmp_path, {**scheme, "dynamic": dynamic})
    cell = make_cell(model=name, scope="decoder", num_visual=8)
    record = predict(cell, "h100-80gb")
    wide = SHARED["intermediate_size"]
    sizes = [(wide, 32), (wide, 32), (32, wide)] * 2
    taken = sum(rows * columns for rows, columns in sizes)
    expected = sum(linear_bytes("gptq", scheme, *size) for size in sizes)
    assert record.metrics["quantized_weight_bytes"] == expected + 2 * (
        record.metrics["params"] - taken
    )


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    ("quantization", "scales"),
    [
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 4),
        ({"quant_method": "fbgemm_fp8"}, 4),
        ({"quant_method": "fp8", "weight_block_size": [1, 1000]}, 4),
    ],
)
def test_a_list_that_does_not_name_the_head_takes_it(quantization, scales, tied, tmp_path):
    """transformers adds the head to the layers that stay only where there is no list."""
    field = "llm_int8_skip_modules" if "load_in_8bit" in quantization else "modules_to_not_convert"
    counts = []
    for stay in (None, [], ["vision"], ["lm_head"]):
        fields = {
            **SHARED,
            "model_type": "llama",
            "dtype": "bfloat16",
            "tie_word_embeddings": tied,
            "quantization_config": {**quantization, field: stay},
        }
        (tmp_path / "config.json").write_text(json.dumps(fields))
        model = resolve(str(tmp_path))
        cell = make_cell(model=str(tmp_path), scope="decoder", num_visual=1)
        metrics, _ = quantized_weights(model, cell, 1_000_000)
        counts.append(metrics["quantized_weight_bytes"])
    plain, empty, other, named = counts
    assert plain == named
    assert empty == other
    if tied:
        assert empty is None
    else:
        entering = 4 if quantization["quant_method"] == "fbgemm_fp8" else 0
        rows, columns = SHARED["vocab_size"], SHARED["hidden_size"]
        assert plain - empty == rows * columns - scales * rows - entering


@pytest.mark.parametrize(
    "quantization",
    [
        {"quant_method": "mxfp4"},
        {"quant_method": "gptq", "bits": 4, "dynamic": {"+:.*mlp.*": {"bits": 8}}},
        {"quant_method": "gptq", "bits": 4, "dynamic": ["-:.*mlp.*"]},
        {"quant_method": "gptq", "bits": 4, "lm_head": True},
        {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemv"},
        {"quant_method": "fp8", "expert_dtype": "fp4"},
        {"quant_method": "fp8", "modules_to_convert": ["embed_tokens"]},
        {"quant_method": "compressed-tensors", "sparsity_config": {"format": "sparse-24-bitmask"}},
    ],
)
def test_a_layout_that_is_not_known_has_no_bytes(quantization, tmp_path):
    name = write(tmp_path, quantization)
    cell = make_cell(model=name, num_visual=1)
    metrics, (flag,) = quantized_weights(resolve(name), cell, 1_000_000)
    assert metrics == {"quantized_weight_bytes": None}
    assert "not known" in flag


def test_an_unknown_method_is_told_and_none(tmp_path):
    name = write(tmp_path, {"quant_method": "origami"})
    metrics, flags = quantized_weights(resolve(name), make_cell(model=name, num_visual=1), 10)
    assert metrics == {"quantized_weight_bytes": None}
    assert flags[0].startswith("quantized_weight_bytes: origami: its layout is not known")


def test_a_threshold_says_so_too(tmp_path):
    name = write(tmp_path, {"quant_method": "awq", "bits": 4})
    found = predicted_limit(make_cell(model=name, num_visual=1), "rtx-4090-24gb")
    assert any("awq, 4 bits" in flag for flag in found.document()["flags"])


def quantise(name, quantization):
    """The folder's config.json with that section, in bfloat16."""
    path = Path(name, "config.json")
    fields = json.loads(path.read_text())
    path.write_text(
        json.dumps({**fields, "dtype": "bfloat16", "quantization_config": quantization})
    )


def bytes_of(name):
    model, cell = resolve(name), make_cell(model=name, scope="lvlm", num_visual=4, num_text=4)
    with torch.device("meta"):
        whole = AutoModelForImageTextToText.from_config(model.whole)
    params = sum(p.numel() for p in whole.parameters())
    metrics, flags = quantized_weights(model, cell, params)
    return metrics["quantized_weight_bytes"], flags


@pytest.mark.parametrize("kind", ["mistral3", "qwen3_vl_moe", "glm4v_moe", "llama4"])
@pytest.mark.parametrize(
    "fields",
    [
        {"weight_block_size": [16, 16]},
        {"weight_block_size": [128, 128]},
        {"weight_block_size": None, "activation_scheme": "static"},
    ],
)
@pytest.mark.parametrize(
    "stay",
    [["lm_head"], ["lm_head", "model.vision_tower", "model.visual"], ["model.visual"]],
)
def test_fp8_is_what_transformers_builds(kind, fields, stay, tmp_path):
    """Experts, which it stacks, and the layers of tower and adapter that are not kept aside."""
    make = small_wrapper if kind in WRAPPERS else small_lvlm
    name = make(kind, tmp_path)
    with torch.device("meta"):
        config = AutoConfig.from_pretrained(name)
        whole = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    settings = FineGrainedFP8Config(**fields)
    whole = replace_with_fp8_linear(whole, stay, settings, pre_quantized=True)
    # A bias is made in float32 there, and loaded in the model's bfloat16.
    wanted = sum(
        p.numel() * (2 if path.endswith(".bias") else p.element_size())
        for path, p in whole.named_parameters()
    )
    quantise(name, {"quant_method": "fp8", "modules_to_not_convert": stay, **fields})
    assert bytes_of(name) == (wanted, [])


def test_experts_of_a_checkpoint_are_linear_layers_each(tmp_path):
    name = small_lvlm("qwen3_vl_moe", tmp_path)
    with torch.device("meta"):
        whole = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(name))
    text = whole.config.text_config
    hidden, inner, experts = text.hidden_size, text.moe_intermediate_size, text.num_experts
    weights = {"num_bits": 8, "strategy": "channel", "symmetric": True}
    stay = ["lm_head", "re:visual", "re:.*self_attn"]
    quantization = {
        "quant_method": "compressed-tensors",
        "config_groups": {"g": {"weights": weights}},
        "ignore": stay,
    }
    quantise(name, quantization)
    # A byte less for each value, and a bfloat16 for each row of gate, up and down.
    layers = text.num_hidden_layers * experts
    taken, rows = layers * 3 * hidden * inner, layers * (2 * inner + hidden)
    total = sum(p.numel() for p in whole.parameters())
    assert bytes_of(name) == (2 * total - taken + 2 * rows, [])
    quantization["ignore"] = [*stay, "model.language_model.layers.0.mlp.experts.1.up_proj"]
    quantise(name, quantization)
    count, (flag,) = bytes_of(name)
    assert count is None
    assert "ignore names single experts" in flag
    quantise(name, {"quant_method": "bitsandbytes", "load_in_8bit": True})
    count, (flag,) = bytes_of(name)
    assert count is None
    assert "bitsandbytes: how it holds experts is not known" in flag
