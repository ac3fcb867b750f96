"""LFM2-VL: published sizes, its processor's tokens and tiles, transformers' own results."""

import json
import re
import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.models.lfm2_vl.processing_lfm2_vl import Lfm2VlProcessor

from tests.lvlm.generation import GREEDY, extend, shown, write_weights
from tests.lvlm.measured import assert_measured
from tests.lvlm.test_oracles import relative
from tests.small import OWN, SHARED
from workbench.lvlm.build import build
from workbench.lvlm.models import FAMILIES, MODELS, resolve
from workbench.lvlm.pictures import look
from workbench.lvlm.towers import Grid, tower_of
from workbench.lvlm.towers.lfm2_vl import Alike, alike, by_size
from workbench.probe.counting.trace import trace
from workbench.visual.tokens import tokens
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError

PROCESSOR = "transformers.models.lfm2_vl.image_processing_lfm2_vl"
PUBLISHED = {"lfm2-vl-450m": 451e6, "lfm2-vl-1.6b": 1.58e9, "lfm2-vl-3b": 3.0e9}
"""Parameters as the model cards round them."""
IMAGES = {"tile_size": 64, "min_image_tokens": 2, "max_image_tokens": 4}
"""Settings of the small model: tiles of 4 tokens."""
SHOWN = [("64x64", 2), ("61x40", 2), ("40x130", 1), ("200x110", 1)]


def written(folder, images=None, **changes):
    """A small folder, with fields of its own in config.json and its sections."""
    text = FAMILIES["lfm2"].config({**SHARED, **OWN["lfm2"]}).to_dict()
    tower = {
        "model_type": "siglip2_vision_model",
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_patches": 9,
        "vision_use_head": False,
    }
    around = {"image_token_id": 96, "projector_hidden_size": 40}
    whole = AutoConfig.for_model("lfm2_vl", text_config=text, vision_config=tower, **around)
    fields = json.loads(whole.to_json_string())
    for key, value in changes.items():
        fields[key] = {**fields[key], **value} if isinstance(value, dict) else value
    (folder / "config.json").write_text(json.dumps(fields))
    (folder / "preprocessor_config.json").write_text(json.dumps({**IMAGES, **(images or {})}))
    return str(folder)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_parameters_of_the_catalogue_are_transformers_own(name):
    model = resolve(name)
    with torch.device("meta"):
        whole = AutoModelForImageTextToText.from_config(model.whole)
    cell = make_cell(model=name, scope="lvlm", num_visual=256, kernel="eager")
    traced = trace(cell)
    assert traced.params == sum(p.numel() for p in whole.parameters())
    assert traced.params == pytest.approx(PUBLISHED[name], rel=0.005)
    text = sum(p.numel() for p in whole.get_decoder().parameters())
    assert traced.params_by_component["decoder"] == text
    assert traced.flops == traced.model_flops
    assert not model.flags


def test_the_published_form_of_a_config_is_read(tmp_path):
    """The MLP's width by two names, the base of RoPE beside the sizes, tied by a default."""
    fields = MODELS["lfm2-vl-450m"].stated()
    text = fields["text_config"]
    text |= {"block_ff_dim": 6656, "block_dim": 1024, "num_heads": 16, "rope_theta": 1e6}
    for section in (fields, text):
        del section["tie_word_embeddings"]
    del text["rope_parameters"]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    folder, catalogue = resolve(str(tmp_path)), resolve("lfm2-vl-450m")
    cells = [make_cell(model=m.name, scope="decoder", num_visual=9) for m in (folder, catalogue)]
    assert len({trace(cell).params for cell in cells}) == 1
    assert folder.config.rope_parameters == catalogue.config.rope_parameters
    assert not folder.flags


@pytest.fixture
def processor(monkeypatch):
    """Its image processor's class, of which no test here resizes, as torchvision would."""
    if find_spec("torchvision") is None:
        for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.v2"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        sys.modules[name].functional = SimpleNamespace()
        monkeypatch.setitem(sys.modules, PROCESSOR, None)
        del sys.modules[PROCESSOR]
    yield import_module(PROCESSOR).Lfm2VlImageProcessor
    package, _, name = PROCESSOR.rpartition(".")
    vars(sys.modules[package]).pop(name, None)  # Another test imports it as it is.
    sys.modules.pop(PROCESSOR)


