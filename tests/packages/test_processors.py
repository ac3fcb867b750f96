"""Pixels and tokens of the families whose image processors need torchvision, against those."""

import json

import pytest
import torch
from PIL import Image
from transformers.models.kimi_k25.image_processing_kimi_k25 import Kimi_K25ImageProcessor
from transformers.models.kimi_k25.video_processing_kimi_k25 import Kimi_K25VideoProcessor
from transformers.models.lfm2_vl.image_processing_lfm2_vl import Lfm2VlImageProcessor
from transformers.models.llama4.image_processing_llama4 import Llama4ImageProcessor
from transformers.models.minicpm_ocr.image_processing_minicpm_ocr import MiniCPMOcrImageProcessor
from transformers.models.molmo2.image_processing_molmo2 import Molmo2ImageProcessor
from transformers.models.phi4_multimodal.image_processing_phi4_multimodal import (
    Phi4MultimodalImageProcessor,
)
from transformers.models.video_llama_3.video_processing_video_llama_3 import (
    VideoLlama3VideoProcessor,
)
from transformers.video_utils import VideoMetadata

from workbench.lvlm.models import MODELS, resolve
from workbench.lvlm.towers import tower_of
from workbench.visual import VISIONS
from workbench.visual.tokens import tokens
from workbench.vocabulary.errors import RequestError

VIDEO_LLAMA3 = "videollama3-2b"
LLAMA4, PHI4, MOLMO2 = "llama-4-scout-17b-16e", "phi-4-multimodal", "molmo2-8b"
LFM2_VL, KIMI = "lfm2-vl-1.6b", "kimi-k2.5"
SIZES = [(1, 9), (336, 336), (640, 480), (300, 900), (1280, 720), (31, 1700), (2600, 2000)]


def noise(width, height):
    return Image.merge("RGB", [Image.effect_noise((width, height), 70) for _ in range(3)])


@pytest.mark.parametrize("largest", [False, True])
def test_pixels_of_llama_4(largest, tmp_path):
    """One tile and several, on a canvas that images fill or not."""
    theirs = Llama4ImageProcessor(resize_to_max_canvas=largest)
    (tmp_path / "config.json").write_text(json.dumps(MODELS[LLAMA4].stated()))
    prepared = tmp_path / "preprocessor_config.json"
    prepared.write_text(json.dumps({"resize_to_max_canvas": largest}))
    tower = tower_of(resolve(str(tmp_path)))
    for size in SIZES:
        picture = noise(*size)
        batch = theirs(picture, return_tensors="pt")
        wanted = batch["pixel_values"].float()
        pixels = tower.preprocess([picture], 0)
        grids = tower.of_image(*size)
        assert pixels.shape == tower.pixels(1, grids)
        assert torch.equal(pixels, wanted.flatten(0, -4)), size
        assert tower.eye.canvas(*size) == tuple(batch["aspect_ratios"][0].tolist())
        assert tower.front.tokens_of_image(*size) == 144 * len(wanted.flatten(0, -4))


def test_frames_of_llama_4_are_images():
    tower, size = tower_of(resolve(LLAMA4)), (700, 336)
    items = tower.of_video(*size, 3, 1.0)
    count = sum(tower.tokens(grid) for item in items for grid in item)
    assert tokens(LLAMA4, resolution="700x336", frames=3)["num_visual"] == count
    grids = tuple(grid for item in items for grid in item)
    assert tower.preprocess([noise(*size)] * 3, 3).shape == tower.pixels(1, grids)


