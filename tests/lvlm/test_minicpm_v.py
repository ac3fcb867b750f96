"""MiniCPM-V 4.6 and 4.7: its processor's tokens and slices, the canvas, and what is refused."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText
from transformers.models.minicpmv4_6.image_processing_pil_minicpmv4_6 import (
    MiniCPMV4_6ImageProcessorPil,
)
from transformers.models.minicpmv4_6.processing_minicpmv4_6 import MiniCPMV4_6Processor
from transformers.models.minicpmv4_6.video_processing_minicpmv4_6 import MiniCPMV4_6VideoProcessor
from transformers.models.minicpmv4_7.modeling_minicpmv4_7 import MiniCPMV4_7Model

from tests.lvlm.generation import GREEDY, extend, write_weights
from tests.lvlm.test_oracles import relative
from tests.small import small_wrapper
from workbench.lvlm.build import build
from workbench.lvlm.layout import Layout
from workbench.lvlm.models import MODELS, resolve
from workbench.lvlm.towers import tower_of
from workbench.probe.counting.trace import trace
from workbench.visual.tokens import front_end_of, tokens
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError, Unsupported

SIZES = [
    (19, 7),
    (7, 2000),
    (640, 480),
    (448, 448),
    (449, 448),
    (1280, 720),
    (300, 1200),
    (4000, 3000),
]
MARKS = {
    "image": "I",
    "image_start": "<",
    "image_end": ">",
    "slice_start": "(",
    "slice_end": ")",
    "image_id_start": "{",
    "image_id_end": "}",
}
"""A character for each of its markers."""
PUBLISHED = {
    "minicpm-v-4.6": 1.3e9,
    "minicpm-v-4.7-1b": 1.55e9,
    "minicpm-v-4.7-35b-a3b": 35.2e9,
}
"""Parameters as the cookbook of the publisher rounds them."""


def written(folder, kind="minicpmv4_6", files=None, tower=None, **changes):
    """A small folder of that kind with other fields."""
    path = Path(small_wrapper("minicpmv4_6", folder))
    config = json.loads((path / "config.json").read_text())
    config["model_type"] = kind
    config["vision_config"] |= {"model_type": f"{kind}_vision", **(tower or {})}
    if kind == "minicpmv4_7":
        del config["drop_vision_last_layer"]
    (path / "config.json").write_text(json.dumps(config | changes))
    for file, fields in (files or {}).items():
        (path / file).write_text(json.dumps(fields))
    return str(path)


@pytest.mark.parametrize("size", SIZES)
def test_tokens_and_markers_are_its_processor_s(size):
    """The text that its own processor puts in an image's place, without a tokenizer's class."""
    made = MiniCPMV4_6ImageProcessorPil()(Image.new("RGB", size), return_tensors="pt")
    marks = {f"{name}_token": mark for name, mark in MARKS.items()}
    words = SimpleNamespace(slice_mode=True, **marks)
    text = MiniCPMV4_6Processor.replace_image_token(words, made, 0, image_token_divisor=16)
    (text,) = MiniCPMV4_6Processor._prepend_local_ids(words, ["I"], [text], "I")
    found = tokens("minicpm-v-4.6", resolution=f"{size[0]}x{size[1]}")
    assert found["num_visual"] == text.count("I")
    assert found["markers"] == len(text) - text.count("I")
    tower = tower_of(resolve("minicpm-v-4.6"))
    grids = tower.of_image(*size)
    assert made["target_sizes"].tolist() == [list(grid[1:3]) for grid in grids]
    assert sum(map(tower.tokens, grids)) == found["num_visual"]
    assert made["pixel_values"].shape == tower.pixels(1, grids)


@pytest.mark.parametrize("size", SIZES)
def test_frames_go_by_the_limits_of_video(size, tmp_path):
    """Its video processor's own sizes, under a file's limits and in the mode of more tokens."""
    limits = {"max_slice_nums": 4, "scale_resolution": 224, "max_num_frames": 7}
    name = written(
        tmp_path,
        files={"video_preprocessor_config.json": limits, "preprocessor_config.json": {}},
        downsample_mode="4x",
    )
    theirs, (wide, high) = MiniCPMV4_6VideoProcessor(), size
    grid = theirs.get_sliced_grid((high, wide), 4, 224)
    fit = grid is None
    wanted = [theirs.find_best_resize((high, wide), 224, 14, fit, "4x")]
    if grid is not None:
        rows, columns = grid
        down, across = theirs.get_refine_size((high, wide), grid, 224, 14, True, "4x")
        wanted += [(down // rows, across // columns)] * (rows * columns)
    tower = tower_of(resolve(name))
    (found,) = tower.of_video(*size, 1, 1.0)
    assert [(14 * g.rows, 14 * g.columns) for g in found] == wanted
    counted = front_end_of(name)
    assert counted.tokens_of_step(*size) == sum(map(tower.tokens, found))
    assert counted.sampled(1000, 10.0, 1.0) == 7


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_parameters_of_the_catalogue_are_transformers_own(name):
    model = resolve(name)
    with torch.device("meta"):
        whole = AutoModelForImageTextToText.from_config(model.whole)
    cell = make_cell(model=name, scope="lvlm", num_visual=64, kernel="eager")
    found = trace(cell)
    assert found.params == sum(p.numel() for p in whole.parameters())
    assert found.params == pytest.approx(PUBLISHED[name], rel=0.005)
    head = 0 if model.config.tie_word_embeddings else whole.lm_head.weight.numel()
    text = sum(p.numel() for p in whole.get_decoder().parameters())
    assert found.params_by_component["decoder"] == text + head
    assert found.flops == found.model_flops


class Shown:
    """A checkpoint of MiniCPM-V 4.7 in one of its modes, a cell of one image, and what
    transformers' model takes for it; the token before the image opens it."""

    def __init__(self, mode, folder):
        name = written(folder, "minicpmv4_7", downsample_mode=mode)
        self.model = write_weights(name, seed=5)
        visual = 4 if mode == "16x" else 16
        fields = {"scope": "lvlm", "kernel": "eager", "dtype": "float64", "weights": name}
        self.cell = make_cell(model=name, num_visual=visual, num_text=6, layout="T,V,T", **fields)
        self.workload = build(self.cell)
        self.pixels, self.ids = self.workload.inputs
        self.ids.clamp_(1, 90)  # Of 0 transformers makes padding.
        image = torch.full((1, visual), 96)
        self.given = torch.cat([self.ids[:, :3], image, self.ids[:, 3:]], 1)
        grids = tower_of(resolve(name)).grids(visual)
        self.extra = {
            "pixel_values": self.pixels,
            "target_sizes": torch.tensor([grid[1:3] for grid in grids]),
            "mm_token_type_ids": (self.given == 96).int(),
        }