def pieces(processor, width, height):
    """What its processor makes of an image: its text, and patches of each tile and the whole."""
    own = object.__new__(processor)
    sizes = {"height": height, "width": width}
    tokens_of = {"min_image_tokens": 64, "max_image_tokens": 256}
    patch = {"encoder_patch_size": 16, "downsample_factor": 2}
    wide, high = own.smart_resize(**sizes, **tokens_of, **patch)
    columns = rows = 1
    if own._is_image_too_large(**sizes, max_image_tokens=256, **patch, max_pixels_tolerance=2.0):
        grid = own._get_grid_layout(**sizes, min_tiles=2, max_tiles=10, tile_size=512)
        columns, rows = grid[:2]
    words = SimpleNamespace(
        image_processor=processor,
        image_token="I",
        image_start_token="<",
        image_end_token=">",
        image_thumbnail_token="T",
    )
    for name in (
        "_get_image_num_tokens",
        "_compute_tokens_per_tile",
        "_compute_tokens_for_image",
        "_build_image_tokens",
    ):
        setattr(words, name, getattr(Lfm2VlProcessor, name).__get__(words))
    made = {"image_rows": [rows], "image_cols": [columns], "image_sizes": [[high, wide]]}
    text = Lfm2VlProcessor.replace_image_token(words, made, 0, use_image_special_tokens=True)
    tiles = [(32, 32)] * (rows * columns) if rows * columns > 1 else []
    return re.sub(r"<\|img_row_\d+_col_\d+\|>", "#", text), [*tiles, (high // 16, wide // 16)]


def test_tokens_and_tiles_are_its_processor_s(processor):
    """Over a grid of sizes; those that its processor has no place for are refused."""
    tower, refused = tower_of(resolve("lfm2-vl-1.6b")), 0
    for width in (7, 33, 255, 512, 513, 720, 768, 1000, 1250, 1920, 5000, 40000):
        for height in (1, 19, 200, 511, 512, 700, 725, 1080, 3000, 4001):
            text, patches = pieces(processor, width, height)
            if any(rows * columns > 1024 for rows, columns in patches):
                refused += 1
                with pytest.raises(RequestError, match="too narrow: it would have"):
                    tokens("lfm2-vl-1.6b", resolution=f"{width}x{height}")
                continue
            counted = tokens("lfm2-vl-1.6b", resolution=f"{width}x{height}")
            assert counted["num_visual"] == text.count("I"), (width, height)
            assert counted["markers"] == len(text) - text.count("I")
            grids = tower.of_image(width, height)
            assert [grid[1:3] for grid in grids] == patches
            assert sum(map(tower.tokens, grids)) == text.count("I")
    assert refused > 0


def test_tokens_are_those_of_the_model_card():
    assert tokens("lfm2-vl-450m", resolution="256x384")["num_visual"] == 96


def test_settings_of_files_are_taken(tmp_path):
    whole = tower_of(resolve(written(tmp_path, {"do_image_splitting": False})))
    assert len(whole.of_image(400, 400)) == 1
    bare = tower_of(resolve(written(tmp_path, {"use_thumbnail": False, "max_tiles": 4})))
    assert [grid[1:3] for grid in bare.of_image(400, 400)] == [(4, 4)] * 4
    one = tower_of(resolve(written(tmp_path, {"min_tiles": 1, "max_tiles": 1})))
    assert len(one.of_image(400, 400)) == 1
    assert one.front.origins["tile_size"] == "preprocessor_config.json"


def theirs(name, workload, pictures):
    """Ids, and what transformers' model takes beside them: images padded, under a mask."""
    tower, (pixels, ids) = tower_of(resolve(name)), workload.inputs
    ids.clamp_(1, 90)  # Of 0 transformers makes padding.
    grids = look(tower, pictures).grids
    rows = pixels.split([grid.patches for grid in grids])
    most = max(grid.patches for grid in grids) + 3
    padded = [torch.cat([x, x.new_zeros(most - len(x), x.shape[1])]) for x in rows]
    inside = [torch.arange(most) < grid.patches for grid in grids]
    return torch.cat([torch.full((1, workload.cell.num_visual), 96), ids], 1), {
        "pixel_values": torch.stack(padded),
        "pixel_attention_mask": torch.stack(inside).int(),
        "spatial_shapes": torch.tensor([grid[1:3] for grid in grids]),
    }


@pytest.mark.parametrize(("size", "count"), SHOWN)
def test_images_compute_what_transformers_does(size, count, tmp_path):
    name = written(tmp_path)
    model = write_weights(name, seed=5)
    cell, pictures = shown(name, size, count, weights=name)
    workload = build(cell, pictures=pictures)
    inputs, extra = theirs(name, workload, pictures)
    (logits,) = workload.run_forward()
    with torch.no_grad():
        expected = model(input_ids=inputs, **extra).logits[:, -5:]
    # Softmax and norms are float32 in transformers.
    assert relative(logits[:, -5:], expected) <= 1e-4
    assert not any(flag.startswith("weights: random") for flag in workload.context.flags)


def test_images_of_one_size_run_together_wherever_they_stand():
    images = alike([Grid(1, 2, 2), Grid(1, 2, 4), Grid(1, 2, 2), Grid(1, 2, 2)])
    runs = []

    def halved(rows, run):
        runs.append(run)
        return rows.unflatten(0, (-1, 2)).mean(1)

    rows = torch.arange(20.0)[:, None]
    assert torch.equal(by_size(halved, rows, images), rows.unflatten(0, (-1, 2)).mean(1))
    assert runs == [Alike(3, 2, 2), Alike(1, 2, 4)]


def test_greedy_generation_is_transformers_own(tmp_path):
    name = written(tmp_path)
    model = write_weights(name, seed=5)
    cell, pictures = shown(name, "200x110", weights=name)
    workload = build(cell, pictures=pictures)
    inputs, extra = theirs(name, workload, pictures)
    pixels, ids = workload.inputs
    with torch.no_grad():
        expected = model.generate(input_ids=inputs, **extra, max_new_tokens=4, **GREEDY)
    ids = extend(ids, 4, lambda num: build(cell.replace(num_text=num), pictures=pictures), pixels)
    assert torch.equal(ids[:, 5:], expected[:, -4:])


@pytest.mark.parametrize("pass_", ["forward", "train"])
@pytest.mark.parametrize("normed", [False, True])
def test_costs_are_the_counts(pass_, normed, tmp_path):
    name = written(tmp_path, projector_use_layernorm=normed)
    cell, pictures = shown(name, "200x110", dtype="float32", **{"pass": pass_})
    traced, tower = trace(cell, pictures=pictures), tower_of(resolve(name))
    assert traced.flops == traced.model_flops
    grids = look(tower, pictures).grids
    outside = tower.tower_flops(grids) + tower.adapter_flops(grids)
    if pass_ == "train":
        outside = 3 * outside - tower.patch_flops(grids)
    decoder = trace(cell.replace(scope="decoder"))
    assert traced.model_flops - decoder.model_flops == outside


@pytest.mark.parametrize("frozen", ["tower", "tower,adapter", "decoder"])
@pytest.mark.parametrize("normed", [False, True])
def test_what_a_frozen_part_leaves_out(frozen, normed, tmp_path):
    name = written(tmp_path, projector_use_layernorm=normed)
    fields = {"dtype": "float32", "frozen": frozen, "pass": "train"}
    cell, pictures = shown(name, "200x110", **fields)
    traced = trace(cell, pictures=pictures)
    assert traced.flops == traced.model_flops


@pytest.mark.parametrize("system", ["s_attn", "d_attn"])
def test_predictions_are_what_is_measured(system, tmp_path):
    name = written(tmp_path)
    fields = {"scope": "lvlm", "kernel": "eager", "dtype": "float32", "pass": "train"}
    cell = make_cell(model=name, attention=system, num_visual=400, num_text=5, **fields)
    _, predicted = assert_measured(cell, 0.02, ("flops", "params"))
    assert any("runs its own patches" in flag for flag in predicted.flags)


@pytest.mark.parametrize("head", [False, True])
def test_whatever_is_trained_has_a_gradient(head, tmp_path):
    name = written(tmp_path, vision_config={"vision_use_head": head})
    cell, pictures = shown(name, "200x110", dtype="float32", **{"pass": "train"})
    workload = build(cell, pictures=pictures)
    workload.step()
    for parameter in workload.module.parameters():
        assert (parameter.grad is not None) == parameter.requires_grad
    assert any("pooling head" in flag for flag in tower_of(resolve(name)).flags) is head


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"images": {"max_image_tokens": 1}}, "max_tokens 1: less than min_tokens 2"),
        ({"images": {"max_tiles": 1}}, "max_tiles 1: less than min_tiles 2"),
        ({"images": {"max_tiles": 999}}, "max_tiles 999: at most 256"),
        ({"images": {"tile_size": 48}}, "tile_size 48: a multiple of the 32 pixels"),
        ({"images": {"encoder_patch_size": 14}}, "patch_size 14, but config.json says 16"),
        ({"images": {"downsample_factor": 4}}, "merge 4, but config.json says 2"),
        ({"images": {"use_thumbnail": 1}}, "use_thumbnail 1: true or false"),
        ({"images": {"max_pixels_tolerance": "x"}}, "tolerance 'x': a number from 0"),
        ({"vision_config": {"num_patches": 8}}, "num_patches 8: a square number"),
        ({"projector_hidden_act": "glue"}, "projector_hidden_act 'glue'"),
        ({"downsample_factor": 0}, "downsample_factor 0: a whole number from 1"),
    ],
)
def test_what_makes_no_sense_is_one_line(changes, reason, tmp_path):
    with pytest.raises(RequestError) as refusal:
        tower_of(resolve(written(tmp_path, **changes)))
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)
