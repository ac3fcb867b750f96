"""Llama 3.2 Vision as it is: transformers' own results, costs, and what it has no place for."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil
from transformers.models.mllama.processing_mllama import (
    convert_sparse_cross_attention_mask_to_dense,
    get_cross_attention_token_mask,
)

from tests.lvlm.generation import write_weights
from tests.lvlm.test_oracles import relative
from tests.small import small_lvlm
from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.build import build
from workbench.lvlm.models import MODELS, resolve
from workbench.lvlm.pictures import fields_of
from workbench.lvlm.towers import tower_of
from workbench.probe.counting.trace import trace
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError, Unsupported
from workbench.vocabulary.pictures import Pictures
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Status

IMAGE, TILE = 97, 17
"""The image's token, which is beyond the vocabulary; rows of a tile of the small tower."""


def checkpoint(folder):
    """A small checkpoint, every weight and gate of it random, and transformers' own model."""
    name = small_lvlm("mllama", folder)
    return name, write_weights(name)


def cell_of(name, **fields):
    given = {"scope": "lvlm", "kernel": "eager", "dtype": "float64", "num_visual": 4 * TILE}
    return make_cell(model=name, **{**given, **fields})


def paint(folder, sizes):
    names = []
    for number, (width, height) in enumerate(sizes):
        path = folder / f"{number}.png"
        pixels = torch.randint(256, (height, width, 3), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(path)
        names.append(str(path))
    return Pictures(images=tuple(names))


def prepared(pictures, ids):
    """transformers' inputs of these images and ids, by its own processor's functions."""
    processor = MllamaImageProcessorPil(size={"height": 56, "width": 56}, max_image_tiles=4)
    images = [Image.open(path) for path in pictures.images]
    found = processor([images], return_tensors="pt")
    tokens = get_cross_attention_token_mask(ids[0].tolist(), IMAGE)
    mask = convert_sparse_cross_attention_mask_to_dense(
        [tokens], found["num_tiles"], 4, ids.shape[1]
    )
    return {
        "input_ids": ids,
        "pixel_values": found["pixel_values"].double(),
        "aspect_ratio_ids": found["aspect_ratio_ids"],
        "aspect_ratio_mask": found["aspect_ratio_mask"],
        "cross_attention_mask": torch.from_numpy(mask),
    }


@pytest.mark.parametrize(
    ("sizes", "layout", "ids"),
    [
        ([(40, 30)], "V,T", [IMAGE, 5, 9]),
        ([(110, 100)], "T2,V,T3", [4, 8, IMAGE, 5, 9]),
        ([(50, 170), (110, 110)], "V,T3,V,T3", [IMAGE, 5, 9, IMAGE, 7, 2]),
        ([(56, 56), (120, 56)], "V,T1,V,T3", [IMAGE, IMAGE, 7, 2]),
    ],
)
def test_images_compute_what_transformers_does(sizes, layout, ids, tmp_path):
    """From files to logits: which rows see which images, and tiles that are padding."""
    name, model = checkpoint(tmp_path)
    pictures, ids = paint(tmp_path, sizes), torch.tensor([ids])
    tower = tower_of(resolve(name))
    counts = [sum(map(tower.tokens, item)) for item in tower.of_images(sizes)]
    for count in counts:
        layout = layout.replace("V,", f"V{count},", 1)
    fields = {**fields_of(name, pictures, "V,T"), "layout": layout}
    cell = cell_of(name, weights=name, num_text=ids.shape[1], **fields)
    workload = build(cell, pictures=pictures)
    workload.inputs[1].copy_(ids)
    (found,) = workload.run_forward()
    given = prepared(pictures, ids)
    with torch.no_grad():
        assert relative(found, model(**given).logits) <= 1e-4
    assert not any(flag.startswith("weights: random") for flag in workload.context.flags)


def test_greedy_generation_is_transformers_own(tmp_path):
    name, model = checkpoint(tmp_path)
    pictures, ids = paint(tmp_path, [(110, 100)]), torch.tensor([[IMAGE, 5, 9]])
    fields = fields_of(name, pictures, "V,T")
    with torch.no_grad():
        wanted = model.generate(
            **prepared(pictures, ids), max_new_tokens=4, do_sample=False, eos_token_id=None
        )
        for _ in range(4):
            cell = cell_of(name, weights=name, num_text=ids.shape[1], **fields)
            workload = build(cell, pictures=pictures)
            module = workload.module
            ids = torch.cat([ids, module(workload.inputs[0], ids)[:, -1:].argmax(-1)], 1)
    assert torch.equal(ids, wanted)


def test_a_decode_step_is_the_last_row_of_a_prefill(tmp_path):
    """Over caches of text, and of the images that nothing adds to."""
    name, _ = checkpoint(tmp_path)
    cell = cell_of(name, weights=name, scope="decoder", num_text=6)
    longer = build(cell)
    visual, ids = longer.inputs
    (whole,) = longer.run_forward()
    kept = build(cell.replace(num_text=5, cache=True))
    kept.module(visual, ids[:, :5])
    step = build(cell.replace(num_text=5, pass_="decode"))
    for layer, cache in zip(step.module.layers, kept.context.caches, strict=True):
        layer.keys.copy_(cache.tensors[0])
        layer.values.copy_(cache.tensors[1])
    with torch.no_grad():
        assert relative(step.module(None, ids[:, 5:]), whole[:, -1:]) <= 1e-6
    item, heads = 8, 2 * 2 * 8
    assert step.kv_cache_bytes == item * heads * 2 * (5 + 4 * TILE)
    assert kept.kv_cache_bytes == step.kv_cache_bytes


@pytest.mark.parametrize("name", [n for n in MODELS if n.endswith("b-vision")])
def test_parameters_of_the_catalogue_are_transformers_own(name):
    model = resolve(name)
    with torch.device("meta"):
        whole = AutoModelForImageTextToText.from_config(model.whole)
    cell = cell_of(name, dtype="bfloat16", num_visual=tower_of(model).tokens_each)
    found = trace(cell)
    assert found.params == sum(p.numel() for p in whole.parameters())
    head = whole.lm_head.weight.numel()
    text = sum(p.numel() for p in whole.model.language_model.parameters())
    assert (
        found.params_by_component["decoder"]
        == text + head
        == trace(cell.replace(scope="decoder")).params
    )
    assert found.params == {"llama-3.2-11b-vision": 10_670_220_835}.get(name, 88_593_355_323)
    assert found.flops == found.model_flops


@pytest.mark.parametrize(
    "fields",
    [
        {"pass": "train"},
        {"pass": "train", "checkpoint": True, "layout": "V,T,V,T"},
        {"cache": True, "num_visual": 6 * TILE},
        {"pass": "train", "lora": "r=2,alpha=4,targets=all-linear", "scope": "decoder"},
        {"pass": "decode"},
    ],
)
def test_predicted_is_measured(fields, tmp_path):
    name = small_lvlm("mllama", tmp_path, num_hidden_layers=8, cross_attention_layers=[1, 3, 5, 7])
    fields = {"num_visual": 8 * TILE, "num_text": 6, "dtype": "float32", **fields}
    cell = cell_of(name, **fields)
    composed, whole = trace(cell), trace(cell, compose=False)
    assert composed.timeline.peak()[0] == whole.timeline.peak()[0]
    assert whole.flops == whole.model_flops or cell.checkpoint or cell.lora
    measured = measure(cell, "cpu", Protocol(min_samples=1, precision=None))
    predicted = predict(cell, "cpu")
    assert measured.status == predicted.status == Status.OK
    for metric in ("flops", "flops_causal", "params", "kv_cache_bytes"):
        assert measured.metrics.get(metric) == predicted.metrics.get(metric)
    ratio = predicted.metrics["peak_bytes"] / measured.metrics["peak_bytes"]
    assert ratio == pytest.approx(
        1, abs=0.05
    )  # oneDNN reorders what the patch embedding convolves.


@pytest.mark.parametrize("system", sorted(set(SYSTEMS) - {"s_attn"}))
def test_other_systems_are_refused_by_name(system, tmp_path):
    name = "llama-3.2-11b-vision"
    cell = make_cell(model=name, attention=system, scope="decoder", num_visual=64)
    with pytest.raises(Unsupported, match=f"^{system}: mllama_text_model has no visual rows"):
        build(cell, "meta")
    if system == "gated_xattn":
        with pytest.raises(Unsupported, match="they are already there"):
            build(cell, "meta")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_visual": 4 * TILE + 1}, f"{TILE} tokens a tile; the nearest are 68 and 85"),
        ({"loss_rows": "all", "pass": "train"}, "loss_rows all: only text is in the sequence"),
        (
            {"cache_dtype": "int8", "dtype": "float32"},
            "no kernel here reads such a cache of the",
        ),
    ],
)
def test_what_cannot_be_is_one_line(fields, message, tmp_path):
    with pytest.raises(RequestError, match=message):
        build(cell_of(small_lvlm("mllama", tmp_path), **fields))


@pytest.mark.parametrize(
    ("section", "fields", "message"),
    [
        ("text_config", {"cross_attention_layers": [1, 9]}, r"cross_attention_layers \[1, 9\]"),
        ("vision_config", {"vision_output_dim": 64}, "vision_output_dim 64: 3 features of 32"),
        ("vision_config", {"intermediate_layers_indices": [7]}, r"indices \[7\]: layers of the"),
    ],
)
def test_a_config_that_cannot_be_is_one_line(section, fields, message, tmp_path):
    file = Path(small_lvlm("mllama", tmp_path)) / "config.json"
    whole = json.loads(file.read_text())
    whole[section].update(fields)
    file.write_text(json.dumps(whole))
    with pytest.raises(RequestError, match=message):
        tower_of(resolve(str(file.parent)))


@pytest.mark.parametrize("kernel", ["flash", "flex", "flash_attention_2"])
def test_kernels_without_a_mask_of_images_are_refused(kernel):
    cell = make_cell(model="llama-3.2-11b-vision", scope="layer", num_visual=64, kernel=kernel)
    with pytest.raises(Unsupported, match=f"^kernel '{kernel}' takes no mask of images"):
        build(cell, "meta")