def test_pixels_and_tokens_of_phi_4():
    """Two images of a sample too, of which one gets empty crops."""
    theirs, tower = Phi4MultimodalImageProcessor(), tower_of(resolve(PHI4))
    for size in [(448, 448), (640, 480), (300, 900), (11, 13), (1280, 720)]:
        pictures = [noise(*size), noise(100, 90)]
        batch = theirs(pictures, return_tensors="pt")
        grids = (*tower.of_image(*size), *tower.of_image(100, 90))
        wanted = batch["image_pixel_values"].flatten(0, 1)
        assert torch.equal(tower.preprocess(pictures, 0), wanted), size
        assert [*map(tower.tokens, grids)] == [int(n) for n in batch["num_img_tokens"]]
        assert [[448 * n for n in grid.tiles] for grid in grids] == batch["image_sizes"].tolist()
        most = wanted.shape[0] // 2
        masks = torch.cat([*tower._masks(grids, most)])
        assert torch.equal(masks, batch["image_attention_mask"].flatten(0, 1).bool())


def test_tokens_of_phi_4_over_a_grid_of_sizes():
    """By its processor's mask of patches; sizes that it refuses too."""
    theirs, tower, refused = Phi4MultimodalImageProcessor(), tower_of(resolve(PHI4)), 0
    for width in (11, 100, 447, 449, 900, 3000, 5000):
        for height in (7, 13, 448, 720, 2688):
            asked, picture = f"{width}x{height}", torch.zeros(3, height, width, dtype=torch.uint8)
            try:
                mask = theirs.dynamic_preprocess(picture, 448, 14, 32, max_num=36)[1].bool()
            except ValueError as refusal:
                assert "the aspect ratio is very extreme" in str(refusal)  # noqa: PT017
                refused += 1
                with pytest.raises(RequestError, match="edge below 10"):
                    tokens(PHI4, resolution=asked)
                continue
            (grid,) = tower.of_image(width, height)
            (seen,) = tower._masks((grid,), tower.squares(grid))
            crops = mask.unflatten(0, (-1, 32)).unflatten(2, (-1, 32)).transpose(1, 2)
            assert torch.equal(seen[1:], crops.flatten(0, 1))
            pooled = mask[::2, ::2]
            wanted = 256 + 1 + int(pooled.sum()) + int(pooled[:, 0].sum()) + 16
            assert tokens(PHI4, resolution=asked)["num_visual"] == tower.tokens(grid) == wanted
    assert refused > 0


def test_pixels_of_molmo_2():
    theirs, tower = Molmo2ImageProcessor(), tower_of(resolve(MOLMO2))
    for size in [(1, 9), (378, 378), (640, 480), (300, 900), (1280, 720)]:
        picture = noise(*size)
        batch = theirs(picture, return_tensors="pt")
        wanted = batch["pixel_values"].float()
        pixels = tower.preprocess([picture], 0)
        assert pixels.shape == wanted.shape == tower.pixels(1, tower.of_image(*size))
        assert float((pixels - wanted).abs().max()) <= 1e-5, size


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_thumbnail": False, "max_tiles": 4},
        {"do_image_splitting": False},
        {"min_tiles": 1, "max_tiles": 2, "tile_size": 64, "max_image_tokens": 16},
    ],
    ids=str,
)
def test_pixels_of_lfm2_vl(settings, tmp_path):
    """Small images, tiles with a thumbnail and without, one tile alone."""
    settings = {"min_image_tokens": 4, **settings}
    (tmp_path / "config.json").write_text(json.dumps(MODELS[LFM2_VL].stated()))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    theirs, tower = Lfm2VlImageProcessor(**settings), tower_of(resolve(str(tmp_path)))
    for size in [(9, 9), (512, 512), (640, 480), (300, 900), (1280, 720), (61, 700)]:
        picture = noise(*size)
        batch = theirs(picture, return_tensors="pt")
        padded = zip(batch["pixel_values"], batch["pixel_attention_mask"].bool(), strict=True)
        wanted = torch.cat([rows[mask] for rows, mask in padded])
        pixels, grids = tower.preprocess([picture], 0), tower.of_image(*size)
        assert pixels.shape == tower.pixels(1, grids)
        assert torch.equal(pixels, wanted), size
        assert [[*grid[1:3]] for grid in grids] == batch["spatial_shapes"].tolist()


