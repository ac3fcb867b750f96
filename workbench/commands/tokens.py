"""``tokens``: images, a video, or their size as visual tokens."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.commands import show
from workbench.commands.cells import AsJson
from workbench.errors import RequestError


def tokens(
    model: Annotated[str, typer.Option(help="A model name, a hub id or a folder.")] = (
        "mistral-7b-v0.3"
    ),
    vision: Annotated[
        str | None, typer.Option(help="A vision front end.", show_default="the model's own")
    ] = None,
    image: Annotated[
        list[Path] | None, typer.Option(help="An image file; may be given several times.")
    ] = None,
    video: Annotated[Path | None, typer.Option(help="A video file.")] = None,
    fps: Annotated[
        float | None, typer.Option(help="Frames sampled a second of video.", show_default="1")
    ] = None,
    resolution: Annotated[
        str | None, typer.Option(metavar="WIDTHxHEIGHT", help="A size instead of a file.")
    ] = None,
    frames: Annotated[
        int | None, typer.Option(help="Sampled frames: makes a resolution a video.")
    ] = None,
    json_: AsJson = False,
) -> None:
    """Count the visual tokens of images or of a video, by a front end's own arithmetic."""
    from workbench.visuals import tokens as count

    _check_model(model)
    found = count(
        model,
        vision,
        images=image or [],
        video=video,
        resolution=resolution,
        frames=frames,
        fps=fps,
    )
    if json_:
        show.emit(found)
    else:
        print(_sentence(found))


def _check_model(name: str) -> None:
    folder = Path(name)
    if folder.is_absolute() or name.startswith("."):
        if not (folder / "config.json").is_file():
            raise RequestError(f"model {name!r}: no folder with a config.json")
    elif "/" not in name and not folder.is_dir() and find_spec("torch") is not None:
        # The catalogue is the torch half's; where that is missing, a name is an opaque word.
        from workbench.lvlm.models import MODELS

        _ = MODELS[name]


def _sentence(found: dict[str, Any]) -> str:
    what = "image" if found["images"] else "frame"
    number = found["images"] or found["frames"]
    each = "" if found["tokens_each"] is None else f", {found['tokens_each']:,} each"
    if what == "frame" and found["num_visual"] != number * found["tokens_each"]:
        each += " step of several frames"
    counted = f"{number:,} {what}{'s' * (number != 1)}{each}"
    return f"{found['num_visual']:,} visual tokens ({found['vision']}: {counted})"
