"""Molmo 2: transformers' own results, parameters and tokens, and what of it is refused."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.image_utils import PILImageResampling, SizeDict
from transformers.models.molmo2.image_processing_molmo2 import (
    Molmo2ImageProcessor,
    arange_for_pooling,
)
from transformers.models.molmo2.processing_molmo2 import Molmo2Processor
from transformers.models.molmo2.video_processing_molmo2 import Molmo2VideoProcessor

from tests.lvlm.generation import GREEDY, extend, write_weights
from tests.lvlm.measured import assert_measured
from tests.lvlm.published import SERVED
from tests.lvlm.test_oracles import relative
from tests.small import OWN, SHARED, small_model
from workbench.lvlm.build import build
from workbench.lvlm.models import resolve
from workbench.lvlm.pictures import fields_of, look
from workbench.lvlm.towers import tower_of
from workbench.lvlm.towers.molmo2 import pooled
from workbench.probe.counting.trace import trace
from workbench.probe.predicting.facts import model_flags
from workbench.visual import VISIONS
from workbench.visual.tokens import tokens
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.pictures import Pictures

TOWER = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "image_size": [28, 28],
}
ADAPTER = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 24,
    "text_hidden_size": 32,
    "vision_feature_layer": [1, 0],
}


PATCH = 100
"""The token in whose place a visual token stands: of the rows that no head predicts."""
FILE_SETTINGS = {"max_crops": 4, "overlap_margins": [1, 1]}
FILE = {"image_size": [56, 56], "images": FILE_SETTINGS}
"""Crops of 4 × 4 patches, of which neighbours share two rows."""


def written(folder, images=None, image_patch_id=PATCH, **own):
    """A small folder of the whole model; other fields go to the section that has them."""
    tower = {key: own.pop(key) for key in ("image_size", "num_position_embeddings") if key in own}
    adapter = {
        key: own.pop(key) for key in ("text_hidden_size", "vision_feature_layer") if key in own
    }
    whole = AutoConfig.for_model(
        "molmo2",
        text_config={**SHARED, **OWN["molmo2"], **own},
        vision_config=TOWER | tower,
        adapter_config=ADAPTER | adapter,
        image_patch_id=image_patch_id,
    )
    path = Path(folder) / "molmo2"
    whole.save_pretrained(path)
    if images is not None:
        (path / "preprocessor_config.json").write_text(json.dumps(images))
    return str(path)


def cell_of(name, **fields):
    own = {"scope": "decoder", "kernel": "eager", "dtype": "float64", "num_visual": 0}
    return make_cell(**{"model": name, "num_text": 6, **own, **fields})


def test_greedy_generation_of_its_decoder_is_transformers_own(tmp_path):
    """Of text alone, with ids of the rows that no head predicts."""
    name = written(tmp_path)
    model = write_weights(name, seed=5)
    ids = torch.tensor([[5, 102, 9, 97, 3, 40]])
    module = build(cell_of(name, weights=name)).module
    with torch.no_grad():
        assert relative(module(None, ids), model(input_ids=ids).logits) <= 1e-4
        wanted = model.generate(ids, max_new_tokens=3, **GREEDY)
    ids = extend(ids, 3, lambda num: build(cell_of(name, weights=name, num_text=num)), None)
    assert torch.equal(ids, wanted)


def test_parameters_are_those_of_transformers_decoder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(SERVED["allenai/Molmo2-8B"]["config.json"]))
    model = resolve(str(tmp_path))
    with torch.device("meta"):
        whole = AutoModelForImageTextToText.from_config(model.whole)
    theirs = [*whole.model.language_model.parameters(), whole.lm_head.weight]
    cell = cell_of(str(tmp_path), dtype="bfloat16", num_visual=64)
    assert trace(cell).params == sum(p.numel() for p in theirs)
    assert any(flag.startswith("attention: causal; in the rel") for flag in model_flags(cell))


@pytest.mark.parametrize("system", ["s_attn", "d_attn", "d_attn_full", "himix"])
@pytest.mark.parametrize("pass_", ["forward", "train", "decode"])
def test_closed_form_is_the_count(system, pass_, tmp_path):
    logits = {"logits": "text"} if system == "himix" else {}
    fields = {"attention": system, "dtype": "float32", "num_visual": 32, "pass": pass_, **logits}
    found = trace(cell_of(small_model("molmo2", tmp_path), **fields))
    assert found.flops == found.model_flops


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"qk_norm_type": "olmo"}, "qk_norm_type 'olmo': queries and keys normed over all heads"),
        ({"norm_after": True}, "norm_after True: norms behind attention and MLP alone"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings True: a head of as many rows"),
        (
            {
                "rope_scaling_layers": [0],
                "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4},
            },
            r"rope_scaling_layers \[0\]: all layers",
        ),
    ],
)
def test_what_of_its_decoder_is_refused_is_one_line(fields, message, tmp_path):
    with pytest.raises(RequestError, match=message) as refusal:
        resolve(small_model("molmo2", tmp_path, **fields))
    assert "\n" not in str(refusal.value)


class Processor(Molmo2ImageProcessor):
    """Its image processor, whose resizing torch does in place of torchvision, which calls it."""

    def __init__(self):
        """Without the package that the class asks for."""

    def resize(self, image, size, resample, antialias):
        assert resample == PILImageResampling.BILINEAR
        assert not antialias
        return F.interpolate(image, (size.height, size.width), mode="bilinear")

    def rescale_and_normalize(self, image, do_rescale, factor, do_normalize, mean, std):
        mean, std = (torch.tensor(values)[:, None, None] for values in (mean, std))
        return (image * factor - mean) / std

    def of(self, images, size=28, **own):
        """What it makes of pictures."""
        settings = {
            "do_resize": True,
            "size": SizeDict(height=size, width=size),
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "do_convert_rgb": True,
            "disable_grouping": None,
            "return_tensors": None,
        }
        names = ("max_crops", "overlap_margins", "patch_size", "pooling_size")
        settings |= {name: getattr(self, name) for name in (*names, "resample")}
        settings |= {"image_mean": self.image_mean, "image_std": self.image_std, **own}
        raw = [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images]
        return self._preprocess(raw, **settings)


def test_tokens_and_crops_are_its_processor_s():
    """Over a grid of sizes, also of images narrower than the margins that crops share."""
    theirs, tower = Processor(), tower_of(resolve("molmo2-8b"))
    for width in (1, 64, 112, 113, 378, 500, 644, 1000, 1280, 3000):
        for height in (1, 90, 112, 266, 378, 379, 720, 1100, 4000):
            grid, crops = theirs.get_image_grid_and_crops(height, width)
            (own,) = tower.of_image(width, height)
            assert tower.views(own) == [tuple(grid[:2]), tuple(grid[2:])]
            assert tower.squares(own) == crops
            shown = tokens("molmo2-8b", resolution=f"{width}x{height}")
            assert shown["num_visual"] == tower.tokens(own)
            words = Molmo2Processor.replace_image_token(TEXT, {"image_grids": [grid]}, 0)
            count = words.count("<im_col>") + words.count("_start>") + words.count("<im_end>")
            assert tower.front.markers_of_image(width, height) == count
            assert words.count("<im_patch>") == tower.tokens(own)


TEXT = SimpleNamespace(
    image_use_col_tokens=True, use_single_crop_col_tokens=None, use_single_crop_start_token=True
)
"""The settings of its processor that say what text there is, by their defaults."""


def test_frames_are_sampled_as_its_processor_does():
    front = VISIONS["molmo2"]
    own = SimpleNamespace(max_fps=2, num_frames=64)
    for total in (1, 7, 64, 90, 913, 30_000):
        for native in (1.0, 2.0, 23.976, 30.0):
            for fps in (0.5, 1.0, 2.0, 7.3):
                metadata = SimpleNamespace(fps=native, duration=None, total_num_frames=total)
                theirs = Molmo2VideoProcessor.sample_frames(own, metadata, max_fps=fps)
                assert front.sampled(total, native, fps) == len(theirs)
    assert front.tokens_of_video(1920, 1080, 10) == 10 * 81


@pytest.mark.parametrize("sizes", [[(30, 20)], [(90, 40), (40, 41)]])
def test_pixels_and_windows_are_its_processor_s(sizes, tmp_path):
    tower = tower_of(resolve(written(tmp_path, **FILE)))
    images = [noise(*size) for size in sizes]
    theirs = Processor().of(images, size=56, **FILE_SETTINGS)
    pixels = tower.preprocess(images, 0)
    assert relative(pixels, theirs["pixel_values"]) < 1e-5
    grids = tuple(grid for size in sizes for grid in tower.of_image(*size))
    context = build(cell_of(tower.model.name)).context
    assert torch.equal(tower._windows(context, grids), theirs["image_token_pooling"].long())
    assert pixels.shape == tower.pixels(1, grids)


def test_frames_are_pooled_as_its_processor_does(tmp_path):
    tower = tower_of(resolve(written(tmp_path, **FILE)))
    index = torch.arange(16).view(4, 4)
    theirs, *grid = arange_for_pooling(index, 3, 3)
    assert torch.equal(pooled(index, 3), theirs)
    assert tower.views(tower.frame) == [tuple(grid)]
    assert tower.preprocess([noise(40, 30)], 1).shape == tower.pixels(1, (tower.frame,))


def noise(width, height):
    pixels = torch.randint(256, (height, width, 3), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def checkpoint(folder):
    """A small checkpoint, and transformers' own model."""
    name = written(folder, **FILE)
    return name, write_weights(name, seed=5)


