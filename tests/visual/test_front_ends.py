"""Front ends under the files beside a checkpoint, against transformers' own processors."""

import ast
import importlib.util
import json
import math
import re
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CONFIG_MAPPING
from transformers.image_utils import SizeDict
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.deepseek_vl.image_processing_pil_deepseek_vl import (
    DeepseekVLImageProcessorPil,
)
from transformers.models.deepseek_vl_hybrid.image_processing_pil_deepseek_vl_hybrid import (
    DeepseekVLHybridImageProcessorPil,
)
from transformers.models.gemma3.processing_gemma3 import Gemma3Processor
from transformers.models.glm4v.image_processing_pil_glm4v import smart_resize as resize_glm
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import (
    get_resize_output_image_size as idefics3_size,
)
from transformers.models.idefics3.processing_idefics3 import Idefics3Processor
from transformers.models.internvl.processing_internvl import InternVLProcessor
from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
)
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor
from transformers.models.pixtral.image_processing_pil_pixtral import get_resize_output_image_size
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize as resize_video

from workbench.lvlm.models import MODELS
from workbench.visual import VISIONS, Limits
from workbench.visual.qwen2_5_vl import UNSAID_VIDEO
from workbench.visual.tokens import default_vision, front_end_of, tokens
from workbench.vocabulary.errors import RequestError

QWEN = {"model_type": "qwen2_5_vl", "vision_config": {"patch_size": 14, "spatial_merge_size": 2}}
QWEN3 = {"model_type": "qwen3_vl", "vision_config": {"patch_size": 16}}
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


def picture(width, height):
    return np.zeros((height, width, 3), dtype=np.uint8)


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
        "nested": {
            "processor_config": {"image_processor": {"size": named}},
            "preprocessor_config": {"min_pixels": 1, "max_pixels": 1},
        },
    }[where]
    for old in place.glob("*processor_config.json"):
        old.unlink()
    name = write(place, QWEN, **files)
    processor = Qwen2VLImageProcessorPil(**limits)
    patches = processor.get_number_of_image_patches(height, width, {"size": named})
    assert front_end_of(name).tokens_of_image(width, height) == patches // 4
    assert front_end_of(name).origins["max_pixels"] in (
        "preprocessor_config.json",
        "processor_config.json",
    )


@pytest.fixture(scope="module")
def video_processor():
    """Qwen2-VL's and Qwen2.5-VL's own, whose resizing of pixels, of torchvision, gives sizes."""
    scope = pytest.MonkeyPatch()
    if find_spec("torchvision") is None:
        names = ("torchvision", "torchvision.transforms", "torchvision.transforms.v2")
        for name in (*names, f"{names[-1]}.functional"):
            scope.setitem(sys.modules, name, ModuleType(name))
    found = import_module(VIDEO).Qwen2VLVideoProcessor
    scope.setattr(found.__mro__[1], "resize", lambda self, image, size, resample: size)
    processor = object.__new__(found)
    processor.num_frames = None
    yield processor
    package, _, name = VIDEO.rpartition(".")
    vars(sys.modules[package]).pop(name, None)  # Another test imports it as it is.
    sys.modules.pop(VIDEO)
    scope.undo()


