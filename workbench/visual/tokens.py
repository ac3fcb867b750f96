"""Images and video -> |V|: sizes from real files or from the request, tokens by the front end."""

import re
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workbench.inputs.files import require_file
from workbench.inputs.model_files import is_file_model, model_files
from workbench.visual import VISIONS, FrontEnd, Limits, vision_of
from workbench.visual.clips import EXTRA, video_clip
from workbench.vocabulary.errors import RequestError

FPS = 1.0
"""Frames a second that are sampled of a video file unless a request says otherwise."""
MAX_EDGE = 1_000_000
MAX_FRAMES = 10**9
"""Sampled frames of a video: as many as the largest |V| of a cell has tokens."""
_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)


def default_vision(model: str, offline: bool = False) -> str:
    """The front end of a catalogue name, or of a checkpoint's config.json; SigLIP for text models.

    ``offline`` asks no hub. Raises RequestError, which lists the front ends there are, where a
    checkpoint's is none of them.
    """
    if is_file_model(model):
        return vision_of(model, model_files(model, offline).config())
    word = model.lower()
    matches = [
        (len(prefix), name)
        for name, front_end in VISIONS.items()
        for prefix in front_end.models
        if word.startswith(prefix)
    ]
    return max(matches)[1]


def front_end_of(
    model: str, vision: str | None = None, limits: Limits | None = None, offline: bool = False
) -> FrontEnd:
    """A model's own front end under the settings of its files, or a chosen one; with limits.

    Files beside a checkpoint count where the front end is its own. Raises RequestError as
    ``default_vision`` does, and for a limit that the front end does not have.
    """
    front_end = VISIONS[vision or default_vision(model, offline)]
    if not is_file_model(model):
        front_end = front_end.of_model(model)
    else:
        files = model_files(model, offline)
        config = files.config() if vision is None or files.path("config.json") else {}
        if config and front_end.serves(config):
            front_end = front_end.of_files(config, files.preprocessors(), model)
    return front_end if limits is None else front_end.asked(limits)


def tokens_of_image(front_end: FrontEnd, width: int, height: int) -> int:
    """Visual tokens of one image; RequestError where a side is not 1 to 1,000,000 pixels."""
    _check_size(width, height)
    return front_end.tokens_of_image(width, height)


def tokens_of_images(front_end: FrontEnd, sizes: Sequence[tuple[int, int]]) -> list[int]:
    """Visual tokens of each image of a sample that shows them all; RequestError as above."""
    for width, height in sizes:
        _check_size(width, height)
    return front_end.tokens_of_images(sizes)


def tokens_of_video(front_end: FrontEnd, width: int, height: int, num_frames: int) -> int:
    """Visual tokens of ``num_frames`` sampled frames of one video."""
    _check_size(width, height)
    if num_frames < 1:
        raise RequestError(f"frames {num_frames}: at least 1 frame is needed")
    return front_end.tokens_of_video(width, height, num_frames)


def _check_size(width: int, height: int) -> None:
    if not (1 <= width <= MAX_EDGE and 1 <= height <= MAX_EDGE):
        raise RequestError(f"resolution {width}x{height}: each side is 1 to {MAX_EDGE:,} pixels")


def parse_resolution(text: str) -> tuple[int, int]:
    """``WIDTHxHEIGHT`` in pixels, e.g. ``1344x896``."""
    match = re.fullmatch(r"([0-9]{1,7})[xX×]([0-9]{1,7})", text.strip())
    if match is None:
        raise RequestError(f"resolution {text!r}: WIDTHxHEIGHT in pixels, such as 1344x896")
    width, height = int(match[1]), int(match[2])
    _check_size(width, height)
    return width, height


