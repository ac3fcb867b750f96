"""Phi-4-multimodal: published sizes, its processor's tokens, one matrix for q, k and v."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForCausalLM

from tests.lvlm.generation import GREEDY, extend, shown, write_weights
from tests.lvlm.measured import assert_measured
from tests.lvlm.test_oracles import relative
from tests.small import small_model
from workbench.lvlm.build import build
from workbench.lvlm.models import MODELS, resolve
from workbench.lvlm.pictures import look
from workbench.lvlm.towers import tower_of
from workbench.probe.counting.trace import trace
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError, Unsupported
from workbench.vocabulary.record import Status

FAMILY = "phi4_multimodal"
NAME = "phi-4-multimodal"
LONG = {
    "max_position_embeddings": 64,
    "original_max_position_embeddings": 16,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.75,
        "short_factor": [1.0] * 3,
        "long_factor": [1.0, 3.0, 9.0],
    },
}
"""Sequences of the tests have more tokens than 16."""
SHOWN = [("56x56", 1), ("61x40", 2), ("200x110", 1), ("1900x80", 1)]
"""Sizes and numbers of images: one crop and all of it image; padding; several crops; and more
than the 36 crops that there may be."""


def test_parameters_of_the_catalogue_are_transformers_own():
    model = resolve(NAME)
    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(model.whole)
    found = trace(make_cell(model=NAME, scope="lvlm", num_visual=545, kernel="eager"))
    assert found.params == sum(p.numel() for p in whole.parameters())
    around = sum(p.numel() for p in whole.model.embed_tokens_extend.parameters())
    assert found.params_by_component["decoder"] == found.params - around
    assert found.flops == found.model_flops
    assert not model.flags


def test_the_published_form_of_its_rope_is_read(tmp_path):
    """Type and factors in ``rope_scaling``, the rest of it beside the sizes."""
    fields = MODELS[NAME].stated()
    rope = fields.pop("rope_parameters")
    factors = {key: rope[key] for key in ("short_factor", "long_factor")}
    fields |= {"rope_theta": 10000.0, "rope_scaling": {"type": "longrope", **factors}}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    folder, catalogue = (resolve(name).config.rope_parameters for name in (str(tmp_path), NAME))
    assert {**folder, "type": None} == {**catalogue, "type": None}


def test_pictures_have_the_shape_of_the_tower():
    """Those with fewer crops get empty ones."""
    tower = tower_of(resolve(NAME))
    grids = (*tower.of_image(640, 480), *tower.of_image(100, 90))
    images = [Image.new("RGB", size, "white") for size in ((640, 480), (100, 90))]
    pixels = tower.preprocess(images, 0)
    assert pixels.shape == tower.pixels(1, grids)
    assert pixels[:5].eq(1).all()
    assert pixels[5 + 2 :].eq(0).all()


def checkpoint(folder, **fields):
    """A small checkpoint, and transformers' own model."""
    name = small_model(FAMILY, folder, **fields)
    model = write_weights(name, AutoModelForCausalLM, seed=5)
    model.set_attn_implementation("eager")
    return name, model


def theirs(name, workload, pictures):
    """Ids, and what transformers' model takes beside them."""
    tower, (pixels, ids) = tower_of(resolve(name)), workload.inputs
    ids.clamp_(max=90)
    grids = look(tower, pictures).grids
    shape = len(grids), max(map(tower.squares, grids))
    return torch.cat([torch.full((1, workload.cell.num_visual), 96), ids], 1), {
        "image_pixel_values": pixels.unflatten(0, shape),
        "image_sizes": torch.tensor([[56 * n for n in grid.tiles] for grid in grids]),
        "image_attention_mask": workload.modules["tower"].seen.unflatten(0, shape).double(),
    }


@pytest.mark.parametrize(("size", "count"), SHOWN)
def test_images_compute_what_transformers_does(size, count, tmp_path):
    name, model = checkpoint(tmp_path, **LONG)
    cell, pictures = shown(name, size, count, weights=name)
    workload = build(cell, pictures=pictures)
    inputs, extra = theirs(name, workload, pictures)
    (found,) = workload.run_forward()
    with torch.no_grad():
        expected = model(input_ids=inputs, **extra).logits
    # Softmax and norms are float32 in transformers.
    assert relative(found, expected) <= 1e-4
    assert not any(flag.startswith("weights: random") for flag in workload.context.flags)