@settings(max_examples=40, deadline=None)
@given(
    EDGE,
    EDGE,
    st.integers(1, 900),
    st.integers(1, 900),
    st.sampled_from([None, 300, 2_000, 128_000]),
    st.sampled_from(["qwen2_vl", "qwen2_5_vl"]),
)
def test_a_video_s_budget_is_its_processor_s(
    place, video_processor, width, height, frames, each, context, kind
):
    """By the ``resize`` of transformers' Qwen2VLVideoProcessor itself."""
    size = {"shortest_edge": 3136, "longest_edge": max(3136, each * 28 * 28)}
    fields = {"size": size}
    if context is not None:
        fields |= {"cap_pixels_per_frame": True, "max_video_tokens": context}
        video_processor.max_video_tokens = context
    for old in place.glob("*processor_config.json"):
        old.unlink()
    name = write(place, {**QWEN, "model_type": kind}, video_preprocessor_config=fields)
    clip = torch.empty(1, frames, 3, height, width, device="meta")
    resized = video_processor.resize(clip, SizeDict(**size), None, 28, 2, context is not None)
    ours = front_end_of(name).tokens_of_video(width, height, frames)
    assert ours == -(-frames // 2) * (resized.height // 28) * (resized.width // 28)


@pytest.mark.parametrize("fps", [0.1, 1.0, 2.0, 30.0])
@pytest.mark.parametrize("total", [4, 5, 59, 60, 61, 9000, 60_000])
def test_frames_of_a_video_are_its_processor_s(video_processor, total, fps):
    for native in (0.7, 1.5, 24.0, 30.0):
        clip = SimpleNamespace(total_num_frames=total, fps=native)
        wanted = len(video_processor.sample_frames(clip, fps=fps))
        assert VISIONS["qwen2.5-vl"].sampled(total, native, fps) == wanted, native


@settings(max_examples=40, deadline=None)
@given(
    EDGE,
    EDGE,
    PIXELS,
    PIXELS,
    st.sampled_from(["qwen2_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5"]),
)
def test_images_of_the_other_qwens(place, width, height, low, high, kind):
    least, most = sorted((low, high))
    for old in place.glob("*processor_config.json"):
        old.unlink()
    patch = 14 if kind == "qwen2_vl" else 16
    config = {"model_type": kind, "vision_config": {"patch_size": patch}}
    size = {"shortest_edge": least, "longest_edge": most}
    name = write(place, config, preprocessor_config={"size": size, "patch_size": patch})
    limits = {"min_pixels": least, "max_pixels": most}
    processor = Qwen2VLImageProcessorPil(patch_size=patch, **limits)
    patches = processor.get_number_of_image_patches(height, width, {"size": size})
    assert front_end_of(name).tokens_of_image(width, height) == patches // 4


@settings(max_examples=60, deadline=None)
@given(EDGE, EDGE, st.integers(2, 900), st.integers(1, 30_000), st.sampled_from([None, 100, 768]))
def test_a_video_of_qwen3_vl_shares_its_pixels(place, width, height, frames, budget, cap):
    """As its video processor's ``resize`` calls the function that is called here."""
    least, most = 4096, max(4096, budget * 2 * 32 * 32)
    fields = {"size": {"shortest_edge": least, "longest_edge": most}}
    wanted = most
    if cap is not None:
        fields |= {"cap_pixels_per_frame": True, "max_video_tokens": cap}
        wanted = max(min(cap * 32 * 32, most // frames), int(least * 1.05)) * frames
    for old in place.glob("*processor_config.json"):
        old.unlink()
    name = write(place, QWEN3, video_preprocessor_config=fields)
    high, wide = resize_video(frames, height, width, 2, 32, least, wanted)
    ours = front_end_of(name).tokens_of_video(width, height, frames)
    assert ours == -(-frames // 2) * (high // 32) * (wide // 32)


@pytest.mark.parametrize("total", [1, 3, 4, 59, 60, 61, 9000, 60_000])
@pytest.mark.parametrize("fps", [0.1, 1.0, 2.0])
def test_frames_of_qwen3_vl_are_its_processor_s(total, fps):
    """``sample_frames`` of Qwen3VLVideoProcessor, without its check of what is installed."""
    found = importlib.util.find_spec(VIDEO3)
    text = Path(found.origin).read_text()
    for line in (
        "num_frames = int(total_num_frames / metadata.fps * fps)",
        "num_frames = min(max(num_frames, self.min_frames), self.max_frames, total_num_frames)",
        'size = {"shortest_edge": 128 * 32 * 32, "longest_edge": 32 * 32 * 768}',
        "max_video_tokens = 768",
        "cap_pixels_per_frame = False",
    ):
        assert line in text
    wanted = min(max(int(total / 30.0 * fps), 4), 768, total)
    assert VISIONS["qwen3-vl"].sampled(total, 30.0, fps) == wanted


@settings(max_examples=60, deadline=None)
@given(EDGE, EDGE, PIXELS, PIXELS, st.integers(2, 900), st.sampled_from(["glm4v", "glm46v"]))
def test_images_and_videos_of_glm(place, width, height, low, high, frames, kind):
    """By the function that its processors call, an image as two frames."""
    least, most = sorted((2 * low, 2 * high))
    size = {"size": {"shortest_edge": least, "longest_edge": most}}
    for old in place.glob("*processor_config.json"):
        old.unlink()
    config = {"model_type": kind, "vision_config": {"model_type": "glm4v_vision"}}
    name = write(place, config, preprocessor_config=size, video_preprocessor_config=size)
    ours = front_end_of(name)
    high, wide = resize_glm(2, height, width, 2, 28, least, most)
    assert ours.resized(width, height) == (wide, high)
    assert ours.tokens_of_image(width, height) == high * wide // 28**2
    high, wide = resize_glm(frames, height, width, 2, 28, least, most)
    assert ours.tokens_of_video(width, height, frames) == -(-frames // 2) * high * wide // 28**2


def sample_frames(kind):
    """``sample_frames`` of GLM's video processors, whose files may import torchvision."""
    module = f"transformers.models.{kind}.video_processing_{kind}"
    tree = ast.parse(Path(importlib.util.find_spec(module).origin).read_text())
    (found,) = (n for n in ast.walk(tree) if getattr(n, "name", "") == "sample_frames")
    for argument in found.args.args:
        argument.annotation = None
    found.args.kwarg = found.returns = None
    scope = {"np": np, "math": math}
    exec(compile(ast.Module([found], []), module, "exec"), scope)
    return scope["sample_frames"]


@pytest.mark.parametrize(("name", "kind"), [("glm-4.1v", "glm4v"), ("glm-4.6v", "glm46v")])
def test_frames_of_glm_are_its_processor_s(name, kind):
    theirs = sample_frames(kind)
    processor = SimpleNamespace(max_duration=300, fps=2, temporal_patch_size=2)
    for total in (1, 3, 59, 60, 61, 100, 901, 9000, 9001, 60_000):
        for native in (0.7, 6.0, 24.0, 30.0):
            for fps in (0.1, 1.0, 2.0):
                seconds = total / native
                clip = SimpleNamespace(total_num_frames=total, fps=native, duration=seconds)
                if seconds < 1 / 6:
                    continue  # No step of GLM-4.6V's.
                wanted = len(theirs(processor, clip, fps))
                assert VISIONS[name].sampled(total, native, fps) == wanted, (total, native, fps)


@pytest.mark.parametrize("kind", ["glm4v", "glm4v_moe"])
def test_frames_of_a_folder_are_of_the_processor_that_it_names(kind, tmp_path):
    """GLM-4.6V's checkpoints have the model types of GLM-4.1V and 4.5V, and their own video's."""
    config = {"model_type": kind, "vision_config": {"model_type": f"{kind}_vision"}}
    plain = front_end_of(write(tmp_path, config))
    assert not plain.by_length
    video = {"video_processor_type": "Glm46VVideoProcessor"}
    named = front_end_of(write(tmp_path, config, video_preprocessor_config=video))
    assert named.by_length
    for total in (100, 5000, 60_000):
        wanted = VISIONS["glm-4.6v"].sampled(total, 30.0, 1.0)
        assert named.sampled(total, 30.0, 1.0) == wanted != plain.sampled(total, 30.0, 1.0)


def test_one_frame_is_no_video_of_qwen3_vl():
    with pytest.raises(RequestError, match="frames 1: qwen3-vl takes a video of at least 2"):
        tokens("qwen3-vl-8b", resolution="640x480", frames=1)
    found = tokens("qwen3-vl-8b", resolution="1280x720", frames=16)
    assert found["tokens_each"] * 8 == found["num_visual"]
    assert "a time stamp before each of the 8 steps" in found["notes"][0]
    less = tokens(
        "qwen3-vl-8b", resolution="1280x720", frames=16, limits=Limits(max_video_tokens=2000)
    )
    assert 1500 < less["num_visual"] <= 2000


VIDEO3 = "transformers.models.qwen3_vl.video_processing_qwen3_vl"
VIDEO = "transformers.models.qwen2_vl.video_processing_qwen2_vl"


def test_the_video_processor_is_as_it_was():
    """Its file, which imports torchvision, says what stands here."""
    found = importlib.util.find_spec(VIDEO)
    text = Path(found.origin).read_text()
    for line in (
        'size = {"shortest_edge": 128 * 28 * 28, "longest_edge": 28 * 28 * 768}',
        "min_frames = 4",
        "max_frames = 768",
        "max_video_tokens = 128000",
        "total_pixels = int(self.max_video_tokens * factor * factor * 0.9)",
        "cap_pixels_per_frame = False",
        # The frames it takes: evenly spaced by their number, as visual.pixels reads them.
        "torch.arange(0, total_num_frames, total_num_frames / num_frames).int()",
    ):
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
    """Gemma3Processor gives its image processor values of its own, whatever the file says."""
    fields = {"do_pan_and_scan": crops, "pan_and_scan_max_num_crops": 8}
    processor = Gemma3Processor.__new__(Gemma3Processor)
    processor.image_processor = SimpleNamespace(valid_kwargs=None)
    processor.tokenizer = None
    values = processor._merge_kwargs(None, tokenizer_init_kwargs={})["images_kwargs"]
    assert (values["do_pan_and_scan"], values["pan_and_scan_max_num_crops"]) == (False, 4)
    name = write(tmp_path, GEMMA, preprocessor_config=fields)
    plain = tokens(name, resolution="1280x720")
    assert plain["num_visual"] == 256
    assert ("overrides" in plain["limits_from"]["pan_and_scan"]) == (crops is True)
    assert tokens(name, resolution="1280x720", frames=16)["num_visual"] == 4096
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
    name = write(
        tmp_path,
        LLAVA | {"vision_feature_select_strategy": strategy},
        preprocessor_config={"crop_size": {"height": 336, "width": 336}},
    )
    pixels = CLIPImageProcessorPil(
        size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}
    )(np.zeros((720, 1280, 3), dtype=np.uint8), return_tensors="np")["pixel_values"]
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
        ({"model_type": "mistral4", "vision_config": {}}, "'mistral4'"),
        (
            {"model_type": "paligemma", "vision_config": {"model_type": "clip_vision_model"}},
            "'paligemma' with a 'clip_vision_model'",
        ),
        ({"model_type": "llava", "vision_config": {"model_type": "vit"}}, "a 'vit'"),
    ],
)
def test_an_unknown_front_end_is_refused_and_the_known_are_listed(config, message, tmp_path):
    name = write(tmp_path, config)
    with pytest.raises(RequestError, match=message) as refusal:
        default_vision(name)
    assert all(known in str(refusal.value) for known in VISIONS)
    assert tokens(name, "siglip", resolution="9x9")["num_visual"] == 729


def test_a_gemma_3n_that_leaves_its_tower_to_transformers_has_its_front_end(tmp_path):
    name = write(tmp_path, {"model_type": "gemma3n", "text_config": {}})
    assert tokens(name, resolution="1280x720")["num_visual"] == 256


@pytest.mark.parametrize("config", [QWEN, QWEN3, {"model_type": "glm4v", "vision_config": {}}])
def test_a_limit_of_null_is_none(config, tmp_path):
    """As transformers saves them: the size beside it says what holds."""
    size = {"shortest_edge": 3136, "longest_edge": 1003520}
    fields = {"min_pixels": None, "max_pixels": None, "size": size}
    found = front_end_of(write(tmp_path, config, preprocessor_config=fields))
    assert [found.min_pixels, found.max_pixels] == [*size.values()]
    assert [found.video_min_pixels, found.video_max_pixels] == [*size.values()]
    own = Qwen2VLImageProcessorPil(**fields).size
    assert [own["shortest_edge"], own["longest_edge"]] == [*size.values()]


@pytest.mark.parametrize("name", sorted(n for n in MODELS if MODELS[n].around))
@pytest.mark.parametrize("file", ["preprocessor_config", "processor_config"])
def test_images_that_are_not_resized_are_refused(name, file, tmp_path):
    fields = {"do_resize": False}
    fields = {"image_processor": fields} if file == "processor_config" else fields
    folder = write(tmp_path, MODELS[name].stated(), **{file: fields})
    if front_end_of(name).resizes:  # Whatever the file says.
        assert front_end_of(folder).settings() == front_end_of(name).settings()
        return
    with pytest.raises(RequestError, match=rf"{file}\.json: do_resize false: only true"):
        front_end_of(folder)


def test_a_size_of_null_is_left_to_transformers(tmp_path):
    config = {"model_type": "phi4_multimodal", "vision_config": {"image_size": None}}
    assert front_end_of(write(tmp_path, config)).image_size == 448


def test_a_processor_s_own_rate_is_told(tmp_path):
    name = write(tmp_path, QWEN3, video_preprocessor_config={"fps": 2})
    found = front_end_of(name).document()
    assert found["limits"]["processor_fps"] == 2
    assert found["limits_from"]["processor_fps"] == "video_preprocessor_config.json"


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
        (QWEN, {"preprocessor_config": {"size": [28, 28]}}, r"size \[28, 28\]: .* is known"),
        (
            {**LLAVA, "vision_config": {**CLIP, "image_size": {}}},
            {},
            "image_size {}: a number, a pair",
        ),
        (LLAVA, {"preprocessor_config": {"crop_size": {"longest_edge": 336}}}, "a number, a pair"),
        (
            LLAVA,
            {"preprocessor_config": {"do_center_crop": False, "size": {"shortest_edge": 336}}},
            "do_center_crop false: .* is no square",
        ),
        (
            {**LLAVA, "model_type": "llava_next", "image_grid_pinpoints": [[672, 672]]},
            {"preprocessor_config": {"image_grid_pinpoints": [[336, 672]]}},
            r"image_grid_pinpoints \[\[336, 672\]\], but config.json has others",
        ),
        (LLAVA, {"preprocessor_config": {"crop_size": {"height": 3, "width": 4}}}, "only square"),
        ({**LLAVA, "model_type": "llava_next", "image_grid_pinpoints": [[1]]}, {}, "a list of"),
    ],
)
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


