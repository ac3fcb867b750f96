"""Pictures as the image processors prepare them that transformers has for torchvision alone.

torchvision's transforms of tensors call these operators of torch; tests hold pixels against the
processors' own, to the bit.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image


def tensor_of(image: "Image") -> Tensor:
    """The colours of an image, uint8 [3, H, W]."""
    colours = image.convert("RGB")
    flat = torch.frombuffer(bytearray(colours.tobytes()), dtype=torch.uint8)
    return flat.view(colours.height, colours.width, 3).permute(2, 0, 1).contiguous()


def resize(picture: Tensor, height: int, width: int, mode: str = "bilinear") -> Tensor:
    """uint8 [3, H, W] -> uint8 [3, height, width], anti-aliased.

    torchvision does so in float32 on a CPU without AVX2, where a value may differ by one.
    """
    if picture.shape[1:] == (height, width):
        return picture
    size = (height, width)
    (scaled,) = F.interpolate(picture[None], size, mode=mode, align_corners=False, antialias=True)
    return scaled


def pad(picture: Tensor, height: int, width: int, value: int) -> Tensor:
    """[3, H, W] -> [3, height, width]: below and to the right, of one value."""
    return F.pad(picture, (0, width - picture.shape[2], 0, height - picture.shape[1]), value=value)


def tiles_of(picture: Tensor, edge: int) -> Tensor:
    """[3, rows · edge, columns · edge] -> [rows · columns, 3, edge, edge], row by row."""
    tiles = picture.unflatten(2, (-1, edge)).unflatten(1, (-1, edge))
    return tiles.permute(1, 3, 0, 2, 4).flatten(0, 1)


def about_zero(picture: Tensor) -> Tensor:
    """Colours of 0 to 255 as float32 of -1 to 1."""
    return (picture.float() - 127.5) / 127.5
