"""``tokens``: images, a video, or their size as visual tokens."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.commands import show
from workbench.commands.cells import AsJson
from workbench.commands.completion import completes
from workbench.commands.limit_options import (
    MaxFrames,
    MaxPixels,
    MaxVideoTokens,
    MinPixels,
    PanAndScan,
    limits_of,
    limits_words,
)
from workbench.commands.numbers import whole_option
from workbench.vocabulary.errors import Faults
from workbench.vocabulary.units import plural


def tokens(
    model: Annotated[
        str,
        typer.Option(
            help="A model name, a hub id or a folder.", autocompletion=completes("model")
        ),
    ] = "mistral-7b-v0.3",
    vision: Annotated[
        str | None,
        typer.Option(
            help="A vision front end.",
            show_default="the model's own",
            autocompletion=completes("vision"),
        ),
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="An image file; may be given several times."),
    ] = None,
    video: Annotated[Path | None, typer.Option(help="A video file.")] = None,
    fps: Annotated[
        float | None, typer.Option(help="Frames sampled a second of video.", show_default="1")
    ] = None,
    resolution: Annotated[
        str | None, typer.Option(metavar="WIDTHxHEIGHT", help="A size instead of a file.")
    ] = None,
    frames: Annotated[
        int | None,
        whole_option("Sampled frames: makes a resolution a video."),
    ] = None,
    min_pixels: MinPixels = None,
    max_pixels: MaxPixels = None,
    max_frames: MaxFrames = None,
    max_video_tokens: MaxVideoTokens = None,
    pan_and_scan: PanAndScan = False,
    json_: AsJson = False,
) -> None:
    """Count the visual tokens of images or of a video, by a front end's own arithmetic."""
    with show.waiting("counting"):
        from workbench.visual import VISIONS
        from workbench.visual.tokens import default_vision, parse_resolution
        from workbench.visual.tokens import tokens as count

        faults = Faults()
        with faults:
            # Which front ends there are is said first.
            _ = VISIONS[default_vision(model) if vision is None else vision]
        if not faults or vision is not None:  # Else it is the model that is wrong.
            with faults:
                _check_model(model)
        if resolution is not None:
            with faults:
                parse_resolution(resolution)
        faults.raise_all()
        answer = count(
            model,
            vision,
            images=image or [],
            video=video,
            resolution=resolution,
            frames=frames,
            fps=fps,
            limits=limits_of(min_pixels, max_pixels, max_frames, max_video_tokens, pan_and_scan),
        )
    if json_:
        show.emit(answer)
    else:
        show.say(_sentence(answer))
        show.say(f"limits: {limits_words(answer)}")
        for note in answer.get("notes", ()):
            show.say(f"note: {note}")


def _check_model(name: str) -> None:
    if find_spec("torch") is None:
        return  # The catalogue is the torch half's; where that is missing, a name is a word.
    from workbench.inputs.model_files import is_file_model
    from workbench.lvlm.models import MODELS, resolve

    if is_file_model(name):
        resolve(name)  # A model that cannot be predicted gets no number either.
    else:
        _ = MODELS[name]


def _sentence(answer: dict[str, Any]) -> str:
    what = "image" if answer["images"] else "frame"
    number = answer["images"] or answer["frames"]
    each = "" if answer["tokens_each"] is None else f", {answer['tokens_each']:,} each"
    if what == "frame" and answer["num_visual"] < number * answer["tokens_each"]:
        each += " step of several frames"
    rate = f" at {answer['fps']:g} a second" if "fps" in answer else ""
    amount = f"{plural(number, what)}{rate}{each}"
    markers = answer.get("markers", 0)
    beside = f", beside {markers:,} text tokens that mark them" if markers else ""
    return f"{answer['num_visual']:,} visual tokens ({answer['vision']}: {amount}){beside}"