SIDES = st.integers(1, 4000)


@settings(max_examples=150, deadline=None)
@given(SIDES, SIDES)
def test_tokens_of_onevision_are_its_processor_s(width, height):
    found = VISIONS["llava-onevision"]
    processor = LlavaOnevisionProcessor.__new__(LlavaOnevisionProcessor)
    processor.num_image_tokens, processor.vision_aspect_ratio = 729, "anyres_max_9"
    processor.image_processor = LlavaOnevisionImageProcessorPil()
    wanted = processor._get_number_of_features(height, width, 384, 384)
    assert found.tokens_of_image(width, height) == wanted
    assert found.tokens_of_images([(width, height)] * 2) == [730, 730]
    processor.vision_feature_select_strategy = "full"
    images = {"batch_num_images": [2], "image_sizes": [(height, width)] * 2}
    processor.image_token = "i"
    assert len(processor.replace_image_token(images, 1)) == 730
    frames = {"pixel_values_videos": [np.zeros((32, 1))]}
    processor.video_token = "v"
    video = len(processor.replace_video_token(frames, 0))
    assert found.tokens_of_video(width, height, 32) == video == 32 * 196 + 1


def test_onevision_uses_the_published_grids():
    pinpoints = [list(pair) for pair in VISIONS["llava-onevision"].pinpoints]
    assert pinpoints == LlavaOnevisionImageProcessorPil.image_grid_pinpoints