@pytest.mark.parametrize("settings", [{}, {"max_patches": 300, "patch_size": 14}], ids=str)
def test_pixels_of_kimi_k2_5(settings, tmp_path):
    """Images, and frames of which the last are fewer than share their tokens."""
    (tmp_path / "config.json").write_text(json.dumps(MODELS[KIMI].stated()))
    for file in ("preprocessor_config.json", "video_preprocessor_config.json"):
        (tmp_path / file).write_text(json.dumps(settings))
    images, videos = Kimi_K25ImageProcessor(**settings), Kimi_K25VideoProcessor(**settings)
    tower = tower_of(resolve(str(tmp_path)))
    for size in [(1, 9), (28, 28), (640, 480), (300, 900), (1280, 720), (31, 7300)]:
        frames = [noise(*size) for _ in range(6)]
        batch = images(frames[0], return_tensors="pt")
        wanted, grids = batch["pixel_values"].flatten(0, -4), tower.of_image(*size)
        pixels = tower.preprocess(frames[:1], 0)
        assert pixels.shape == tower.pixels(1, grids)
        assert torch.equal(pixels, wanted), size
        assert [[*grid[:3]] for grid in grids] == batch["image_grid_thw"].tolist()
        batch = videos([frames], return_tensors="pt", do_sample_frames=False)
        steps = tuple(grid for item in tower.of_video(*size, 6, 1.0) for grid in item)
        assert [[*grid[:3]] for grid in steps] == batch["video_grid_thw"].tolist()
        wanted = batch["pixel_values_videos"].flatten(0, -4)
        pixels = tower.preprocess(frames, 6)
        assert pixels.shape == tower.pixels(1, steps)
        assert torch.equal(pixels, wanted), size


@pytest.mark.parametrize("frames", [1, 5, 200])
def test_frames_of_video_llama_3(frames):
    """Sizes and tokens by its video processor, whose mask keeps less of frames that are alike."""
    theirs, tower = VideoLlama3VideoProcessor(), tower_of(resolve(VIDEO_LLAMA3))
    for width, height in [(640, 480), (300, 90), (31, 1700)]:
        still = torch.zeros(1, 3, height, width, dtype=torch.uint8).expand(frames, -1, -1, -1)
        batch = theirs([still], return_tensors="pt", do_sample_frames=False)
        items = tower.of_video(width, height, frames, 1.0)
        counted = sum(tower.tokens(grid) for item in items for grid in item)
        assert [[frames, *items[0][0][1:3]]] == batch["video_grid_thw"].tolist()
        shown = tokens(VIDEO_LLAMA3, resolution=f"{width}x{height}", frames=frames)
        kept = batch["video_compression_mask"]
        assert shown["num_visual"] == counted == len(kept)
        assert bool(kept.all()) == (frames == 1 or tower.tokens(items[0][0]) == 1)


def test_video_llama_3_samples_as_its_processor():
    theirs, front = VideoLlama3VideoProcessor(), VISIONS["video-llama-3"]
    for total, rate, fps in [(300, 30.0, 1.0), (90, 30.0, 1.0), (9000, 25.0, 2.0), (3, 30.0, 1.0)]:
        clip = VideoMetadata(total_num_frames=total, fps=rate)
        assert len(theirs.sample_frames(clip, fps=fps)) == front.sampled(total, rate, fps)


@pytest.mark.parametrize("size", [(30, 20), (640, 480), (300, 1200), (1280, 720)])
def test_images_of_minicpm_ocr(size):
    """Patches of the whole image and of slices, small ones enlarged, in the mode 4x."""
    batch = MiniCPMOcrImageProcessor()(noise(*size), return_tensors="pt")
    front = VISIONS["minicpm-ocr"]
    grid = front.slices(*size)
    pieces = [front.whole(*size)]
    if grid is not None:
        pieces += [front.slice(*size, grid)] * (grid[0] * grid[1])
    assert [[*piece] for piece in pieces] == batch["target_sizes"].tolist()
    assert front.tokens_of_image(*size) == sum(rows * wide for rows, wide in pieces) // 4
