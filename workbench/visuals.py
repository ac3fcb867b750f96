"""Images and video -> |V|: sizes from real files or from the request, tokens by the front end."""

import re
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from workbench.errors import RequestError
from workbench.files import read_json, require_file
from workbench.vision import VISIONS, FrontEnd

MAX_EDGE = 1_000_000
MAX_CONFIG_BYTES = 4 * 2**20
_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)
LOCAL_ONLY = {"protocol_whitelist": "file"}
"""A playlist from a stranger must not make FFmpeg fetch anything."""


class Clip(NamedTuple):
    """What a video file holds: upright pixels, frames in all, frames a second."""

    width: int
    height: int
    total_frames: int
    fps: float


def default_vision(model: str) -> str:
    """The front end that a model's name, or a local checkpoint's config, asks for; else SigLIP."""
    word = Path(model).name.lower()
    config = Path(model) / "config.json"
    if config.is_file():
        fields = read_json(config, "model", MAX_CONFIG_BYTES)
        word = str(fields.get("model_type", "")) if isinstance(fields, dict) else ""
    matches = [
        (len(prefix), name)
        for name, front_end in VISIONS.items()
        for prefix in front_end.models
        if word.startswith(prefix)
    ]
    return max(matches)[1]


def tokens_of_image(front_end: FrontEnd, width: int, height: int) -> int:
    """Visual tokens of one image; RequestError where a side is not 1 to 1,000,000 pixels."""
    _check_size(width, height)
    return front_end.tokens_of_image(width, height)


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
    found = re.fullmatch(r"([0-9]{1,7})[xX×]([0-9]{1,7})", text.strip())
    if found is None:
        raise RequestError(f"resolution {text!r}: WIDTHxHEIGHT in pixels, such as 1344x896")
    width, height = int(found[1]), int(found[2])
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
        raise RequestError(f"image {str(path)!r}: reading images needs Pillow: {_EXTRA}") from None
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


_EXTRA = "pip install 'visual-token-workbench[vision]'"


def video_clip(path: Path) -> Clip:
    """Size, frame count and rate of a video file; its packets are counted, one frame is decoded.

    Raises RequestError, naming the file, where PyAV is missing or the file has no readable video.
    """
    require_file(path, "video")
    try:
        import av
    except ImportError:
        raise RequestError(f"video {str(path)!r}: reading video needs PyAV: {_EXTRA}") from None
    try:
        with av.open(str(path.resolve()), options=LOCAL_ONLY) as container:
            if not container.streams.video:
                raise RequestError(f"video {str(path)!r}: has no video stream")
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate
            frame = next(container.decode(stream), None)
            container.seek(0)
            packets = sum(packet.size > 0 for packet in container.demux(stream))
    except av.FFmpegError as error:
        raise RequestError(f"video {str(path)!r}: not a readable video: {error}") from None
    if frame is None or not rate or not packets:
        raise RequestError(f"video {str(path)!r}: no frame could be decoded")
    turned = frame.rotation % 180 != 0
    size = (frame.height, frame.width) if turned else (frame.width, frame.height)
    return Clip(*size, total_frames=packets, fps=float(rate))


def tokens(
    model: str,
    vision: str | None = None,
    *,
    images: Sequence[Path] = (),
    video: Path | None = None,
    resolution: str | None = None,
    frames: int | None = None,
    fps: float | None = None,
) -> dict[str, Any]:
    """The document of ``workbench tokens``: |V| of images, of a video, or of a size.

    Exactly one of ``images``, ``video`` and ``resolution`` is given; ``frames`` makes a resolution
    a video of that many sampled frames. ``tokens_each`` is for one image or one step of a video (a
    frame, or the pair that Qwen2.5-VL merges); None where several images differ. ``images`` is 0
    for a video, ``frames`` is 0 for images.
    """
    if sum((bool(images), video is not None, resolution is not None)) != 1:
        raise RequestError("tokens: give one of image, video and resolution")
    if fps is not None and video is None:
        raise RequestError(f"fps {fps}: only a video is sampled; give video as well")
    if fps is not None and not 0 < fps <= 1000:
        raise RequestError(f"fps {fps}: more than 0 and at most 1000 frames a second")
    if frames is not None and (images or fps is not None):
        raise RequestError(f"frames {frames}: goes with a resolution, or with a video without fps")
    name = vision or default_vision(model)
    front_end = VISIONS[name]
    document: dict[str, Any] = {"model": model, "vision": name}
    if images or (resolution is not None and frames is None):
        sizes = [image_size(path) for path in images] or [parse_resolution(resolution or "")]
        counts = [tokens_of_image(front_end, *size) for size in sizes]
        each = counts[0] if len(set(counts)) == 1 else None
        counted = {"images": len(counts), "frames": 0, "tokens_each": each}
        return {**document, **counted, "num_visual": sum(counts)}
    if video is not None:
        clip = video_clip(video)
        width, height = clip.width, clip.height
        if frames is None:
            frames = front_end.sampled(clip.total_frames, clip.fps, 1.0 if fps is None else fps)
        elif frames > clip.total_frames:
            raise RequestError(f"frames {frames}: the video has {clip.total_frames}")
    else:
        width, height = parse_resolution(resolution or "")
    assert frames is not None
    num_visual = tokens_of_video(front_end, width, height, frames)
    each = front_end.tokens_of_step(width, height)
    return {
        **document,
        "images": 0,
        "frames": frames,
        "tokens_each": each,
        "num_visual": num_visual,
    }
