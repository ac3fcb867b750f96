"""Model types with a tower of their own, against transformers' whole models, from real images."""

from types import SimpleNamespace

import pytest
import torch
import transformers
from PIL import Image
from transformers import AutoModelForImageTextToText

from tests.lvlm.generation import GREEDY, extend, write_weights
from tests.lvlm.oracle import widen_norms
from tests.lvlm.test_oracles import relative
from tests.small import WRAPPERS, small_wrapper
from workbench.lvlm.build import build
from workbench.lvlm.layout import Layout
from workbench.lvlm.models import MODELS, resolve
from workbench.lvlm.pictures import fields_of, look
from workbench.lvlm.towers import Grid, tower_of
from workbench.lvlm.weights.checkpoints import HOLDERS
from workbench.probe.counting.trace import trace
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.pictures import Pictures
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Status

LEFT_OUT = {"janus": ("vqmodel.", "generation_")}
"""By type, what of transformers' whole model is left out, which a flag says with its number."""
LIKE_NEXT = (
    "llava_next",
    "llava_next_video",
    "llava_onevision",
    "granite_vision",
    "granite4_vision",
)
"""Types whose images are padded to the most tiles of one of them."""
SIZES = ((61, 40), (40, 130), (200, 110))
"""Widths and heights of images."""
TOKEN = 96
"""The image token of the small models."""


def checkpoint(kind, folder):
    """A small checkpoint, and transformers' own model, taken out of the class that holds it."""
    name = small_wrapper(kind, folder)
    if kind not in HOLDERS:
        return name, write_weights(name, seed=5)
    holder = SimpleNamespace(from_config=getattr(transformers, HOLDERS[kind]))
    return name, write_weights(name, holder, seed=5).model


