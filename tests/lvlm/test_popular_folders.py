"""Fine-tunes, other sizes and quantised forms as the hub has them, served at scope lvlm."""

import re
from math import ceil

import pytest
import torch
from transformers import AutoModelForImageTextToText

from tests.lvlm.popular import OWN_LLAVA, POPULAR, QUANTISED
from tests.lvlm.published import CONFIG
from tests.lvlm.test_forty_folders import write
from workbench.lvlm.configs import silent
from workbench.lvlm.models import resolve
from workbench.lvlm.pictures import fields_of
from workbench.lvlm.towers import own_tower, tower_of
from workbench.lvlm.weights.quantized import quantized_weights
from workbench.probe.counting.trace import trace
from workbench.probe.predicting.predict import predict
from workbench.visual.tokens import tokens
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.pictures import Pictures
from workbench.vocabulary.record import Status

FOLDERS = POPULAR | QUANTISED
SMALL = (
    "opendatalab/MinerU2.5-2509-1.2B",
    "llava-hf/llava-interleave-qwen-0.5b-hf",
    "ds4sd/SmolDocling-256M-preview",
    "Qwen/Qwen3-VL-2B-Thinking-FP8",
)
TOTALS = {
    "opendatalab/MinerU2.5-2509-1.2B": 1_156_026_624,
    "OpenGVLab/InternVL3-78B-hf": 78_408_318_336,
    "RedHatAI/Mistral-Small-3.2-24B-Instruct-2506-FP8": 24_011_361_280,
    "meta-llama/Llama-3.2-90B-Vision-Instruct": 88_593_355_323,
}
"""Parameters, where a file says nothing of tied embeddings among them."""


def theirs(model):
    """transformers' whole model on shapes, tied as the file or its text model is."""
    model.whole.tie_word_embeddings = model.config.tie_word_embeddings
    with torch.device("meta"), silent():
        return AutoModelForImageTextToText.from_config(model.whole)


@pytest.mark.parametrize("name", sorted(FOLDERS))
def test_parameters_and_tokens_are_those_of_transformers(name, tmp_path):
    model = resolve(write(tmp_path, FOLDERS[name]))
    whole, tower = theirs(model), tower_of(model)
    assert own_tower(model) != "siglip"
    count = tower.tokens_each
    found = trace(make_cell(model=model.name, scope="lvlm", num_visual=count, kernel="eager"))
    total = sum(p.numel() for p in whole.parameters())
    assert found.params == total == TOTALS.get(name, total)
    assert found.flops == found.model_flops
    for width, height in ((640, 480), (1280, 720), (300, 900)):
        grids = tower.of_image(width, height)
        shown = tokens(model.name, resolution=f"{width}x{height}")["num_visual"]
        assert sum(map(tower.tokens, grids)) == shown


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("attention", ["s_attn", "d_attn"])
@pytest.mark.parametrize("pass_", ["forward", "train"])
def test_images_are_predicted_under_either_system(name, attention, pass_, tmp_path):
    folder, pictures = write(tmp_path, FOLDERS[name]), Pictures(resolution="1280x720", count=2)
    cell = make_cell(
        model=folder,
        scope="lvlm",
        attention=attention,
        **fields_of(folder, pictures, "V,T"),
        **{"pass": pass_},
    )
    record = predict(cell, "h100-80gb", pictures=pictures)
    assert record.status == Status.OK
    expected = sum(p.numel() for p in theirs(resolve(folder)).parameters())
    assert record.metrics["params"] == expected
    assert record.metrics["peak_bytes"] > 2 * expected * (1 if pass_ == "forward" else 8)


def awq(rows, columns):
    """4 bits, zero points of 4, scales of 16 a group of 128."""
    return rows * columns // 2 + columns // 128 * (rows // 2 + 2 * rows)


def row_by_row(rows, columns):
    return rows * columns + 2 * rows


def in_groups(rows, columns):
    """4 bits, scales of 16 a group of 32, and the shape as two numbers of 64."""
    return rows * columns // 2 + rows * columns // 32 * 2 + 16


def in_blocks(rows, columns):
    return rows * columns + 4 * ceil(rows / 128) * ceil(columns / 128)


def nested(rows, columns):
    """4 bits; of each 64 a scale of 8 bits, of 256 of these one of 32; an offset, two tables."""
    scales = rows * columns // 64
    return rows * columns // 2 + scales + 4 * ceil(scales / 256) + 4 + 64 + 1024


