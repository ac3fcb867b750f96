import io
import json
import zlib
from fractions import Fraction
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.gemma3 import processing_gemma3 as gemma3
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
)
from transformers.models.llava_next.modeling_llava_next import (
    get_anyres_image_grid_shape,
    unpad_image,
)
from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor
from transformers.models.llava_onevision.configuration_llava_onevision import (
    LlavaOnevisionConfig,
)
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from workbench.visual import VISIONS, Limits
from workbench.visual.clips import video_clip
from workbench.visual.llava_next import PINPOINTS
from workbench.visual.tokens import (
    default_vision,
    image_size,
    parse_resolution,
    tokens,
    tokens_of_image,
)
from workbench.vocabulary.errors import RequestError

MIN_PIXELS, MAX_PIXELS = VISIONS["qwen2.5-vl"].min_pixels, VISIONS["qwen2.5-vl"].max_pixels
CROPS = VISIONS["gemma-3"].asked(Limits(pan_and_scan=True))
MIN_CROP, MAX_CROPS, MIN_RATIO = CROPS.min_crop, CROPS.max_crops, CROPS.min_ratio

EDGES = (1, 13, 29, 255, 336, 640, 897, 1344)
SIZES = list(product(EDGES, EDGES))
CHEAP = st.integers(1, 5000)


def picture(width: int, height: int) -> np.ndarray:
    return np.zeros((height, width, 3), dtype=np.uint8)


def test_the_promised_front_ends_are_there() -> None:
    assert set(VISIONS) >= {
        "siglip",
        "llava",
        "llava-next",
        "llava-onevision",
        "internvl",
        "idefics3",
        "pixtral",
        "qwen2-vl",
        "qwen2.5-vl",
        "qwen3-vl",
        "glm-4.1v",
        "glm-4.6v",
        "gemma-3",
        "pooled",
    }
    assert all(front_end.source for front_end in VISIONS.values())


