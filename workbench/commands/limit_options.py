"""The options that put limits on a vision front end, once for every command that has one."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.commands.numbers import whole_option

if TYPE_CHECKING:
    from workbench.visual import Limits

MOST = 8
"""Values of a list that are printed one by one."""
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


def limits_words(answer: Mapping[str, Any]) -> str:
    """Each of a front end's ``limits`` with its value, grouped by where it comes from."""
    by_origin: dict[str, list[str]] = {}
    for name, value in answer["limits"].items():
        text = f"{value:,}" if type(value) is int else str(value)
        if isinstance(value, tuple | list) and len(value) > MOST:
            text = f"{len(value)} of them"
        by_origin.setdefault(answer["limits_from"][name], []).append(f"{name} {text}")
    return "; ".join(f"{', '.join(names)} ({origin})" for origin, names in by_origin.items())
