"""Kimi K2.5: published sizes, its processor's tokens, transformers' own results of its tower."""

import json
import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from tests.lvlm.generation import GREEDY, extend, shown, write_weights
from tests.lvlm.measured import assert_measured
from tests.lvlm.oracle import widen_norms
from tests.lvlm.test_oracles import relative
from tests.small import OWN, SHARED
from workbench.lvlm.build import build
from workbench.lvlm.models import FAMILIES, MODELS, resolve
from workbench.lvlm.pictures import fields_of, look
from workbench.lvlm.towers import tower_of
from workbench.lvlm.towers.kimi_k25 import KimiK25
from workbench.probe.counting.trace import trace
from workbench.probe.predicting.facts import model_flags
from workbench.probe.predicting.predict import predict
from workbench.visual.tokens import front_end_of, tokens
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.pictures import Pictures

NAME = "kimi-k2.5"
PACKAGE = "transformers.models.kimi_k25"
NAMES = KimiK25.other_names
SHOWN = [("56x56", 2), ("61x40", 2), ("40x130", 1), ("200x110", 1)]


def written(folder, files=None, **changes):
    """A small folder, with fields of its own in config.json and its sections."""
    text = FAMILIES["deepseek_v3"].config({**SHARED, **OWN["deepseek_v3"]}).to_dict()
    tower = {
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "pos_emb_height": 6,
        "pos_emb_width": 6,
    }
    around = {"image_token_id": 96, "projection_hidden_size": 48, "tie_word_embeddings": False}
    whole = AutoConfig.for_model("kimi_k25", text_config=text, vision_config=tower, **around)
    fields = json.loads(whole.to_json_string())
    for key, value in changes.items():
        fields[key] = {**fields[key], **value} if isinstance(value, dict) else value
    (folder / "config.json").write_text(json.dumps(fields))
    for file, stated in (files or {}).items():
        (folder / file).write_text(json.dumps(stated))
    return str(folder)


def test_parameters_of_the_catalogue_are_transformers_own():
    model = resolve(NAME)
    with torch.device("meta"):
        whole = AutoModelForImageTextToText.from_config(model.whole)
    traced = trace(make_cell(model=NAME, scope="lvlm", num_visual=1024, kernel="eager"))
    assert traced.params == sum(p.numel() for p in whole.parameters())
    assert traced.params == pytest.approx(1.03e12, rel=0.005)
    text = sum(p.numel() for p in whole.get_decoder().parameters())
    assert traced.params_by_component["decoder"] == text + whole.lm_head.weight.numel()
    assert traced.active_params == traced.params - 60 * (384 - 8) * 3 * 7168 * 2048
    assert traced.flops == traced.model_flops
    assert not model.flags


def test_the_published_form_of_a_config_is_read(tmp_path):
    fields = MODELS[NAME].stated()
    tower = {NAMES.get(key, key): value for key, value in fields["vision_config"].items()}
    fields |= {"vision_config": {**tower, "model_type": ""}}
    fields["text_config"]["model_type"] = "kimi_k2"
    (tmp_path / "config.json").write_text(json.dumps(fields))
    cells = [
        make_cell(model=name, scope="lvlm", num_visual=1024, kernel="eager")
        for name in (NAME, str(tmp_path))
    ]
    assert len({trace(cell).params for cell in cells}) == 1
    assert not any("does not state vision_config" in flag for flag in model_flags(cells[1]))


def test_a_scheme_of_the_text_model_leaves_the_tower_as_it_is(tmp_path):
    """Published files state it in the text model's section."""
    scheme = {"quant_method": "fp8", "weight_block_size": [16, 16]}
    name = written(tmp_path, text_config={"quantization_config": scheme}, dtype="bfloat16")
    lvlm, decoder = (
        predict(make_cell(model=name, scope=scope, num_visual=1024, kernel="eager"), "cpu").metrics
        for scope in ("lvlm", "decoder")
    )
    field = "quantized_weight_bytes"
    assert lvlm[field] - decoder[field] == 2 * (lvlm["params"] - decoder["params"])
    assert decoder[field] < 2 * decoder["params"]