def test_sdpa_sees_the_whole_of_an_image(tmp_path):
    """Where no patch is padding, transformers' own call under sdpa has no mask, and is causal."""
    name, _ = checkpoint(tmp_path)
    logits = []
    for kernel in ("eager", "sdpa"):
        cell, pictures = shown(name, "56x56", weights=name)
        workload = build(cell.replace(kernel=kernel), pictures=pictures)
        for tensor, value in zip(workload.inputs, (0.5, 7), strict=True):
            tensor.fill_(value)
        workload.inputs[0].view(-1)[::3] = -1
        logits += workload.run_forward()
    assert relative(*logits) <= 1e-4


def test_greedy_generation_is_transformers_own(tmp_path):
    name, model = checkpoint(tmp_path, **LONG)
    cell, pictures = shown(name, "200x110", weights=name)
    workload = build(cell, pictures=pictures)
    inputs, extra = theirs(name, workload, pictures)
    pixels, ids = workload.inputs
    with torch.no_grad():
        expected = model.generate(input_ids=inputs, **extra, max_new_tokens=3, **GREEDY)
    ids = extend(ids, 3, lambda num: build(cell.replace(num_text=num), pictures=pictures), pixels)
    assert torch.equal(ids[:, 5:], expected[:, -3:])


@pytest.mark.parametrize("pass_", ["forward", "train"])
def test_costs_are_the_counts(pass_, tmp_path):
    name = small_model(FAMILY, tmp_path)
    cell, pictures = shown(name, "200x110", dtype="float32", **{"pass": pass_})
    found, tower = trace(cell, pictures=pictures), tower_of(resolve(name))
    assert found.flops == found.model_flops
    grids = look(tower, pictures).grids
    outside = tower.tower_flops(grids) + tower.adapter_flops(grids)
    if pass_ == "train":
        outside = 3 * outside - tower.patch_flops(grids)
    decoder = trace(cell.replace(scope="decoder"))
    assert found.model_flops - decoder.model_flops == outside


@pytest.mark.parametrize("frozen", ["tower", "tower,adapter"])
def test_what_a_frozen_part_leaves_out(frozen, tmp_path):
    name = small_model(FAMILY, tmp_path)
    fields = {"dtype": "float32", "frozen": frozen, "pass": "train"}
    cell, pictures = shown(name, "200x110", **fields)
    found = trace(cell, pictures=pictures)
    assert found.flops == found.model_flops


def test_images_of_different_sizes_have_as_many_crops_each():
    """transformers fills up the crops of the smaller one, and runs its tower on them."""
    tower = tower_of(resolve(NAME))
    grids = (*tower.of_image(1300, 900), *tower.of_image(400, 300))
    assert [tower.squares(grid) for grid in grids] == [10, 2]
    assert tower.pixels(2, grids) == (2 * 2 * 10, 3, 448, 448)
    assert tower.tower_flops(grids) == 2 * tower.tower_flops(grids[:1])


def test_predictions_are_what_is_measured(tmp_path):
    name = small_model(FAMILY, tmp_path)
    each = tower_of(resolve(name)).tokens_each
    fields = {"scope": "lvlm", "kernel": "eager", "dtype": "float32", "pass": "train"}
    cell = make_cell(model=name, num_visual=2 * each, num_text=5, **fields)
    _, predicted = assert_measured(cell, 0.05, ("flops", "params"))
    for said in ("adapters: left out", "the speech encoder is held", "the last 1 of its layers"):
        assert any(said in flag for flag in predicted.flags)


def test_whatever_is_trained_has_a_gradient(tmp_path):
    name = small_model(FAMILY, tmp_path)
    cell, pictures = shown(name, "200x110", dtype="float32", **{"pass": "train"})
    workload = build(cell, pictures=pictures)
    workload.step()
    for parameter in workload.module.parameters():
        assert (parameter.grad is not None) == parameter.requires_grad