@settings(max_examples=150, deadline=None)
@given(SIDES, SIDES, st.integers(1, 3), st.integers(3, 30))
def test_tiles_of_internvl_are_its_processor_s(place, width, height, least, most):
    for old in place.glob("*processor_config.json"):
        old.unlink()
    limits = {"min_patches": least, "max_patches": most}
    config = {"model_type": "internvl", "vision_config": {"image_size": [448, 448]}}
    fields = {**limits, "crop_to_patches": False}
    found = front_end_of(write(place, config, preprocessor_config=fields))
    processor = GotOcr2ImageProcessorPil(
        size={"height": 448, "width": 448}, crop_to_patches=True, **limits
    )
    tiles = processor.get_number_of_image_patches(height, width)
    assert found.tokens_of_image(width, height) == 256 * tiles
    assert InternVLProcessor.images_kwargs["crop_to_patches"] is True


class Shapes(Idefics3ImageProcessorPil):
    """transformers' tiling, on images that have a shape alone."""

    def resize(self, image, size, **_):
        edge = size.longest_edge
        new = (size.height, size.width) if edge is None else idefics3_size(image, edge)
        return np.broadcast_to(np.uint8(0), (3, *new))


@settings(max_examples=200, deadline=None)
@given(
    SIDES, SIDES, st.sampled_from([(364, 1456), (384, 1536), (512, 2048), (96, 400), (30, 7000)])
)
def test_tiles_of_idefics3_are_its_processor_s(place, width, height, sizes):
    """Its own count of patches goes by edges before they are whole tiles; its pixels do not."""
    side, longest = sizes
    for old in place.glob("*processor_config.json"):
        old.unlink()
    tower = {"image_size": side, "patch_size": 1}
    config = {"model_type": "smolvlm", "scale_factor": 1, "vision_config": tower}
    fields = {"size": {"longest_edge": longest}, "max_image_size": {"longest_edge": side}}
    found = front_end_of(write(place, config, preprocessor_config=fields))
    processor = Shapes(**fields)
    image = np.broadcast_to(np.uint8(0), (3, height, width))
    image = processor.resize(image, SizeDict(longest_edge=longest))
    image = processor.resize_for_vision_encoder(image, side)
    tiles, rows, columns = processor.split_images(image, {"longest_edge": side})
    assert found.num_tiles(width, height) == len(tiles)
    assert found.tiles(width, height) == (columns, rows)
    text = Idefics3Processor.__new__(Idefics3Processor)
    text.image_seq_len, text.image_token = 1, "i"
    text.fake_image_token = text.global_image_tag = "x"
    words = text.replace_image_token({"rows": [[rows]], "cols": [[columns]]}, 0)
    words = re.sub("<row_[0-9]+_col_[0-9]+>", "x", words).replace("\n\n", "n")
    assert len(words) - words.count("i") == found.markers_of_image(width, height)
    whole = front_end_of(write(place, config, preprocessor_config={"do_image_splitting": False}))
    assert whole.num_tiles(width, height) == 1


