"""Real images and video at scope ``lvlm``: their grids, what was used, and their pixels."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.lvlm.layout import even_shares
from workbench.lvlm.models import resolve
from workbench.lvlm.towers import Grid, Tower, tower_of
from workbench.visual.clips import video_clip
from workbench.visual.pixels import read_frames, read_image
from workbench.visual.tokens import image_size, parse_resolution, tokens_of_images
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.pictures import Pictures

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Scene:
    """What one sample shows. An item is an image with its crops, a frame, or a whole video."""

    items: tuple[tuple[Grid, ...], ...]
    facts: tuple[dict[str, Any], ...]
    """Of each file: its name, size in pixels, sampled frames, tokens and limits. Images of one
    size have one fact, with their number as ``count`` and no ``file``."""
    total_frames: int = 0
    num_frames: int = 0

    @property
    def grids(self) -> tuple[Grid, ...]:
        return tuple(grid for item in self.items for grid in item)


def look(tower: Tower, pictures: Pictures) -> Scene:
    """Sizes of the files as grids of the tower; raises RequestError for a file it cannot read."""
    if pictures.video is not None:
        return _look_at_video(tower, pictures)
    if pictures.resolution is not None:
        return _look_at_sizes(tower, pictures, *parse_resolution(pictures.resolution))
    facts: list[dict[str, Any]] = []
    sizes = [image_size(Path(name)) for name in pictures.images]
    tokens_of_images(tower.front, sizes)  # Sizes that it refuses.
    items = tower.of_images(sizes)
    for name, (width, height), item in zip(pictures.images, sizes, items, strict=True):
        tokens = sum(map(tower.tokens, item))
        facts.append(
            {
                "file": Path(name).name,
                "width": width,
                "height": height,
                "tokens": tokens,
                **tower.front.document(),
            }
        )
    return Scene(tuple(items), tuple(facts))


def _look_at_sizes(tower: Tower, pictures: Pictures, width: int, height: int) -> Scene:
    """Images or frames of one size, which no file has."""
    size: dict[str, Any] = {"width": width, "height": height}
    if pictures.frames is None:
        items = tuple(tower.of_images([(width, height)] * pictures.count))
        fact = {**size, "count": pictures.count, "tokens": sum(map(tower.tokens, items[0]))}
        return Scene(items, (fact | tower.front.document(),))
    items = tower.of_video(width, height, pictures.frames, pictures.fps)
    video = _video_fact(tower, items, width, height, pictures.frames)
    fact = {**size, "frames": pictures.frames, "fps": pictures.fps, **video}
    return Scene(items, (fact,), pictures.frames, pictures.frames)


def _video_fact(
    tower: Tower, items: tuple[tuple[Grid, ...], ...], width: int, height: int, frames: int
) -> dict[str, Any]:
    """Tokens of a whole video, and the limits of its front end."""
    return {
        "tokens": sum(tower.tokens(grid) for item in items for grid in item),
        **tower.front.document(),
        "notes": tower.front.notes(width, height, frames),
    }


def _look_at_video(tower: Tower, pictures: Pictures) -> Scene:
    path = Path(str(pictures.video))
    clip, front_end = video_clip(path), tower.front
    count = front_end.sampled(clip.total_frames, clip.fps, pictures.fps)
    rate = count / clip.total_frames * clip.fps
    items = tower.of_video(clip.width, clip.height, count, rate)
    facts = {
        "file": path.name,
        "width": clip.width,
        "height": clip.height,
        "frames": count,
        "fps": rate,
        **_video_fact(tower, items, clip.width, clip.height, count),
    }
    return Scene(items, (facts,), clip.total_frames, count)


def pixels(tower: Tower, pictures: Pictures, scene: Scene) -> "Tensor":
    """The tower's input for one sample, float32, resized and normalised as transformers does."""

    def shown() -> "Iterator[Any]":
        if pictures.video is not None:
            yield from read_frames(Path(pictures.video), scene.total_frames, scene.num_frames)
        else:
            for name in pictures.images:
                yield read_image(Path(name))

    return tower.preprocess(shown(), scene.num_frames)


def fields_of(
    model: str, pictures: Pictures, layout: str, asked: str | None = None
) -> dict[str, Any]:
    """|V| and the layout of a cell that shows these files.

    Where a layout has several places for images, each takes whole ones; sizes that an even split
    would not give are written into the layout, such as ``V1536,T,V400,T``.
    """
    tower = tower_of(resolve(model), asked, pictures.limits)
    sizes = [sum(map(tower.tokens, item)) for item in look(tower, pictures).items]
    kinds = layout.upper().split(",")
    places = kinds.count("V")
    if not places:
        raise RequestError(f"layout {layout!r}: has no place for the images; put a V into it")
    if len(sizes) < places:
        raise RequestError(
            f"layout {layout!r}: has {places} places for images, but there is only {len(sizes)}"
        )
    shares, first = [], 0
    for count in even_shares(len(sizes), places):
        shares.append(sum(sizes[first : first + count]))
        first += count
    total = sum(sizes)
    if shares != even_shares(total, places):
        shares_left = iter(shares)
        layout = ",".join(f"V{next(shares_left)}" if kind == "V" else kind for kind in kinds)
    return {"num_visual": total, "layout": layout}
