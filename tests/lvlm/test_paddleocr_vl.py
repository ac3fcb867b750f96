"""PaddleOCR-VL's positions, tokens and pixels; the rest of it is in test_wrappers.py."""

import json
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.paddleocr_vl.image_processing_pil_paddleocr_vl import (
    PaddleOCRVLImageProcessorPil,
    smart_resize,
)
from transformers.models.paddleocr_vl.modeling_paddleocr_vl import (
    PaddleOCRVisionModel,
    PaddleOCRVLModel,
)

from tests.lvlm.measured import assert_measured
from tests.lvlm.oracle import widen_norms
from tests.lvlm.test_oracles import relative
from tests.small import small_wrapper
from workbench.lvlm.build import build
from workbench.lvlm.layout import Layout
from workbench.lvlm.models import MODELS, resolve
from workbench.lvlm.towers import Grid, tower_of
from workbench.probe.counting.trace import trace
from workbench.visual import VISIONS
from workbench.visual.tokens import tokens
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError

KIND = "paddleocr_vl"
NAME = "paddleocr-vl-0.9b"
FRONT = VISIONS["paddleocr-vl"]
SIDES = st.integers(1, 4000)
GRIDS = (Grid(1, 4, 6), Grid(1, 4, 6), Grid(1, 10, 4))


def test_the_tower_is_transformers_own_and_so_are_gradients(tmp_path):
    """Images of one size in one call, learned positions between their points; of two samples."""
    name = small_wrapper(KIND, tmp_path)
    cell = make_cell(
        model=name, scope="lvlm", num_visual=0, num_text=3, dtype="float64", kernel="sdpa", batch=2
    )
    tower = tower_of(resolve(name))
    ours, adapter = tower.build(build(cell).context, GRIDS, True)
    theirs = PaddleOCRVisionModel(tower.config).double()
    weights = {
        key.replace("tower.", "vision_model.").replace(".inner.", "."): value
        for key, value in ours.named_parameters()
    }
    assert set(weights) == set(dict(theirs.named_parameters()))
    theirs.load_state_dict(weights, strict=False)
    for module in (ours, theirs, adapter):
        widen_norms(module)
    pixels = torch.randn(tower.pixels(2, GRIDS), dtype=torch.float64)
    sizes = torch.tensor([grid[:3] for grid in GRIDS * 2])
    found = ours(pixels)
    wanted = theirs(pixels[None], grid_thw=sizes).last_hidden_state
    assert relative(found, wanted) <= 1e-6
    projected = adapter.projector(wanted, sizes)
    assert relative(adapter(found), projected) <= 1e-6
    upstream = torch.randn_like(found)
    found.backward(upstream)
    wanted.backward(upstream)
    by_name = dict(theirs.named_parameters())
    for key, value in weights.items():
        assert relative(value.grad, by_name[key].grad) <= 1e-5


def test_positions_are_transformers_own(tmp_path):
    tower = tower_of(resolve(small_wrapper(KIND, tmp_path)))
    layout = Layout(sum(map(tower.tokens, GRIDS[1:])), 11, "T,V6,T,V10,T")
    kinds = torch.ones(1, layout.length, dtype=torch.int64)
    kinds[0, layout.positions(visual=False)] = 0
    theirs = SimpleNamespace(config=SimpleNamespace(vision_config=tower.config))
    theirs.get_vision_position_ids = PaddleOCRVLModel.get_vision_position_ids.__get__(theirs)
    sizes = torch.tensor([grid[:3] for grid in GRIDS[1:]])
    places, _ = PaddleOCRVLModel.get_rope_index(theirs, kinds, kinds, sizes)
    assert torch.equal(tower.positions(layout, GRIDS[1:]), places[:, 0])