@settings(max_examples=150, deadline=None)
@given(SIDES, SIDES, st.sampled_from([("llava", 16, 1, 1024), ("mistral3", 14, 2, 1540)]))
def test_tokens_of_pixtral_are_its_processor_s(place, width, height, kind):
    outer, patch, merge, longest = kind
    if max(width, height) > 1000 * min(width, height):
        return
    for old in place.glob("*processor_config.json"):
        old.unlink()
    tower = {"model_type": "pixtral", "patch_size": patch, "image_size": longest}
    name = write(place, {"model_type": outer, "vision_config": tower, "spatial_merge_size": merge})
    found = front_end_of(name)
    side = patch * merge
    high, wide = get_resize_output_image_size(
        np.broadcast_to(np.uint8(0), (3, height, width)),
        (longest, longest),
        (side, side),
        "channels_first",
    )
    rows, columns = high // side, wide // side
    assert found.grid(width, height) == (rows, columns)
    assert found.tokens_of_image(width, height) == rows * columns
    assert found.markers_of_image(width, height) == rows


def test_an_image_that_vanishes_is_one_line():
    with pytest.raises(
        RequestError, match="resolution 4000x1: scaled to 1024 pixels, the shorter"
    ):
        tokens("pixtral-12b", resolution="4000x1")