def shown(name, folder, sizes, **fields):
    """A cell that shows images of these sizes, its workload, and what transformers' model takes
    beside the ids."""
    images = [noise(*size) for size in sizes]
    for number, image in enumerate(images):
        image.save(folder / f"{number}.png")
    pictures = Pictures(images=tuple(str(folder / f"{n}.png") for n in range(len(images))))
    fields = {"scope": "lvlm", "num_text": 5, **fields, **fields_of(name, pictures, "V,T")}
    cell = cell_of(name, **fields)
    workload = build(cell, pictures=pictures)
    theirs = Processor().of(images, size=56, **FILE_SETTINGS)
    theirs["pixel_values"] = workload.inputs[0]
    del theirs["image_num_crops"]
    return cell, pictures, workload, dict(theirs)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("sizes", [[(90, 40)], [(30, 20), (100, 110)]])
def test_images_compute_what_transformers_does(kernel, sizes, tmp_path):
    """From files to logits; features are added to the embedding of the token in their place."""
    name, model = checkpoint(tmp_path)
    cell, _, workload, extra = shown(name, tmp_path, sizes, weights=name, kernel=kernel)
    ids = workload.inputs[1].clamp_(max=90)
    inputs = torch.cat([torch.full((1, cell.num_visual), PATCH), ids], 1)
    (found,) = workload.run_forward()
    with torch.no_grad():
        assert relative(found, model(input_ids=inputs, **extra).logits) <= 1e-4
    assert not any(flag.startswith("weights: random") for flag in workload.context.flags)