HELD = {
    "Qwen/Qwen2.5-VL-72B-Instruct-AWQ": ("visual|lm_head", awq),
    "Qwen/Qwen2-VL-72B-Instruct-GPTQ-Int4": (
        "visual|lm_head",
        lambda rows, columns: awq(rows, columns) + 4 * columns,
    ),
    "unsloth/Qwen2.5-VL-7B-Instruct-bnb-4bit": ("visual|lm_head", nested),
    "allenai/olmOCR-2-7B-1025-FP8": ("visual|lm_head", row_by_row),
    "Qwen/Qwen3-VL-235B-A22B-Thinking-FP8": ("visual|lm_head", in_blocks),
    "Qwen/Qwen3-VL-2B-Thinking-FP8": ("visual|lm_head", in_blocks),
    "QuantTrio/Qwen3-VL-30B-A3B-Instruct-AWQ": ("visual|lm_head", awq),
    "cpatonn/Qwen3-VL-32B-Instruct-AWQ-4bit": ("visual|lm_head", in_groups),
    "Qwen/Qwen3.5-27B-FP8": ("visual|lm_head|in_proj_[ab]$", in_blocks),
    "Qwen/Qwen3.5-27B-GPTQ-Int4": (
        "visual|lm_head|attn",
        lambda rows, columns: awq(rows, columns) + 4 * columns,
    ),
    "neuralmagic/pixtral-12b-FP8-dynamic": ("vision|projector|lm_head", row_by_row),
    "RedHatAI/Mistral-Small-3.2-24B-Instruct-2506-FP8": ("vision|projector|lm_head", row_by_row),
    "mistralai/Devstral-Small-2-24B-Instruct-2512": (
        "vision|projector|lm_head",
        lambda rows, columns: rows * columns + 4 + 4,
    ),
    "gaunernst/gemma-3-27b-it-qat-compressed-tensors": ("vision|projector|lm_head", in_groups),
    "HuggingFaceM4/idefics2-8b-chatty-AWQ": ("vision|connector|lm_head", awq),
    "moonshotai/Kimi-K2.5": (
        r"vision|projector|lm_head|self_attn|shared_experts|mlp\.(gate|up|down)_proj",
        in_groups,
    ),
    "zai-org/GLM-4.5V-FP8": ("visual|lm_head", row_by_row),
    "cyankiwi/GLM-4.6V-Flash-AWQ-4bit": ("visual|lm_head", in_groups),
    "neuralmagic/Llama-3.2-90B-Vision-Instruct-FP8-dynamic": (
        "vision|projector|lm_head",
        row_by_row,
    ),
}
"""Which of transformers' modules a scheme leaves alone, and what it makes of others."""


def matrices(whole, left):
    """Rows, columns and number of the weights of linear layers, those of experts apart."""
    for name, module in whole.named_modules():
        if re.search(left, name):
            continue
        if type(module) is torch.nn.Linear:
            yield *module.weight.shape, 1
        elif name.endswith(".experts"):
            count, hidden = len(module.down_proj), whole.config.text_config.hidden_size
            width = module.down_proj[0].numel() // hidden
            assert module.gate_up_proj[0].numel() == 2 * hidden * width
            yield width, hidden, 2 * count
            yield hidden, width, count


@pytest.mark.parametrize("name", sorted(QUANTISED))
def test_bytes_of_a_quantised_folder_are_the_arithmetic_of_its_scheme(name, tmp_path):
    model = resolve(write(tmp_path, QUANTISED[name]))
    whole, (left, held) = theirs(model), HELD[name]
    params = sum(p.numel() for p in whole.parameters())
    taken = [*matrices(whole, left)]
    expected = 2 * (params - sum(rows * columns * number for rows, columns, number in taken))
    expected += sum(number * held(rows, columns) for rows, columns, number in taken)
    cell = make_cell(model=model.name, scope="lvlm", num_visual=tower_of(model).tokens_each)
    metrics, flags = quantized_weights(model, cell, params)
    assert metrics == {"quantized_weight_bytes": expected}, flags


def test_llava_s_own_form_is_no_model_of_transformers(tmp_path):
    """Its sizes are the defaults of transformers' class, which would answer for another tower."""
    with pytest.raises(RequestError, match="with mm_vision_tower is not served: in a form of its"):
        resolve(write(tmp_path, OWN_LLAVA))


def test_a_number_where_a_truth_is_read_is_flagged(tmp_path):
    name = "meta-llama/Llama-4-Maverick-17B-128E-Instruct"
    model = resolve(write(tmp_path, POPULAR[name]))
    assert model.config.attn_temperature_tuning is True
    flag = "config: text_config.attn_temperature_tuning 4 is read as True, as transformers 4 did"
    assert flag in model.flags
    sparse = [index for index in range(48) if index in model.config.moe_layers]
    assert sparse == [*range(1, 48, 2)]


def test_a_head_size_that_the_layers_do_not_take_is_refused(tmp_path):
    """transformers' Qwen2.5-VL has no such field, and takes the width through the heads."""
    files = POPULAR["XiaomiMiMo/MiMo-VL-7B-RL-2508"]
    assert resolve(write(tmp_path, files)).config.hidden_size == 4096
    other = {CONFIG: {**files[CONFIG], "head_dim": 64}}
    with pytest.raises(RequestError, match=r"states head_dim 64, but .* builds 128"):
        resolve(write(tmp_path, other))