def paint(folder, sizes):
    """Files of images of these sizes."""
    names = []
    for number, (width, height) in enumerate(sizes):
        path = folder / f"{number}.png"
        pixels = torch.randint(256, (height, width, 3), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(path)
        names.append(str(path))
    return Pictures(images=tuple(names))


def theirs(kind, tower, sizes, pixels):
    """What transformers' model takes beside the ids for images of these sizes."""
    if kind in LIKE_NEXT:
        counts = [sum(map(tower.squares, item)) for item in tower.of_images(sizes)]
        views = [*pixels.split(counts)]
        most = max(counts)
        padded = [torch.cat([v, v.new_zeros(most - len(v), *v.shape[1:])]) for v in views]
        found = {
            "pixel_values": torch.stack(padded),
            "image_sizes": torch.tensor([(h, w) for w, h in sizes]),
        }
        if kind == "llava_onevision":
            found["batch_num_images"] = torch.tensor([len(sizes)])
        return found
    if kind in ("pixtral", "mistral3", "ministral3", "lighton_ocr"):
        grids = [grid for item in tower.of_images(sizes) for grid in item]
        edges = [(14 * grid.rows, 14 * grid.columns) for grid in grids]
        padded = pixels.new_zeros(len(grids), 3, *map(max, zip(*edges, strict=True)))
        for place, grid, (high, wide) in zip(padded, grids, edges, strict=True):
            patches, pixels = pixels[: grid.patches], pixels[grid.patches :]
            rows = patches.unflatten(0, grid[1:3]).permute(2, 0, 3, 1, 4)
            place[:, :high, :wide] = rows.flatten(3, 4).flatten(1, 2)
        return {"pixel_values": padded, "image_sizes": torch.tensor(edges)}
    if kind == "deepseek_vl_hybrid":
        low, high = pixels.split([len(sizes) * 3 * edge**2 for edge in (56, 80)], 1)
        return {
            "pixel_values": low.view(-1, 3, 56, 56),
            "high_res_pixel_values": high.view(-1, 3, 80, 80),
        }
    if kind in ("minicpmv4_6", "minicpm_ocr"):
        grids = [grid[1:3] for item in tower.of_images(sizes) for grid in item]
        return {"pixel_values": pixels, "target_sizes": torch.tensor(grids)}
    if kind == "paddleocr_vl":
        grids = tuple(grid for item in tower.of_images(sizes) for grid in item)
        found = {"pixel_values": pixels}
        found["image_grid_thw"] = torch.tensor([grid[:3] for grid in grids])
        count = sum(map(tower.tokens, grids))
        if grids[1:]:  # It finds no positions of images without text between them.
            places = tower.positions(Layout(count, 5, "V,T"), grids)
            return found | {"position_ids": places[:, None]}
        return found | {"mm_token_type_ids": torch.tensor([[1] * count + [0] * 5])}
    if kind == "video_llama_3":
        grids = [grid[:3] for item in tower.of_images(sizes) for grid in item]
        found = {"pixel_values": pixels, "image_grid_thw": torch.tensor(grids)}
        return found | {"image_merge_sizes": torch.ones(len(grids), dtype=torch.int64)}
    if kind == "idefics2":
        grids = [grid for item in tower.of_images(sizes) for grid in item]
        mask = torch.zeros(1, len(grids), *pixels.shape[-2:])
        for each, grid in zip(mask[0], grids, strict=True):
            each[: 14 * grid.rows, : 14 * grid.columns] = 1
        return {"pixel_values": pixels[None], "pixel_attention_mask": mask}
    if kind in ("exaone4_5", "hunyuan_vl"):
        grids = [grid[:3] for item in tower.of_images(sizes) for grid in item]
        found = {"pixel_values": pixels, "image_grid_thw": torch.tensor(grids)}
        if kind == "hunyuan_vl":
            counts = [tower.tokens(Grid(*grid)) - 2 for grid in grids]
            marked = [mark for count in counts for mark in (0, *[1] * count, 0)]
            found["mm_token_type_ids"] = torch.tensor([[*marked, *[0] * 5]])
        return found
    if kind == "granite_docling":
        tiles = torch.ones(1, len(pixels), dtype=torch.bool)
        return {"pixel_values": pixels[None], "pixel_attention_mask": tiles}
    return {"pixel_values": pixels[None] if kind in ("idefics3", "smolvlm") else pixels}


def shown(folder, sizes, name, **fields):
    """A cell that shows images of these sizes, and them."""
    pictures = paint(folder, sizes)
    cell = make_cell(
        model=name,
        scope="lvlm",
        kernel="eager",
        num_text=5,
        **{"dtype": "float64", **fields, **fields_of(name, pictures, "V,T")},
    )
    return cell, pictures


@pytest.mark.parametrize("kind", sorted(WRAPPERS))
@pytest.mark.parametrize("sizes", [SIZES[1:2], SIZES[2:3], SIZES[:2]])
def test_images_compute_what_transformers_does(kind, sizes, tmp_path):
    """From files to logits, with the weights of a checkpoint, and the tokens that follow."""
    name, model = checkpoint(kind, tmp_path)
    cell, pictures = shown(tmp_path, sizes, name, weights=name)
    workload = build(cell, pictures=pictures)
    pixels, ids = workload.inputs
    ids.clamp_(max=90)
    inputs = torch.cat([torch.full((1, cell.num_visual), TOKEN), ids], 1)
    extra = theirs(kind, tower_of(resolve(name)), sizes, pixels)
    (found,) = workload.run_forward()
    with torch.no_grad():
        expected = model(input_ids=inputs, **extra).logits
    # Softmax and norms are float32 in transformers.
    assert relative(found, expected) <= 1e-4
    assert not any(flag.startswith("weights: random") for flag in workload.context.flags)


@pytest.mark.parametrize("kind", sorted(WRAPPERS))
def test_greedy_generation_is_transformers_own(kind, tmp_path):
    name, model = checkpoint(kind, tmp_path)
    cell, pictures = shown(tmp_path, SIZES[2:3], name, weights=name)
    workload = build(cell, pictures=pictures)
    pixels, ids = workload.inputs
    ids.clamp_(max=90)
    inputs = torch.cat([torch.full((1, cell.num_visual), TOKEN), ids], 1)
    extra = theirs(kind, tower_of(resolve(name)), SIZES[2:3], pixels)
    with torch.no_grad():
        expected = model.generate(input_ids=inputs, **extra, max_new_tokens=3, **GREEDY)
    ids = extend(ids, 3, lambda num: build(cell.replace(num_text=num), pictures=pictures), pixels)
    assert torch.equal(ids[:, 5:], expected[:, -3:])


@pytest.mark.parametrize(
    "name", sorted(n for n, m in MODELS.items() if m.around.get("model_type") in WRAPPERS)
)
def test_parameters_of_the_catalogue_are_transformers_own(name):
    model = resolve(name)
    with torch.device("meta"):
        whole = AutoModelForImageTextToText.from_config(model.whole)
    tower = tower_of(model)
    cell = make_cell(model=name, scope="lvlm", num_visual=tower.tokens_each, kernel="eager")
    found = trace(cell)
    words = LEFT_OUT.get(model.whole.model_type, ())
    without = {
        n: p.numel() for n, p in whole.named_parameters() if any(word in n for word in words)
    }
    total = sum(p.numel() for p in whole.parameters())
    assert found.params == total - sum(without.values())
    said = f"is left out, its {sum(without.values()):,} parameters too"
    assert any(said in flag for flag in tower.flags) == bool(without)
    text = sum(p.numel() for p in whole.get_decoder().parameters())
    head = 0 if model.config.tie_word_embeddings else whole.lm_head.weight.numel()
    assert found.params_by_component["decoder"] == text + head
    assert not model.flags


@pytest.mark.parametrize("kind", sorted(WRAPPERS))
@pytest.mark.parametrize("pass_", ["forward", "train"])
def test_costs_are_the_counts(kind, pass_, tmp_path):
    name = small_wrapper(kind, tmp_path)
    cell, pictures = shown(tmp_path, SIZES[2:3], name, dtype="float32", **{"pass": pass_})
    found = trace(cell, pictures=pictures)
    decoder = trace(cell.replace(scope="decoder"))
    tower = tower_of(resolve(name))
    grids = look(tower, pictures).grids
    outside = tower.tower_flops(grids) + tower.adapter_flops(grids)
    if pass_ == "train":
        outside = 3 * outside - tower.patch_flops(grids)
    assert found.model_flops - decoder.model_flops == outside
    assert found.flops == found.model_flops


@pytest.mark.parametrize("kind", sorted(WRAPPERS))
@pytest.mark.parametrize("frozen", ["tower", "tower,adapter"])
def test_what_a_frozen_part_leaves_out(kind, frozen, tmp_path):
    name = small_wrapper(kind, tmp_path)
    cell, pictures = shown(
        tmp_path, SIZES[2:3], name, dtype="float32", frozen=frozen, **{"pass": "train"}
    )
    found = trace(cell, pictures=pictures)
    assert found.flops == found.model_flops


@pytest.mark.parametrize("kind", sorted(WRAPPERS))
def test_predictions_are_what_is_measured(kind, tmp_path):
    name = small_wrapper(kind, tmp_path)
    each = tower_of(resolve(name)).tokens_each
    cell = make_cell(
        model=name,
        scope="lvlm",
        kernel="eager",
        dtype="float32",
        num_visual=2 * each,
        num_text=5,
        **{"pass": "train"},
    )
    # oneDNN's scratch of a backward through SAM's convolutions is a fifth of so small a peak.
    with torch.backends.mkldnn.flags(enabled=kind not in ("deepseek_vl_hybrid", "got_ocr2")):
        measured = measure(cell, "cpu", Protocol(min_samples=1, precision=None))
    predicted = predict(cell, "cpu")
    assert measured.status == predicted.status == Status.OK
    for metric in ("flops", "params"):
        assert measured.metrics[metric] == predicted.metrics[metric]
    ratio = predicted.metrics["peak_bytes"] / measured.metrics["peak_bytes"]
    # oneDNN reorders what the patch embedding convolves.
    assert ratio == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("kind", sorted(WRAPPERS))
def test_whatever_is_trained_has_a_gradient(kind, tmp_path):
    name = small_wrapper(kind, tmp_path)
    cell, pictures = shown(tmp_path, SIZES[2:3], name, dtype="float32", **{"pass": "train"})
    workload = build(cell, pictures=pictures)
    workload.step()
    for parameter in workload.module.parameters():
        assert (parameter.grad is not None) == parameter.requires_grad


def test_a_video_of_onevision_is_pooled_and_ends_in_a_newline(tmp_path):
    name, model = checkpoint("llava_onevision", tmp_path)
    tower = tower_of(resolve(name))
    grids = tower.of_video(640, 480, 3, 1.0)[0]
    (grid,) = tower.grids(tower.tokens(grids[0]))
    assert grid == grids[0] == Grid(3, 4, 4, 1.0)
    cell = make_cell(
        model=name,
        weights=name,
        scope="lvlm",
        kernel="eager",
        dtype="float64",
        num_visual=3 * 4 + 1,
    )
    workload = build(cell)
    for module in (workload.module, model):
        widen_norms(module)
    pixels = workload.inputs[0]
    with torch.no_grad():
        expected = model.model.get_video_features(pixels[None]).pooler_output
        found = workload.modules["adapter"](workload.modules["tower"](pixels))
    assert relative(found, expected[0]) <= 1e-4


@pytest.mark.parametrize(
    ("name", "visual", "message"),
    [
        ("pixtral-12b", 67, "edges up to 64 tokens; the nearest are 66 and 68"),
        ("pixtral-12b", 1025, "1024 tokens an image; the nearest are 1024 and 2048"),
        ("internvl3-8b", 255, "256 tokens an image; the nearest are 0 and 256"),
        ("llava-onevision-7b", 728, "the nearest are 0 and 730, or of a video 589"),
    ],
)
def test_which_numbers_of_tokens_there_can_be(name, visual, message):
    with pytest.raises(RequestError, match=message):
        tower_of(resolve(name)).grids(visual)


def test_images_that_stand_for_tokens():
    """One as nearly square as can be for Pixtral, tiles for InternVL, a video for OneVision."""
    assert tower_of(resolve("pixtral-12b")).grids(66) == (Grid(1, 6, 11),)
    assert tower_of(resolve("mistral-small-3.1-24b")).grids(66) == (Grid(1, 12, 22),)
    assert tower_of(resolve("internvl3-8b")).grids(512) == (Grid(1, 32, 32),) * 2
    assert tower_of(resolve("llava-onevision-7b")).grids(589) == (Grid(3, 27, 27, 1.0),)


@pytest.mark.parametrize("kind", sorted(WRAPPERS))
def test_pixels_of_frames_are_what_the_tower_takes(kind, tmp_path):
    """A video's frames are images of their own, but for OneVision, which pools them."""
    name = small_wrapper(kind, tmp_path)
    tower = tower_of(resolve(name))
    items = tower.of_video(120, 70, 3, 1.0)
    grids = tuple(grid for item in items for grid in item)
    frames = [Image.new("RGB", (120, 70), (9 * n, 40, 200)) for n in range(3)]
    pixels = tower.preprocess(frames, 3)
    assert pixels.shape == tower.pixels(1, grids)
    wanted = tower.front.tokens_of_video(120, 70, 3)
    assert sum(map(tower.tokens, grids)) == wanted