def image_size(path: Path) -> tuple[int, int]:
    """Upright (width, height) of an image file, which is decoded once to know that it is whole.

    Raises RequestError, naming the file, where Pillow is missing, the file is no image, is cut
    off, or holds more pixels than Pillow takes for a decompression bomb.
    """
    require_file(path, "image")
    try:
        from PIL import Image
    except ImportError:
        raise RequestError(f"image {str(path)!r}: reading images needs Pillow: {EXTRA}") from None
    broken = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.load()
                width, height = image.size
                turned = image.getexif().get(_ORIENTATION) in _SIDEWAYS
    except Image.DecompressionBombError as error:
        raise RequestError(f"image {str(path)!r}: too many pixels to be read: {error}") from None
    except broken as error:
        raise RequestError(f"image {str(path)!r}: not a whole image: {error}") from None
    return (height, width) if turned else (width, height)


def tokens(
    model: str,
    vision: str | None = None,
    *,
    images: Sequence[Path] = (),
    video: Path | None = None,
    resolution: str | None = None,
    frames: int | None = None,
    fps: float | None = None,
    limits: Limits | None = None,
) -> dict[str, Any]:
    """The document of ``workbench tokens``: |V| of images, of a video, or of a size.

    Exactly one of ``images``, ``video`` and ``resolution`` is given; ``frames`` makes a resolution
    a video of that many sampled frames. ``tokens_each`` is for one image or one step of a video (a
    frame, or the pair that Qwen2.5-VL merges); None where several images differ. ``images`` is 0
    for a video, ``frames`` is 0 for images; ``fps`` is the rate at which a file was sampled.
    ``limits`` says what the front end went by, and
    ``limits_from`` where each came from. ``markers``, where there are any, are text tokens that
    the model's processor puts around and between those of the images; |V| has none of them.
    """
    if sum((bool(images), video is not None, resolution is not None)) != 1:
        raise RequestError("tokens: give one of image, video and resolution")
    if fps is not None and video is None:
        raise RequestError(f"fps {fps:g}: only a video is sampled; give video as well")
    if fps is not None and not 0 < fps <= 1000:
        raise RequestError(f"fps {fps:g}: more than 0 and at most 1000 frames a second")
    if frames is not None and (images or fps is not None):
        raise RequestError(f"frames {frames}: goes with a resolution, or with a video without fps")
    if frames is not None and frames > MAX_FRAMES:
        raise RequestError(f"frames {frames}: must be at most {MAX_FRAMES:,}")
    front_end = front_end_of(model, vision, limits)
    document: dict[str, Any] = {"model": model, "vision": front_end.name}
    if images or (resolution is not None and frames is None):
        sizes = [image_size(path) for path in images] or [parse_resolution(resolution or "")]
        counts = tokens_of_images(front_end, sizes)
        each = counts[0] if len(set(counts)) == 1 else None
        numbers = {"images": len(counts), "frames": 0, "tokens_each": each}
        markers = sum(front_end.markers_of_image(*size) for size in sizes)
        if markers:
            numbers["markers"] = markers
        return {**document, **numbers, "num_visual": sum(counts), **front_end.document()}
    if video is not None:
        clip = video_clip(video)
        width, height = clip.width, clip.height
        if frames is None:
            rate = FPS if fps is None else fps
            frames = front_end.sampled(clip.total_frames, clip.fps, rate)
            document["fps"] = rate
        elif frames > clip.total_frames:
            raise RequestError(f"frames {frames}: the video has {clip.total_frames}")
        document["duration_s"] = clip.duration_s
    else:
        width, height = parse_resolution(resolution or "")
    assert frames is not None
    most = None if limits is None else limits.max_frames
    if most is not None and frames > most:
        raise RequestError(f"frames {frames}: more than max_frames {most}")
    num_visual = tokens_of_video(front_end, width, height, frames)
    return {
        **document,
        "images": 0,
        "frames": frames,
        "tokens_each": front_end.tokens_of_step(width, height, frames),
        "num_visual": num_visual,
        **front_end.document(),
        "notes": front_end.notes(width, height, frames),
    }