@pytest.fixture
def processors(monkeypatch):
    """The modules of its processors, of which no test here resizes, as torchvision would."""
    names = [f"{PACKAGE}.{kind}_processing_kimi_k25" for kind in ("image", "video")]
    if find_spec("torchvision") is None:
        package = "torchvision"
        for name in ("", ".transforms", ".transforms.v2", ".transforms.v2.functional"):
            monkeypatch.setitem(sys.modules, package + name, ModuleType(package + name))
        sys.modules[f"{package}.transforms.v2"].functional = SimpleNamespace()
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)
            del sys.modules[name]
    yield [import_module(name) for name in names]
    for name in names:
        vars(sys.modules[PACKAGE]).pop(name.rpartition(".")[2], None)
        sys.modules.pop(name)  # Another test imports it as it is.


def test_tokens_are_its_processor_s(processors):
    """Over a grid of sizes, of images and of frames."""
    tower, front = tower_of(resolve(NAME)), front_end_of(NAME)
    for width in (3, 19, 28, 100, 447, 640, 1344, 3000, 8000):
        for height in (1, 27, 200, 480, 1080, 2688, 7400):
            shared = {"patch_size": 14, "merge_kernel_size": 2, "max_size_per_side": 512}
            for module, most in zip(processors, (16384, 4096), strict=True):
                _, (high, wide) = module.navit_resize(height, width, max_patches=most, **shared)
                video = most == 4096
                assert front.grid(width, height, video) == (high // 14, wide // 14)
            (grid,) = tower.of_image(width, height)
            counted = tokens(NAME, resolution=f"{width}x{height}")["num_visual"]
            assert counted == tower.tokens(grid) == front.tokens_of_image(width, height)
    chunks = tower.of_video(640, 480, 10, 1.0)
    assert [grid.steps for (grid,) in chunks] == [4, 4, 2]
    assert sum(tower.tokens(grid) for (grid,) in chunks) == front.tokens_of_video(640, 480, 10)


def theirs(name, workload, pictures):
    """Ids, and what transformers' model takes beside them."""
    pixels, ids = workload.inputs
    ids.clamp_(1, 90)
    grids = look(tower_of(resolve(name)), pictures).grids
    inputs = torch.cat([torch.full((1, workload.cell.num_visual), 96), ids], 1)
    return inputs, {
        "pixel_values": pixels,
        "image_grid_thw": torch.tensor([grid[:3] for grid in grids]),
    }


@pytest.mark.parametrize(("size", "count"), SHOWN)
def test_images_compute_what_transformers_does(size, count, tmp_path):
    name = written(tmp_path)
    model = write_weights(name, dtype=torch.float32, seed=5)
    cell, pictures = shown(name, size, count, weights=name, dtype="float32")
    workload = build(cell, pictures=pictures)
    inputs, extra = theirs(name, workload, pictures)
    (logits,) = workload.run_forward()
    with torch.no_grad():
        expected = model(input_ids=inputs, **extra).logits
    assert relative(logits, expected) <= 1e-3
    assert not any(flag.startswith("weights: random") for flag in workload.context.flags)


def test_greedy_generation_is_transformers_own(tmp_path):
    name = written(tmp_path)
    model = write_weights(name, dtype=torch.float32, seed=5)
    cell, pictures = shown(name, "200x110", weights=name, dtype="float32")
    workload = build(cell, pictures=pictures)
    inputs, extra = theirs(name, workload, pictures)
    pixels, ids = workload.inputs
    with torch.no_grad():
        expected = model.generate(input_ids=inputs, **extra, max_new_tokens=3, **GREEDY)
    ids = extend(ids, 3, lambda num: build(cell.replace(num_text=num), pictures=pictures), pixels)
    assert torch.equal(ids[:, 5:], expected[:, -3:])


@pytest.mark.parametrize("frames", [1, 3, 8])
def test_frames_are_joined_as_transformers_joins_them(frames, tmp_path):
    name = written(tmp_path)
    model = write_weights(name, dtype=torch.float32, seed=5)
    pictures = Pictures(resolution="61x40", frames=frames)
    cell = make_cell(
        model=name,
        scope="lvlm",
        kernel="eager",
        dtype="float32",
        weights=name,
        num_text=5,
        **fields_of(name, pictures, "V,T"),
    )
    workload = build(cell, pictures=pictures)
    for module in (workload.module, model):
        widen_norms(module)
    pixels = workload.inputs[0]
    grids = torch.tensor([grid[:3] for grid in look(tower_of(resolve(name)), pictures).grids])
    with torch.no_grad():
        # transformers' own get_video_features splits what this gives by the patches of all frames.
        joined = model.model.vision_tower(pixels, grid_thw=grids).pooler_output
        expected = model.model.mm_projector(joined).squeeze(1)
        made = workload.modules["adapter"](workload.modules["tower"](pixels))
    assert relative(made, expected) <= 1e-4


@pytest.mark.parametrize("pass_", ["forward", "train"])
@pytest.mark.parametrize("pictures", [{"count": 2}, {"frames": 6}])
def test_costs_are_the_counts(pass_, pictures, tmp_path):
    name = written(tmp_path)
    scene = Pictures(resolution="200x110", **pictures)
    cell = make_cell(
        model=name,
        scope="lvlm",
        kernel="eager",
        dtype="float32",
        num_text=5,
        **fields_of(name, scene, "V,T"),
        **{"pass": pass_},
    )
    traced, tower = trace(cell, pictures=scene), tower_of(resolve(name))
    assert traced.flops == traced.model_flops
    grids = look(tower, scene).grids
    outside = tower.tower_flops(grids) + tower.adapter_flops(grids)
    if pass_ == "train":
        outside = 3 * outside - tower.patch_flops(grids)
    assert traced.model_flops - trace(cell.replace(scope="decoder")).model_flops == outside


@pytest.mark.parametrize("frozen", ["tower", "tower,adapter"])
def test_what_a_frozen_part_leaves_out(frozen, tmp_path):
    name = written(tmp_path)
    cell, pictures = shown(name, "200x110", frozen=frozen, dtype="float32", **{"pass": "train"})
    traced = trace(cell, pictures=pictures)
    assert traced.flops == traced.model_flops


def test_predictions_are_what_is_measured(tmp_path):
    name = written(tmp_path)
    cell = make_cell(
        model=name,
        scope="lvlm",
        kernel="eager",
        dtype="float32",
        num_visual=1024,
        num_text=5,
    )
    assert_measured(cell, 0.02, ("flops", "params"))


def test_whatever_is_trained_has_a_gradient(tmp_path):
    name = written(tmp_path)
    cell, pictures = shown(name, "200x110", dtype="float32", **{"pass": "train"})
    workload = build(cell, pictures=pictures)
    workload.step()
    for parameter in workload.module.parameters():
        assert (parameter.grad is not None) == parameter.requires_grad


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"projection_hidden_size": 40}, "projection_hidden_size 40: 48, the tower's hidden_size"),
        (
            {"vision_config": {"vt_num_hidden_layers": 12}},
            "vision_config.vt_num_hidden_layers 12: transformers' Kimi_K25VisionConfig reads no",
        ),
        ({"vision_config": {"pos_emb_width": 5}}, "pos_emb_width 5: 6 as pos_emb_height"),
        ({"vision_config": {"merge_kernel_size": [2, 3]}}, "merge [2, 3]: only squares"),
        ({"files": {"preprocessor_config.json": {"merge_size": 3}}}, "merge 3, but config.json"),
        ({"files": {"preprocessor_config.json": {"max_patches": 0}}}, "max_patches 0: a whole"),
        (
            {"files": {"preprocessor_config.json": {"size": {"max_height": 5}}}},
            "max_height and max_width, the same",
        ),
        ({"files": {"preprocessor_config.json": {"do_resize": False}}}, "do_resize false"),
        (
            {"files": {"video_preprocessor_config.json": {"temporal_patch_size": 8}}},
            "temporal_patch_size 8: at most the 4",
        ),
    ],
)
def test_what_makes_no_sense_is_one_line(changes, reason, tmp_path):
    with pytest.raises(RequestError) as refusal:
        tower_of(resolve(written(tmp_path, **changes)))
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)