@pytest.mark.parametrize(
    "fields",
    [
        {"pass": "train", "attention": "d_attn"},
        {"pass": "train", "lora": "r=2", "checkpoint": True},
        {"cache": True},
        {"pass": "decode"},
    ],
)
def test_predicted_is_measured(fields, tmp_path):
    name = small_wrapper(KIND, tmp_path, num_hidden_layers=6)
    own = {"scope": "lvlm", "kernel": "eager", "dtype": "float32", "num_text": 3}
    cell = make_cell(model=name, num_visual=256, **own, **fields)
    composed, whole = trace(cell), trace(cell, compose=False)
    assert composed.timeline.peak()[0] == whole.timeline.peak()[0]
    assert_measured(cell, 0.05)


@settings(max_examples=300, deadline=None)
@given(SIDES, SIDES)
def test_tokens_are_its_processor_s(width, height):
    try:
        high, wide = smart_resize(height, width, 28, 147_384, 2_822_400)
    except ValueError:
        with pytest.raises(RequestError, match="200 to 1"):
            FRONT.tokens_of_image(width, height)
        return
    assert FRONT.resized(width, height) == (wide, high)
    assert FRONT.tokens_of_image(width, height) == wide * high // 28**2


@pytest.mark.parametrize("size", [(200, 110), (9, 400), (61, 40)])
def test_pixels_are_its_processor_s(size, tmp_path):
    tower = tower_of(resolve(small_wrapper(KIND, tmp_path)))
    picture = Image.effect_noise(size, 70).convert("RGB")
    limits = {"min_pixels": 2 * 28 * 28, "max_pixels": 64 * 28 * 28}
    half = [0.5, 0.5, 0.5]
    processor = PaddleOCRVLImageProcessorPil(**limits, image_mean=half, image_std=half)
    batch = processor([picture], return_tensors="pt")
    assert torch.equal(tower.preprocess([picture], 0), batch["pixel_values"])
    assert tower.of_image(*size)[0][:3] == tuple(batch["image_grid_thw"][0].tolist())


def test_a_frame_is_an_image():
    shown = tokens(NAME, resolution="640x480", frames=3)
    assert shown["num_visual"] == 3 * tokens(NAME, resolution="640x480")["num_visual"]
    assert FRONT.sampled(90, 30.0, 1.0) == 3
    assert not any(setting.startswith("video") for setting in shown["limits"])


def test_the_published_form_of_a_config_is_read(tmp_path):
    """Its text model's fields stand beside the tower's section, whose type is the whole's."""
    fields = MODELS[NAME].stated()
    text = fields.pop("text_config")
    rope = text.pop("rope_parameters")
    theta = {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    fields = {**text, **theta, **fields, "model_type": KIND}
    fields["vision_config"]["model_type"] = KIND
    (tmp_path / "config.json").write_text(json.dumps(fields))
    cells = [
        make_cell(model=name, scope="lvlm", num_visual=1024, kernel="eager")
        for name in (NAME, str(tmp_path))
    ]
    assert {trace(cell).params for cell in cells} == {905_601_648}
    (flag,) = [flag for flag in resolve(str(tmp_path)).flags if "tie_word_embeddings" in flag]
    assert "False as config.json states it; transformers' PaddleOCRVLConfig takes True" in flag
    del fields["tie_word_embeddings"]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert trace(cells[1]).params == 905_601_648 - 103_424 * 1024  # By its class's default.


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("image_size", 7, "image_size 7: at least patch_size 14"),
        ("hidden_size", 44, "a multiple of 4 for each of 2 heads"),
    ],
)
def test_towers_that_make_no_sense_are_one_line(field, value, reason, tmp_path):
    name = small_wrapper(KIND, tmp_path)
    config = tmp_path / KIND / "config.json"
    fields = json.loads(config.read_text())
    fields["vision_config"][field] = value
    config.write_text(json.dumps(fields))
    with pytest.raises(RequestError) as refusal:
        tower_of(resolve(name))
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_tower_takes_patches_of_one_image(tmp_path):
    name = small_wrapper(KIND, tmp_path)
    (tmp_path / KIND / "preprocessor_config.json").write_text('{"temporal_patch_size": 2}')
    with pytest.raises(RequestError, match="patches of one image, 1"):
        tower_of(resolve(name)).of_image(40, 40)
