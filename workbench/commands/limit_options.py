"""The options that put limits on a vision front end, once for every command that has one."""

from typing import TYPE_CHECKING, Annotated

import typer

from workbench.commands.numbers import whole_option

if TYPE_CHECKING:
    from workbench.visual import Limits

OWN = "the checkpoint's"
MinPixels = Annotated[
    int | None, whole_option("Pixels of an image or frame at least.", show_default=OWN)
]
MaxPixels = Annotated[
    int | None, whole_option("Pixels of an image or frame at most.", show_default=OWN)
]
MaxFrames = Annotated[
    int | None, whole_option("Frames sampled of a video at most.", show_default=OWN)
]
MaxVideoTokens = Annotated[
    int | None,
    whole_option(
        "Tokens that all frames of a video share: 115200 as in qwen-vl-utils.", show_default=OWN
    ),
]
PanAndScan = Annotated[
    bool, typer.Option("--pan-and-scan", help="Gemma 3: crops of long images as well.")
]


def limits_of(
    min_pixels: int | None,
    max_pixels: int | None,
    max_frames: int | None,
    max_video_tokens: int | None,
    pan_and_scan: bool,
) -> "Limits":
    """What the options ask of a front end."""
    from workbench.visual import Limits

    return Limits(min_pixels, max_pixels, max_frames, max_video_tokens, pan_and_scan or None)