def test_three_shares_are_the_matrix(tmp_path):
    model = resolve(small_model(FAMILY, tmp_path))
    layer = model.family.layer(model.config, 0)
    parts = model.family.parts(layer)
    x = torch.randn(2, 3, 32)
    shares = [getattr(parts.attention, f"{letter}_proj") for letter in "qkv"]
    assert [share(x).shape[-1] for share in shares] == [32, 16, 16]
    together = torch.cat([share(x) for share in shares], -1)
    torch.testing.assert_close(together, parts.attention.qkv_proj(x))
    names = {name.rpartition(".")[2] for name, _ in layer.named_modules()}
    assert "qkv_proj" in names
    assert not names & {"q_proj", "k_proj", "v_proj"}


def test_projections_in_its_place_leave_nothing_of_the_matrix(tmp_path):
    name = small_model(FAMILY, tmp_path)
    fields = {"scope": "decoder", "kernel": "eager", "num_visual": 16, "num_text": 5}
    plain, other = (
        build(make_cell(model=name, attention=attention, dtype="float32", **fields))
        for attention in ("s_attn", "lightning")
    )
    added = sum(other.system.extra_parameters(parts, place) for parts, place, _ in other.layers)
    assert other.num_parameters == plain.num_parameters + added


LORA = {"lora": "r=2", "pass": "train"}


@pytest.mark.parametrize(
    ("attention", "fields", "served"),
    [
        ("s_attn", LORA, True),
        ("s_attn", {"weights_dtype": "int8"}, True),
        ("d_attn", LORA, False),
        ("d_attn", {"weights_dtype": "int8"}, False),
        ("d_attn", {**LORA, "lora": "r=2,targets=o_proj+down_proj"}, True),
    ],
)
def test_a_matrix_under_an_adapter_is_read_as_one(attention, fields, served, tmp_path):
    name = small_model(FAMILY, tmp_path)
    cell = make_cell(
        model=name, attention=attention, scope="decoder", kernel="eager", num_visual=9, **fields
    )
    if served:
        assert trace(cell).flops > 0
        return
    with pytest.raises(Unsupported, match="reads queries, keys and values apart"):
        trace(cell)
    record = predict(cell, "cpu")
    assert record.status == Status.UNSUPPORTED
    assert "\n" not in record.error


def written(folder, images=None, **changes):
    """A small folder with other fields, those of images in a file of their own."""
    file = Path(small_model(FAMILY, folder)) / "config.json"
    fields = json.loads(file.read_text())
    for key, value in changes.items():
        fields[key] = {**fields[key], **value} if isinstance(value, dict) else value
    file.write_text(json.dumps(fields))
    if images is not None:
        (file.parent / "preprocessor_config.json").write_text(json.dumps(images))
    return str(file.parent)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"resid_pdrop": 0.1}, "resid_pdrop 0.1: dropout between layers"),
        ({"vision_config": {"crop_size": 28}}, "crop_size 28, but image_size 56"),
        ({"vision_config": {"feature_layer": 7}}, "vision_feature_layer 7: the tower of"),
        ({"images": {"dynamic_hd": 0}}, "max_crops 0: a whole number from 1"),
        ({"images": {"dynamic_hd": 999}}, "dynamic_hd 999: at most 256"),
        ({"images": {"size": {"height": 448, "width": 448}}}, "image_size 448, but config.json"),
        ({"vision_config": {"model_type": "clip_vision_model"}}, "clip_vision_model"),
    ],
)
def test_what_makes_no_sense_is_one_line(changes, said, tmp_path):
    with pytest.raises(RequestError) as refusal:
        tower_of(resolve(written(tmp_path, **changes)))
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_settings_of_files_are_taken(tmp_path):
    """At most four crops, and an image of five stays inside of them."""
    tower = tower_of(resolve(written(tmp_path, images={"dynamic_hd": 4})))
    assert tower.of_image(280, 56)[0].tiles == (1, 4)