class TestAgainstTransformers:
    """Our arithmetic against the processors that the checkpoints are served with."""

    @pytest.mark.parametrize("size", [(1, 1), (640, 480), (300, 1200)])
    def test_siglip(self, size: tuple[int, int]) -> None:
        processor = SiglipImageProcessorPil(size={"height": 384, "width": 384})
        pixels = processor(picture(*size), return_tensors="np")["pixel_values"]
        patches = (pixels.shape[2] // 14) * (pixels.shape[3] // 14)
        assert VISIONS["siglip"].tokens_of_image(*size) == patches == 729

    @pytest.mark.parametrize("size", [(29, 29), (640, 480), (300, 1500), (1344, 896), (3, 500)])
    def test_qwen_on_pixels(self, size: tuple[int, int]) -> None:
        processor = Qwen2VLImageProcessorPil(min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS)
        grid = processor(picture(*size), return_tensors="np")["image_grid_thw"][0]
        assert VISIONS["qwen2.5-vl"].tokens_of_image(*size) == int(grid.prod()) // 4

    @settings(max_examples=300, deadline=None)
    @given(width=CHEAP, height=CHEAP)
    def test_qwen(self, width: int, height: int) -> None:
        processor = Qwen2VLImageProcessorPil(min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS)
        if max(width, height) > 200 * min(width, height):
            with pytest.raises(RequestError, match="200 to 1"):
                VISIONS["qwen2.5-vl"].tokens_of_image(width, height)
            return
        patches = processor.get_number_of_image_patches(height, width)
        assert VISIONS["qwen2.5-vl"].tokens_of_image(width, height) == patches // 4

    @settings(max_examples=300, deadline=None)
    @given(width=CHEAP, height=CHEAP)
    def test_gemma(self, width: int, height: int) -> None:
        channels_first = np.broadcast_to(np.uint8(0), (3, height, width))
        crops = Gemma3ImageProcessorPil().pan_and_scan(
            channels_first, MIN_CROP, MAX_CROPS, MIN_RATIO
        )
        expected = 256 * (1 + len(crops))
        assert CROPS.tokens_of_image(width, height) == expected
        assert VISIONS["gemma-3"].tokens_of_image(width, height) == 256

    def test_gemma_uses_the_published_limits(self) -> None:
        # A class attribute in transformers 5.23, a default of the keyword class before.
        limits = getattr(gemma3.Gemma3Processor, "images_kwargs", None)
        limits = limits or gemma3.Gemma3ProcessorKwargs._defaults["images_kwargs"]
        assert limits["do_pan_and_scan"] is False is VISIONS["gemma-3"].pan_and_scan
        assert limits["pan_and_scan_min_crop_size"] == MIN_CROP
        assert limits["pan_and_scan_max_num_crops"] == MAX_CROPS
        assert limits["pan_and_scan_min_ratio_to_activate"] == MIN_RATIO

    @pytest.mark.parametrize("size", [(640, 480), (300, 1200), (672, 672), (1500, 200)])
    def test_llava_next_tiles(self, size: tuple[int, int]) -> None:
        processor = LlavaNextImageProcessorPil(
            size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}
        )
        pixels = processor(picture(*size), return_tensors="np")["pixel_values"][0]
        height, width = VISIONS["llava-next"].grid(*size)
        assert pixels.shape[0] == 1 + (height // 336) * (width // 336)

    def test_llava_next_uses_the_published_grids(self) -> None:
        assert [list(pair) for pair in PINPOINTS] == (
            LlavaNextImageProcessorPil.image_grid_pinpoints
        )

    @pytest.mark.parametrize("size", SIZES)
    def test_llava_next_features(self, size: tuple[int, int]) -> None:
        """Unpadding and newlines as the model packs them, and as its processor counts them."""
        width, height = size
        pinpoints = [list(pair) for pair in PINPOINTS]
        rows, columns = get_anyres_image_grid_shape((height, width), pinpoints, 336)
        unpadded = unpad_image(torch.empty(1, rows * 24, columns * 24), (height, width))
        packed = 576 + unpadded.shape[1] * (unpadded.shape[2] + 1)
        assert VISIONS["llava-next"].tokens_of_image(width, height) == packed
        processor = LlavaNextProcessor.__new__(LlavaNextProcessor)
        processor.patch_size, processor.num_additional_image_tokens = 14, 1
        processor.image_processor = LlavaNextImageProcessorPil()
        assert processor._get_number_of_features(height, width, 336, 336) - 1 == packed

    def test_pooled(self) -> None:
        """LLaVA-OneVision's own pooling: half the grid, rounded up."""
        config = LlavaOnevisionConfig(vision_config={"image_size": 384, "patch_size": 14})
        model = SimpleNamespace(config=config)
        pooled = LlavaOnevisionModel.apply_pooling(model, torch.zeros(1, 729, 1))
        assert VISIONS["pooled"].tokens_of_image(640, 480) == pooled.shape[1] == 196


@pytest.mark.parametrize(
    ("total", "native", "fps", "expected"),
    [(300, 30.0, 1.0, 10), (301, 30.0, 1.0, 11), (10, 30.0, 1.0, 1), (30, 30.0, 60.0, 30)],
)
def test_sampling(total: int, native: float, fps: float, expected: int) -> None:
    assert VISIONS["siglip"].sampled(total, native, fps) == expected


@pytest.mark.parametrize(
    ("total", "native", "fps", "expected"),
    [
        (300, 30.0, 1.0, 10),
        (330, 30.0, 1.0, 10),
        (60, 30.0, 1.0, 4),
        (3, 30.0, 1.0, 2),
        (1, 30.0, 1.0, 1),
        (90_000, 25.0, 1.0, 768),
    ],
)
def test_qwen_sampling(total: int, native: float, fps: float, expected: int) -> None:
    """Even counts from 4 to 768, as its video processor has them."""
    assert VISIONS["qwen2.5-vl"].sampled(total, native, fps) == expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("mistral-7b-v0.3", "siglip"),
        ("gemma-2-9b", "siglip"),
        ("qwen2-7b", "siglip"),
        ("qwen2-vl-2b", "qwen2-vl"),
        ("qwen2.5-vl-7b", "qwen2.5-vl"),
        ("qwen3-vl-8b", "qwen3-vl"),
        ("glm-4.1v-9b", "glm-4.1v"),
        ("gemma-3-4b", "gemma-3"),
        ("molmo2-8b", "molmo2"),
        ("paligemma2-3b-448", "paligemma"),
        ("phi-4-multimodal", "phi-4-multimodal"),
    ],
)
def test_front_end_of_a_model(model: str, expected: str) -> None:
    assert default_vision(model) == expected