def test_greedy_generation_of_an_image_is_transformers_own(tmp_path):
    name, model = checkpoint(tmp_path)
    cell, pictures, workload, extra = shown(name, tmp_path, [(90, 40)], weights=name)
    pixels, ids = workload.inputs
    ids.clamp_(max=90)
    inputs = torch.cat([torch.full((1, cell.num_visual), PATCH), ids], 1)
    settings = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with torch.no_grad():
        wanted = model.generate(input_ids=inputs, **extra, **settings)
        for _ in range(3):
            grown = build(cell.replace(num_text=ids.shape[1]), pictures=pictures).module
            ids = torch.cat([ids, grown(pixels, ids)[:, -1:].argmax(-1)], 1)
    assert torch.equal(ids[:, 5:], wanted[:, -3:])


def test_parameters_of_the_catalogue_are_transformers_own():
    for name, total in (("molmo2-4b", 4_850_869_200), ("molmo2-8b", 8_661_703_120)):
        model = resolve(name)
        with torch.device("meta"):
            whole = AutoModelForImageTextToText.from_config(model.whole)
        cell = make_cell(model=name, scope="lvlm", num_visual=392, kernel="eager")
        found = trace(cell)
        assert found.params == sum(p.numel() for p in whole.parameters()) == total
        assert found.flops == found.model_flops
        assert not tower_of(model).flags