@pytest.mark.parametrize("mode", ["16x", "4x"])
def test_both_modes_compute_what_transformers_does(mode, tmp_path):
    shown = Shown(mode, tmp_path)
    (found,) = shown.workload.run_forward()
    with torch.no_grad():
        expected = shown.model(input_ids=shown.given, **shown.extra).logits
    assert relative(found, expected) <= 1e-4


def test_greedy_generation_on_a_canvas_is_transformers_own(tmp_path):
    shown = Shown("16x", tmp_path)
    with torch.no_grad():
        new = shown.model.generate(shown.given, **shown.extra, max_new_tokens=2, **GREEDY)[:, -2:]

    def longer(num):
        return build(shown.cell.replace(num_text=num, layout=f"T3,V,T{num - 3}"))

    ids = extend(shown.ids, 2, longer, shown.pixels)
    assert torch.equal(ids[:, 6:], new)


@pytest.mark.parametrize("sizes", [[(100, 100)], [(500, 120)], [(90, 300), (500, 120), (50, 50)]])
def test_canvas_positions_are_transformers_own(sizes, tmp_path):
    """Of visual tokens, of the marker that opens an image, and of text, at markers' own ids."""
    name = written(
        tmp_path,
        "minicpmv4_7",
        image_start_id=1,
        image_end_id=2,
        slice_start_id=3,
        slice_end_id=4,
        newline_id=5,
    )
    model = resolve(name)
    tower = tower_of(model)
    items = tower.of_images(sizes)
    ids, ours = [7, 7], []
    for item in items:
        whole, *slices = item
        ours += [len(ids)]
        ids += [1, *[96] * tower.tokens(whole), 2]
        for index, piece in enumerate(slices):
            if index and index % piece.tiles[1] == 0:
                ids += [5]
            ids += [3, *[96] * tower.tokens(piece), 4]
        ids += [7, 7, 7]
    with torch.device("meta"):
        theirs = MiniCPMV4_7Model(model.whole)
    asked = torch.tensor([ids])
    sizes_in_patches = torch.tensor([g[1:3] for item in items for g in item])
    places, _ = theirs.get_rope_index(asked, (asked == 96).int(), sizes_in_patches)
    shown = (asked[0] == 96) | (asked[0] == 7)
    shown[ours] = True
    grids = tuple(grid for item in items for grid in item)
    counts = [sum(map(tower.tokens, item)) for item in items]
    pattern = "T3," + ",".join(f"V{n},T4" for n in counts[:-1]) + ("," if counts[:-1] else "")
    pattern += f"V{counts[-1]},T3"
    layout = Layout(sum(counts), 3 + 4 * len(counts[:-1]) + 3, pattern)
    assert torch.equal(tower.positions(layout, grids), places[:, 0, shown])


