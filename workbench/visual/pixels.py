"""Pixels of real images and video, upright, as Pillow images. Sizes alone are in visuals.py."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.visual.clips import LOCAL_ONLY, shown_stream
from workbench.visual.tokens import image_size
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image


def read_image(path: Path) -> "Image":
    """An image file in RGB; raises RequestError as ``image_size`` does."""
    image_size(path)  # Whatever is wrong with the file is said there.
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def read_frames(path: Path, total: int, count: int) -> "Iterator[Image]":
    """``count`` frames of a video of ``total``, evenly spaced from its first, in RGB.

    By their number, as transformers' processors choose them, not by their time.

    Raises RequestError, naming the file, where a frame cannot be decoded or is not there.
    """
    import av

    numbers = [i * total // count for i in range(count)]
    position = 0
    try:
        with av.open(str(path.resolve()), options=LOCAL_ONLY) as container:
            for index, frame in enumerate(container.decode(shown_stream(container))):
                while position < count and index == numbers[position]:
                    image = frame.to_image()
                    yield image.rotate(frame.rotation, expand=True) if frame.rotation else image
                    position += 1
                if position == count:
                    return
    except av.FFmpegError as error:
        raise RequestError(f"video {str(path)!r}: not a readable video: {error}") from None
    raise RequestError(
        f"video {str(path)!r}: frame {numbers[position]} of {total} could not be decoded"
    )