@pytest.mark.parametrize("frozen", [None, "tower", "tower,adapter"])
@pytest.mark.parametrize("pictures", [{"count": 2}, {"frames": 3}])
def test_costs_are_the_counts(frozen, pictures, tmp_path):
    name = written(tmp_path, **FILE)
    seen = Pictures(resolution="90x40", **pictures)
    fields = {"pass": "train", "frozen": frozen, "dtype": "float32", "scope": "lvlm"}
    cell = cell_of(name, **fields, **fields_of(name, seen, "V,T"))
    found, tower = trace(cell, pictures=seen), tower_of(resolve(name))
    assert found.flops == found.model_flops
    if frozen is None:
        grids = look(tower, seen).grids
        outside = 3 * (tower.tower_flops(grids) + tower.adapter_flops(grids))
        decoder = trace(cell.replace(scope="decoder"))
        assert found.model_flops - decoder.model_flops == outside - tower.patch_flops(grids)


def test_predictions_are_what_is_measured(tmp_path):
    """Also that a layer of the tower which feeds no token is held, not run."""
    name = written(tmp_path, **FILE, vision_feature_layer=[0])
    each = tower_of(resolve(name)).tokens_each
    fields = {"scope": "lvlm", "dtype": "float32", "pass": "train", "num_visual": 2 * each}
    cell = cell_of(name, **fields)
    _, predicted = assert_measured(cell, 0.05, ("flops", "params"))
    assert any("the last 1 of its layers feed no token" in flag for flag in predicted.flags)


def test_the_hub_s_form_is_the_same_model(tmp_path):
    """Other names in a section vit_config, with two layers that its weights leave out."""
    name = str(tmp_path)
    for file, fields in SERVED["allenai/Molmo2-8B"].items():
        (tmp_path / file).write_text(json.dumps(fields))
    ours, catalogue = (tower_of(resolve(each)) for each in (name, "molmo2-8b"))
    assert ours.front.settings() == catalogue.front.settings() | {"max_frames": 384}
    assert ours.chosen == catalogue.chosen == (24, 18)
    assert ours.config.num_hidden_layers == 25


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_patch_id": 500}, "image_patch_id 500: the embedding has 103 rows"),
        (
            {"text_hidden_size": 40},
            "adapter_config.text_hidden_size 40: what is built beside it has 32",
        ),
        (
            {"num_position_embeddings": 9},
            "num_position_embeddings 9: what is built beside it has 16",
        ),
        ({"images": {"overlap_margins": [3, 1]}}, "a crop has 4 patches a side"),
        ({"images": {"max_crops": 99}}, "max_crops 99: at most 64"),
        ({"images": {"size": {"height": 28, "width": 28}}}, "image_size 28, but config.json"),
        ({"images": {"pooling_size": [2, 3]}}, "pool .2, 3.: only squares are known"),
    ],
)
def test_what_makes_no_sense_is_one_line(changes, message, tmp_path):
    images = FILE_SETTINGS | changes.pop("images", {})
    name = written(tmp_path, **{**FILE, "images": images, **changes})
    with pytest.raises(RequestError, match=message) as refusal:
        tower_of(resolve(name))
    assert "\n" not in str(refusal.value)