def test_front_end_of_a_checkpoint(tmp_path: Path) -> None:
    fields = {"model_type": "qwen2_5_vl", "vision_config": {}}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert default_vision(str(tmp_path)) == "qwen2.5-vl"
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RequestError, match=r"config\.json': not JSON"):
        default_vision(str(tmp_path))


def test_documents_of_sizes() -> None:
    found = tokens("qwen2.5-vl-7b", resolution="1344x896")
    assert found.pop("limits")["max_pixels"] == MAX_PIXELS
    assert set(found.pop("limits_from").values()) == {"published"}
    assert found == {
        "model": "qwen2.5-vl-7b",
        "vision": "qwen2.5-vl",
        "images": 1,
        "frames": 0,
        "tokens_each": 1536,
        "num_visual": 1536,
    }
    video = tokens("qwen2.5-vl-7b", resolution="1344x896", frames=63)
    assert (video["images"], video["frames"]) == (0, 63)
    assert (video["tokens_each"], video["num_visual"]) == (1536, 32 * 1536)
    assert tokens("m", "siglip", resolution="9x9", frames=64)["num_visual"] == 64 * 729
    assert tokens("m", "llava-next", resolution="672x672")["num_visual"] == 2928


def save(path: Path, size: tuple[int, int], **options: object) -> Path:
    Image.new("RGB", size, "teal").save(path, **options)
    return path


