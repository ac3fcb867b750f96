"""Front ends under the files beside a checkpoint, against transformers' own processors."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
    Qwen2VLImageProcessorPil,
    smart_resize,
)

from workbench.errors import RequestError
from workbench.vision import VISIONS, Limits
from workbench.vision.qwen2_5_vl import UNSAID_VIDEO
from workbench.visuals import default_vision, front_end_of, tokens

QWEN = {"model_type": "qwen2_5_vl", "vision_config": {"patch_size": 14, "spatial_merge_size": 2}}
GEMMA = {"model_type": "gemma3", "mm_tokens_per_image": 256, "vision_config": {}}
CLIP = {"model_type": "clip_vision_model", "image_size": 336, "patch_size": 14}
LLAVA = {"model_type": "llava", "vision_config": CLIP}
EDGE = st.integers(30, 3000)
PIXELS = st.integers(1, 3000).map(lambda n: n * 28 * 28)


def write(folder, config, **files):
    (folder / "config.json").write_text(json.dumps(config))
    for name, fields in files.items():
        (folder / f"{name}.json").write_text(json.dumps(fields))
    return str(folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@settings(max_examples=40, deadline=None)
@given(EDGE, EDGE, PIXELS, PIXELS, st.sampled_from(["flat", "size", "nested"]))
def test_pixel_limits_of_a_checkpoint(place, width, height, low, high, where):
    least, most = sorted((low, high))
    limits = {"min_pixels": least, "max_pixels": most}
    named = {"shortest_edge": least, "longest_edge": most}
    files = {
        "flat": {"preprocessor_config": limits},
        "size": {"preprocessor_config": {"size": named}},
        "nested": {"processor_config": {"image_processor": {"size": named}},
                   "preprocessor_config": {"min_pixels": 1, "max_pixels": 1}},
    }[where]  # fmt: skip
    for old in place.glob("*processor_config.json"):
        old.unlink()
    name = write(place, QWEN, **files)
    processor = Qwen2VLImageProcessorPil(**limits)
    patches = processor.get_number_of_image_patches(height, width, {"size": named})
    assert front_end_of(name).tokens_of_image(width, height) == patches // 4
    assert front_end_of(name).origins["max_pixels"] in (
        "preprocessor_config.json", "processor_config.json",
    )  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(EDGE, EDGE, st.integers(1, 900), st.integers(1, 900),
       st.sampled_from([None, 300, 2_000, 128_000]))  # fmt: skip
def test_a_video_s_budget_is_transformers_own(place, width, height, frames, each, context):
    """Its video processor's ``resize``, which needs torchvision, by the function that it calls."""
    least, most = 3136, max(3136, each * 28 * 28)
    fields = {"size": {"shortest_edge": least, "longest_edge": most}}
    if context is not None:
        fields |= {"cap_pixels_per_frame": True, "max_video_tokens": context}
        pixels = int(context * 28 * 28 * 0.9)
        most = max(min(most, pixels * 2 // frames), int(least * 1.05))
    for old in place.glob("*processor_config.json"):
        old.unlink()
    name = write(place, QWEN, video_preprocessor_config=fields)
    high, wide = smart_resize(height, width, 28, least, most)
    steps = -(-frames // 2)
    ours = front_end_of(name).tokens_of_video(width, height, frames)
    assert ours == steps * (high // 28) * (wide // 28)


VIDEO = "transformers.models.qwen2_vl.video_processing_qwen2_vl"


def test_the_video_processor_is_as_it_was():
    """Its file, which imports torchvision, says what stands here."""
    found = importlib.util.find_spec(VIDEO)
    text = Path(found.origin).read_text()
    for line in (
        'size = {"shortest_edge": 128 * 28 * 28, "longest_edge": 28 * 28 * 768}',
        "min_frames = 4", "max_frames = 768", "max_video_tokens = 128000",
        "total_pixels = int(self.max_video_tokens * factor * factor * 0.9)",
        "cap_pixels_per_frame = False",
        # The frames it takes: evenly spaced by their number, as workbench.frames reads them.
        "torch.arange(0, total_num_frames, total_num_frames / num_frames).int()",
    ):  # fmt: skip
        assert line in text
    assert UNSAID_VIDEO == {"min": 128 * 28 * 28, "max": 28 * 28 * 768}


def test_frames_of_a_video_processor(tmp_path):
    name = write(tmp_path, QWEN, video_preprocessor_config={"max_frames": 40, "min_frames": 6})
    assert front_end_of(name).sampled(9000, 30.0, 1.0) == 40
    assert front_end_of(name).sampled(60, 30.0, 1.0) == 6
    assert front_end_of(name, limits=Limits(max_frames=10)).sampled(9000, 30.0, 1.0) == 10
    assert VISIONS["siglip"].asked(Limits(max_frames=7)).sampled(9000, 30.0, 1.0) == 7


def test_what_the_file_leaves_is_transformers_default(tmp_path):
    """Not the published checkpoint's: a processor without limits has those of its class."""
    name = write(tmp_path, QWEN, preprocessor_config={"image_processor_type": "x"})
    found = front_end_of(name)
    assert {"shortest_edge": found.min_pixels, "longest_edge": found.max_pixels} == (
        Qwen2VLImageProcessorPil.size
    )
    assert {"min": found.video_min_pixels, "max": found.video_max_pixels} == UNSAID_VIDEO
    assert found.origins["max_pixels"].startswith("transformers' default")


@pytest.mark.parametrize("crops", [None, False, True])
def test_gemma_crops_only_when_asked(crops, tmp_path):
    fields = {"do_pan_and_scan": crops, "pan_and_scan_max_num_crops": None}
    name = write(tmp_path, GEMMA, preprocessor_config=fields)
    assert tokens(name, resolution="1280x720")["num_visual"] == (768 if crops else 256)
    assert tokens(name, resolution="1280x720", frames=16)["num_visual"] in (4096, 16 * 768)
    asked = tokens(name, resolution="1280x720", limits=Limits(pan_and_scan=True))
    assert asked["num_visual"] == 768
    assert asked["limits_from"]["pan_and_scan"] == "the request"


def test_a_budget_is_asked_for_and_told():
    plain = tokens("qwen2.5-vl-7b", resolution="1920x1080", frames=768)
    assert plain["num_visual"] == 1_033_344
    (note,) = plain["notes"]
    assert "qwen-vl-utils' of 115,200 tokens would make 105,984" in note
    for most in (115_200, 24_576):
        limits = Limits(max_video_tokens=most)
        capped = tokens("qwen2.5-vl-7b", resolution="1920x1080", frames=768, limits=limits)
        assert most * 0.8 < capped["num_visual"] <= most
        assert capped["notes"] == []


@pytest.mark.parametrize("strategy", ["default", "full"])
def test_llava_is_one_square(strategy, tmp_path):
    name = write(tmp_path, LLAVA | {"vision_feature_select_strategy": strategy},
                 preprocessor_config={"crop_size": {"height": 336, "width": 336}})  # fmt: skip
    pixels = CLIPImageProcessorPil(size={"shortest_edge": 336},
                                   crop_size={"height": 336, "width": 336})(
        np.zeros((720, 1280, 3), dtype=np.uint8), return_tensors="np")["pixel_values"]  # fmt: skip
    patches = (pixels.shape[2] // 14) * (pixels.shape[3] // 14)
    assert tokens(name, resolution="1280x720")["num_visual"] == patches + (strategy == "full")


def test_grids_of_a_checkpoint(tmp_path):
    grids = [[336, 336], [336, 1344]]
    config = {**LLAVA, "model_type": "llava_next", "image_grid_pinpoints": grids}
    name = write(tmp_path, config)
    found = front_end_of(name)
    processor = LlavaNextImageProcessorPil(
        image_grid_pinpoints=grids,
        size={"shortest_edge": 336},
        crop_size={"height": 336, "width": 336},
    )
    for size in ((640, 480), (3000, 300), (300, 900)):
        pixels = processor(np.zeros((size[1], size[0], 3), dtype=np.uint8), return_tensors="np")
        high, wide = found.grid(*size)
        assert 1 + (high // 336) * (wide // 336) == pixels["pixel_values"][0].shape[0]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "qwen2_vl", "vision_config": {}}, "'qwen2_vl'"),
        ({"model_type": "internvl", "vision_config": {"model_type": "internvl_vision"}},
         "'internvl' with a 'internvl_vision'"),
        ({"model_type": "llava", "vision_config": {"model_type": "pixtral"}}, "a 'pixtral'"),
        ({"model_type": "llava", "text_config": {}}, "'llava' prepares"),
        ({"model_type": "gemma3n", "text_config": {}}, "'gemma3n'"),
    ],
)  # fmt: skip
def test_an_unknown_front_end_is_refused_and_the_known_are_listed(config, message, tmp_path):
    name = write(tmp_path, config)
    with pytest.raises(RequestError, match=message) as refusal:
        default_vision(name)
    assert all(known in str(refusal.value) for known in VISIONS)
    assert tokens(name, "siglip", resolution="9x9")["num_visual"] == 729


def test_a_text_model_sees_as_the_paper_s(tmp_path):
    assert default_vision(write(tmp_path, {"model_type": "llama"})) == "siglip"


@pytest.mark.parametrize(
    ("config", "files", "message"),
    [
        (QWEN, {"preprocessor_config": {"max_pixels": "many"}}, "max_pixels 'many': a whole"),
        (QWEN, {"preprocessor_config": {"max_pixels": -1}}, "max_pixels -1: a whole"),
        (QWEN, {"preprocessor_config": {"max_pixels": 1.5}}, "max_pixels 1.5: a whole number"),
        (QWEN, {"preprocessor_config": {"patch_size": 16}}, "patch_size 16, but config"),
        (QWEN, {"video_preprocessor_config": {"max_frames": 0}}, "max_frames 0: a whole"),
        (GEMMA, {"preprocessor_config": {"do_pan_and_scan": 3}}, "do_pan_and_scan 3: true"),
        (GEMMA, {"preprocessor_config": {"pan_and_scan_min_ratio_to_activate": 0.2}}, "from 1"),
        (LLAVA, {"preprocessor_config": {"crop_size": {"height": 3, "width": 4}}}, "only square"),
        ({**LLAVA, "model_type": "llava_next", "image_grid_pinpoints": [[1]]}, {}, "a list of"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_one_line(config, files, message, tmp_path):
    name = write(tmp_path, config, **files)
    with pytest.raises(RequestError, match=message):
        front_end_of(name)


@pytest.mark.parametrize(
    ("vision", "limits", "message"),
    [
        ("siglip", Limits(max_pixels=9), "max_pixels 9: siglip has no such limit"),
        ("siglip", Limits(max_video_tokens=9), "siglip has no such limit"),
        ("qwen2.5-vl", Limits(max_pixels=0), "max_pixels 0: a whole number from 1"),
        ("qwen2.5-vl", Limits(pan_and_scan=True), "qwen2.5-vl has no such limit"),
    ],
)
def test_a_limit_that_is_none(vision, limits, message):
    with pytest.raises(RequestError, match=message):
        VISIONS[vision].asked(limits)