@pytest.mark.parametrize("name", sorted(n for n in MODELS if MODELS[n].around))
def test_a_catalogue_model_s_front_end_is_that_of_its_config(name, tmp_path):
    """Settings by name equal those that its config.json would give from a folder."""
    found = front_end_of(name)
    assert found.serves(MODELS[name].stated())
    folder = front_end_of(write(tmp_path, MODELS[name].stated()))
    of_processor = {"idefics2": {"splits"}, "idefics3": {"longest_edge", "max_frames"}}
    left = of_processor.get(found.name, set())
    pairs = (s.settings() for s in (found, folder))
    mine, theirs = ({k: v for k, v in s.items() if k not in left} for s in pairs)
    assert mine == theirs


def test_markers_belong_to_the_text():
    assert "markers" not in tokens("llava-1.5-7b", resolution="900x400")
    found = tokens("pixtral-12b", resolution="900x400")
    assert (found["num_visual"], found["markers"]) == (57 * 25, 25)


@pytest.mark.parametrize("size", [(19, 7), (640, 480), (300, 1200)])
@pytest.mark.parametrize("large", [{}, {"high_res_vision_config": {"image_size": 1024}}])
def test_deepseek_vl_is_one_padded_square(size, large, tmp_path):
    tower = {"model_type": "siglip_vision_model", "image_size": 384, "patch_size": 16}
    kind = "deepseek_vl_hybrid" if large else "deepseek_vl"
    config = {"model_type": kind, "vision_config": tower, **large}
    name = write(tmp_path, config, processor_config={"num_image_tokens": 576})
    processor = DeepseekVLHybridImageProcessorPil if large else DeepseekVLImageProcessorPil
    made = processor()(picture(*size), return_tensors="np")
    pixels = made["pixel_values"]
    patches = (pixels.shape[2] // 16) * (pixels.shape[3] // 16)
    found = front_end_of(name)
    assert found.tokens_of_image(*size) == patches == 576
    if large:
        assert made["high_res_pixel_values"].shape[2:] == (found.high_res_size,) * 2
    name = write(tmp_path, config, processor_config={"num_image_tokens": 729})
    with pytest.raises(RequestError, match="num_image_tokens 729, but the tower"):
        front_end_of(name)


def test_deepseek_vl_s_tower_has_transformers_sizes_where_its_config_states_none(tmp_path):
    config = {"model_type": "deepseek_vl", "vision_config": {"model_type": "siglip_vision_model"}}
    built = CONFIG_MAPPING["deepseek_vl"](**config).vision_config
    name = write(tmp_path, config)
    assert front_end_of(name).tokens_of_image(640, 480) == (
        (built.image_size // built.patch_size) ** 2
    )
    name = write(tmp_path, config, preprocessor_config={"size": {"height": 384, "width": 384}})
    with pytest.raises(RequestError, match=r"image_size 384, but config\.json says 224"):
        front_end_of(name)
    config = {**config, "model_type": "deepseek_vl_hybrid"}
    name = write(
        tmp_path, config, preprocessor_config={"high_res_size": {"height": 512, "width": 512}}
    )
    with pytest.raises(RequestError, match=r"high_res_size 512, but config\.json says 1024"):
        front_end_of(name)