class TestImages:
    @pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp"])
    def test_size(self, tmp_path: Path, suffix: str) -> None:
        assert image_size(save(tmp_path / f"a.{suffix}", (64, 48))) == (64, 48)

    def test_a_photo_that_lies_on_its_side(self, tmp_path: Path) -> None:
        turned = Image.Exif()
        turned[0x0112] = 6
        path = save(tmp_path / "phone.jpg", (1344, 896), exif=turned)
        assert image_size(path) == (896, 1344)

    def test_several_images(self, tmp_path: Path) -> None:
        wide, square = save(tmp_path / "w.png", (900, 300)), save(tmp_path / "s.png", (300, 300))
        document = tokens("gemma-3-4b", images=[wide, square], limits=Limits(pan_and_scan=True))
        assert (document["images"], document["num_visual"]) == (2, 4 * 256 + 256)
        assert document["tokens_each"] is None
        assert tokens("gemma-3-4b", images=[square, square])["tokens_each"] == 256

    @pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif"])
    @pytest.mark.parametrize("part", [0.0, 0.1, 0.6])
    def test_a_file_that_is_cut_off(self, tmp_path: Path, suffix: str, part: float) -> None:
        noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, {"jpg": "jpeg"}.get(suffix, suffix))
        path = tmp_path / f"half.{suffix}"
        path.write_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * part)])
        with pytest.raises(RequestError, match=f"half.{suffix}': not a whole image"):
            image_size(path)

    def test_no_image(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("not a picture")
        with pytest.raises(RequestError, match=r"notes\.txt': not a whole image"):
            image_size(tmp_path / "notes.txt")
        with pytest.raises(RequestError, match=r"absent\.png': no such file"):
            image_size(tmp_path / "absent.png")

    def test_a_decompression_bomb(self, tmp_path: Path) -> None:
        """A megabyte on disk that would be gigabytes in memory is never decoded."""
        path = save(tmp_path / "small.png", (8, 8))
        data = bytearray(path.read_bytes())
        data[16:24] = (60_000).to_bytes(4) * 2
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
        path.write_bytes(data)
        with pytest.raises(RequestError, match=r"small\.png': too many pixels"):
            image_size(path)


def record(path: Path, num_frames: int, fps: int, size: tuple[int, int] = (64, 48)) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(fps))
        stream.width, stream.height = size
        for _ in range(num_frames):
            frame = av.VideoFrame.from_ndarray(picture(*size), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


class TestVideo:
    @pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
    def test_clip(self, tmp_path: Path, suffix: str) -> None:
        clip = video_clip(record(tmp_path / f"clip.{suffix}", 50, 10))
        assert clip == (64, 48, 50, pytest.approx(5.0))
        assert clip.fps == pytest.approx(10.0)

    def test_tokens(self, tmp_path: Path) -> None:
        path = record(tmp_path / "clip.mp4", 50, 10)
        siglip = tokens("mistral-7b-v0.3", video=path, fps=2)
        assert (siglip["frames"], siglip["num_visual"]) == (10, 7290)
        assert tokens("mistral-7b-v0.3", video=path)["frames"] == 5
        assert tokens("mistral-7b-v0.3", video=path, frames=7)["num_visual"] == 7 * 729
        qwen = tokens("qwen2.5-vl-7b", video=path, fps=1)
        assert (qwen["frames"], qwen["num_visual"]) == (4, 2 * qwen["tokens_each"])

    def test_more_frames_than_there_are(self, tmp_path: Path) -> None:
        with pytest.raises(RequestError, match="frames 51: the video has 50"):
            tokens("m", "siglip", video=record(tmp_path / "c.mp4", 50, 10), frames=51)

    def test_unreadable(self, tmp_path: Path) -> None:
        whole = record(tmp_path / "clip.mp4", 50, 10).read_bytes()
        for name, data in (("cut.mp4", whole[:200]), ("empty.mp4", b""), ("a.mp4", b"text")):
            (tmp_path / name).write_bytes(data)
            with pytest.raises(RequestError, match=f"{name}': "):
                video_clip(tmp_path / name)
        with pytest.raises(RequestError, match=r"absent\.mp4': no such file"):
            video_clip(tmp_path / "absent.mp4")

    def test_sound_only(self, tmp_path: Path) -> None:
        path = tmp_path / "sound.wav"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
            silence = np.zeros((1, 800), dtype=np.int16)
            frame = av.AudioFrame.from_ndarray(silence, format="s16", layout="mono")
            frame.sample_rate = 8000
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        with pytest.raises(RequestError, match="has no video stream"):
            video_clip(path)

    def test_a_playlist_fetches_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "list.m3u8"
        path.write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/clip.ts\n#EXT-X-ENDLIST\n")
        with pytest.raises(RequestError, match=r"list\.m3u8'"):
            video_clip(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give one of image, video and resolution"),
        ({"resolution": "9x9", "video": Path("a")}, "give one of"),
        ({"resolution": "wide"}, "resolution 'wide': WIDTHxHEIGHT"),
        ({"resolution": "0x9"}, "resolution 0x9: each side"),
        ({"resolution": "1000001x9"}, "each side is 1 to 1,000,000"),
        ({"resolution": "9x9", "frames": 0}, "frames 0: at least 1"),
        ({"resolution": "9x9", "fps": 1.0}, "fps 1: only a video"),
        ({"video": Path("a"), "fps": 0.0}, "fps 0: more than 0"),
        ({"video": Path("a"), "fps": float("nan")}, "fps nan: more than 0"),
        ({"video": Path("a"), "fps": 1.0, "frames": 3}, "frames 3: goes with"),
        ({"images": [Path("a")], "frames": 3}, "frames 3: goes with"),
        ({"resolution": "9x9", "vision": "sigclip"}, "did you mean siglip"),
        ({"resolution": "10000x9", "vision": "qwen2.5-vl"}, "edges of up to 200 to 1"),
    ],
)
def test_wrong_requests(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        tokens("mistral-7b-v0.3", **arguments)


def test_resolution_words() -> None:
    assert parse_resolution("1344x896") == parse_resolution(" 1344×896 ") == (1344, 896)


NARROW = {
    ("phi-4-multimodal", (1, 150)): "takes none with an edge below 10",
    ("lighton-ocr", (1, 1)): "the shorter edge has fewer than the 2 patches of a token",
    ("lighton-ocr", (1, 150)): "the shorter edge has fewer than the 2 patches of a token",
}
"""Sizes that a front end refuses."""


@pytest.mark.parametrize("name", VISIONS)
@pytest.mark.parametrize("size", [(1, 1), (10_000, 10_000), (1, 150)])
def test_every_front_end_takes_any_size(name: str, size: tuple[int, int]) -> None:
    if (reason := NARROW.get((name, size))) is not None:  # As its processor does.
        with pytest.raises(RequestError, match=reason):
            tokens_of_image(VISIONS[name], *size)
        return
    assert tokens_of_image(VISIONS[name], *size) > 0