def test_frames_that_follow_each_other_and_an_image_at_the_start(tmp_path):
    """Every canvas begins behind the one before; nothing opens an image where no text is."""
    tower = tower_of(resolve(written(tmp_path, "minicpmv4_7")))
    grids = tower.grids(8)
    found = tower.positions(Layout(8, 2, "V,T"), grids)
    assert found[0].tolist() == [0] * 4 + [3] * 4 + [6, 7]
    assert found[1, :8].tolist() == [0, 0, 1, 1, 3, 3, 4, 4]
    with pytest.raises(RequestError, match="no whole number of images"):
        tower.positions(Layout(8, 2, "V6,T,V2,T"), grids)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"insert_layer_id": 3}, "insert_layer_id 3: a layer of its tower, 0 to 2"),
        ({"merger_times": 2}, "merger_times 2: 1, by which its processor counts"),
        ({"merge_kernel_size": [2, 4]}, r"merge_kernel_size \[2, 4\]: \[2, 2\]"),
        ({"drop_vision_last_layer": True}, "drop_vision_last_layer True: False"),
        ({"tower": {"window_kernel_size": [4, 4]}}, r"vision_config.window_kernel_size \[4, 4\]"),
        ({"downsample_mode": "8x"}, "config.json: downsample_mode '8x': 16x or 4x"),
        ({"files": {"preprocessor_config.json": {"downsample_mode": "4x"}}}, "4x, but the tower"),
        ({"files": {"preprocessor_config.json": {"slice_mode": 3}}}, "slice_mode 3: true or"),
        ({"files": {"preprocessor_config.json": {"max_slice_nums": 10**6}}}, "at most 10,000"),
        ({"files": {"video_preprocessor_config.json": {"stack_frames": 3}}}, "only 1 is known"),
        ({"files": {"preprocessor_config.json": {"patch_size": 16}}}, "patch_size 16, but"),
    ],
)
def test_what_makes_no_sense_is_one_line(changes, message, tmp_path):
    with pytest.raises(RequestError, match=message) as refusal:
        tower_of(resolve(written(tmp_path, **changes)))
    assert "\n" not in str(refusal.value)


def test_an_image_is_not_sliced_where_its_file_says_so(tmp_path):
    files = {"preprocessor_config.json": {"slice_mode": False, "scale_resolution": 112}}
    assert len(tower_of(resolve(written(tmp_path, files=files))).of_image(900, 400)) == 1


def test_features_have_no_width_of_their_own(tmp_path):
    cell = make_cell(
        model=written(tmp_path), attention="himix", scope="lvlm", num_visual=4, logits="text"
    )
    with pytest.raises(Unsupported, match="himix"):
        build(cell, "meta")


def test_every_size_names_where_it_is_from():
    sources = [MODELS[name].source for name in PUBLISHED]
    assert all("openbmb/MiniCPM-V-4.6" in source for source in sources)


@pytest.mark.parametrize("upsize", ["adaptive", "never", 1])
def test_sizes_by_what_an_image_shows_are_refused(upsize, tmp_path):
    name = small_wrapper("minicpm_ocr", tmp_path)
    assert front_end_of(name).downsample == "4x"
    stated = {"small_image_upsize": upsize}
    (Path(name) / "preprocessor_config.json").write_text(json.dumps(stated))
    with pytest.raises(RequestError) as refusal:
        tower_of(resolve(name))
    assert f"small_image_upsize {upsize!r}: only always is known" in str(refusal.value)
    assert "\n" not in str(refusal.value)
