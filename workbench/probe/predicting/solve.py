"""The threshold solved for something else than |V|: batch, images, pixels, frames or minutes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workbench.lvlm.models import resolve
from workbench.lvlm.pictures import fields_of
from workbench.lvlm.towers import tower_of
from workbench.probe.counting.allocator import allocator_of
from workbench.probe.predicting import SOLVE
from workbench.probe.predicting.capacity import fixed_capacity
from workbench.probe.predicting.facts import model_flags
from workbench.probe.predicting.family import Family
from workbench.probe.predicting.footprint import check_allocator
from workbench.probe.predicting.limit import START, predicted_limit
from workbench.probe.predicting.threshold import find_threshold
from workbench.visual import VISIONS, FrontEnd, Limits
from workbench.visual.tokens import (
    MAX_EDGE,
    front_end_of,
    parse_resolution,
    tokens_of_image,
    tokens_of_video,
)
from workbench.vocabulary.agreement import check_states
from workbench.vocabulary.cell import Cell, make_cell
from workbench.vocabulary.devices import device
from workbench.vocabulary.errors import Faults, RequestError, unknown_name
from workbench.vocabulary.fields import MAX_TOKENS
from workbench.vocabulary.pictures import Pictures, make_pictures

MAX_BATCH = 1_000_000
"""Of a cell (spec.py)."""
MAX_PIXELS = 10**11
"""No front end is asked for more."""
NONE_ASKED = Limits()
PIXELS = 4096
"""Steps in which pixels are looked for where a tower runs: those of a 64th of 512 by 512."""
FIRST_BATCH = 64
"""The first batch that is tried."""


@dataclass(frozen=True)
class Question:
    """What to solve for, and what that needs; None where it was not given."""

    solve: str = "visual"
    num_visual: int | None = None
    vision: str | None = None
    resolution: str | None = None
    fps: float | None = None
    limits: Limits = NONE_ASKED


def solved(cell: Cell, device_name: str, question: Question) -> dict[str, Any]:
    """The document of ``workbench limit``: max_visual, max_batch, max_images, max_pixels, ….

    Raises RequestError as ``check_question`` and ``predicted_limit`` do.
    """
    check_question(cell, question)
    if question.solve == "visual":
        return predicted_limit(cell, device_name).document()
    if question.solve == "batch":
        sized = make_cell(**{**cell.document(), "num_visual": question.num_visual})
        return _batch(sized, device_name)
    if question.solve == "pixels":
        return _pixels(cell, device_name, question)
    return _document(cell, device_name, question)


def check_question(cell: Cell, question: Question) -> None:
    """Raise RequestError for all that is wrong with the options."""
    faults = Faults()
    solve = question.solve
    if solve not in SOLVE:
        raise unknown_name("solve", solve, SOLVE)
    needed = {"visual": None, "batch": "num_visual"}.get(solve, "resolution")
    allowed = {
        "visual": (),
        "batch": ("num_visual",),
        "images": ("resolution", "vision"),
        "pixels": ("resolution", "vision"),
        "frames": ("resolution", "vision"),
        "minutes": ("resolution", "vision", "fps"),
    }[solve]
    for field in ("num_visual", "vision", "resolution", "fps"):
        value, option = getattr(question, field), f"--{field.removeprefix('num_')}"
        if value is not None and field not in allowed:
            faults.add(f"{option} {value}: says nothing where limit solves for {solve}")
        if value is None and field == needed:
            faults.add(f"solve {solve}: needs {option}")
    if question.resolution is not None:
        with faults:
            parse_resolution(question.resolution)
    if question.vision is not None:
        with faults:
            _ = VISIONS[question.vision]
    for field, limit in question.limits.asked().items():
        if solve in ("visual", "batch") or (solve == "pixels" and field == "max_pixels"):
            faults.add(f"{field} {limit}: says nothing where limit solves for {solve}")
    if solve == "batch" and cell.batch != 1:
        faults.add(f"batch {cell.batch}: is what is solved for; leave it out")
    if question.fps is not None and not 0 < question.fps <= 1000:
        faults.add(f"fps {question.fps:g}: more than 0 and at most 1000 frames a second")
    faults.raise_all()


@dataclass(frozen=True)
class _Found:
    device: str
    fits: int | None
    fails: int | None
    capacity_bytes: int
    stopped_by: str | None
    """The kind of memory that takes most where it fails; None where nothing fails."""


def _search(
    cell: Cell,
    fields: Callable[[int], dict[str, Any]],
    device_name: str,
    start: int,
    most: int,
    pictures: Callable[[int], Pictures | None] = lambda _: None,
    empty: bool = False,
) -> _Found:
    """The threshold among the cells with ``fields(n)``, n up to ``most``.

    ``empty``: there is none for 0, which fits.
    """
    target = device(device_name)
    check_states(cell)
    capacity = fixed_capacity(cell, target)
    check_allocator(cell, target)
    family = Family(
        lambda number: cell.replace(**fields(number)),
        allocator_of(target),
        capacity,
        emulate=None,
        empty=empty or cell.num_text == 0,
        pictures=pictures,
    )
    fits, fails = find_threshold(family, start, most)
    stopped_by = None if fails is None else family.footprint(fails).peak.dominant
    return _Found(target.name, fits, fails, capacity, stopped_by)


def _batch(cell: Cell, device_name: str) -> dict[str, Any]:
    bracket = _search(
        cell, lambda n: {"batch": n}, device_name, FIRST_BATCH, MAX_BATCH, empty=True
    )
    return {
        **_head(cell, bracket.device, "batch"),
        "max_batch": bracket.fits or None,
        "fails_at": bracket.fails,
        "capacity_bytes": bracket.capacity_bytes,
        "stopped_by": bracket.stopped_by or f"nothing up to {MAX_BATCH:,} samples",
    }


def _pixels(cell: Cell, device_name: str, question: Question) -> dict[str, Any]:
    """The largest ``max_pixels`` under which one image fits, larger ones being scaled down to it.

    The image has the shape of the resolution, and is large enough for every limit to bite.
    """
    plain = _front_end(cell, question)
    width, height = parse_resolution(question.resolution or "")
    grown = MAX_EDGE // max(width, height)
    large = width * grown, height * grown

    def tokens(pixels: int) -> int:
        front_end = plain.asked(Limits(max_pixels=pixels))
        return tokens_of_image(front_end, *large)

    if "max_pixels" not in plain.settings():
        raise RequestError(f"solve pixels: {plain.name} has no max_pixels that could be asked for")
    least = plain.settings().get("min_pixels") or 1
    if cell.scope == "lvlm":
        bracket, largest, fails = _pixels_of_tower(
            cell, device_name, large, question, tokens, least
        )
    else:
        bracket, largest, fails = _pixels_of_tokens(cell, device_name, tokens, least)
    tokens_each = tokens(largest or least)
    return {
        **_head(cell, bracket.device, "pixels"),
        "max_pixels": largest,
        "fails_at": fails,
        "max_visual": None if largest is None else tokens_each,
        "vision": plain.name,
        "resolution": f"{width}x{height}",
        "tokens_each": tokens_each,
        "capacity_bytes": bracket.capacity_bytes,
        "stopped_by": bracket.stopped_by or f"nothing up to {MAX_PIXELS:,} pixels",
        **plain.document(),
    }


def _pixels_of_tokens(
    cell: Cell, device_name: str, tokens: Callable[[int], int], least: int
) -> tuple[_Found, int | None, int | None]:
    """Where no tower runs, pixels are the tokens that they make."""
    limit = predicted_limit(cell, device_name)
    room = limit.max_visual
    ends = (limit.device, room, limit.fails_at, limit.capacity_bytes, limit.stopped_by)
    if room is None or tokens(least) > room:
        return _Found(*ends), None, least
    return _Found(*ends), *_largest(lambda pixels: tokens(pixels) <= room, least)


def _pixels_of_tower(
    cell: Cell,
    device_name: str,
    large: tuple[int, int],
    question: Question,
    tokens: Callable[[int], int],
    least: int,
) -> tuple[_Found, int | None, int | None]:
    """With its tower: one image, scaled down to so many steps of PIXELS."""

    def pictures(steps: int) -> Pictures | None:
        limits = {**question.limits.asked(), "max_pixels": least + steps * PIXELS}
        return make_pictures(resolution=f"{large[0]}x{large[1]}", **limits)

    def fields(steps: int) -> dict[str, Any]:
        return {"num_visual": tokens(least + steps * PIXELS)}

    each = PIXELS * tokens(10**7) / 10**7
    most = min(MAX_PIXELS, large[0] * large[1]) // PIXELS
    bracket = _search(cell, fields, device_name, max(4, int(START / each)), most, pictures)
    largest, fails = (
        None if n is None else least + n * PIXELS for n in (bracket.fits, bracket.fails)
    )
    return bracket, largest, fails


def _largest(fits: Callable[[int], bool], low: int) -> tuple[int, int | None]:
    """The largest number of pixels that fits, to 1 %, and the smallest that was found not to."""
    high = 2 * low
    while fits(high):
        if high > MAX_PIXELS:
            return high, None
        low, high = high, 2 * high
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low, high


def _front_end(cell: Cell, question: Question) -> FrontEnd:
    """What prepares images: at scope lvlm the tower's own."""
    if cell.scope != "lvlm":
        return front_end_of(cell.model, question.vision, question.limits)
    front_end = tower_of(resolve(cell.model), cell.tower, question.limits).front
    if question.vision not in (None, front_end.name):
        raise RequestError(
            f"vision {question.vision}: at scope lvlm the cell's tower sees, as {front_end.name} "
            "does"
        )
    return front_end


def _document(cell: Cell, device_name: str, question: Question) -> dict[str, Any]:
    front_end = _front_end(cell, question)
    name = front_end.name
    width, height = parse_resolution(question.resolution or "")
    images = question.solve == "images"
    each = (
        tokens_of_image(front_end, width, height)
        if images
        else front_end.tokens_of_step(width, height)
    )
    rate = (question.fps or 1.0) if question.solve == "minutes" else None
    most, why = _most_frames(front_end, name, each, rate)

    def visual(frames: int) -> int:
        if images:
            return frames * each
        return tokens_of_video(front_end, width, height, frames) if frames else 0

    start = min(most, max(1, START // each))

    def pictures(frames: int) -> Pictures | None:
        if cell.scope != "lvlm" or not frames:
            return None
        many: dict[str, Any] = {"count": frames} if images else {"frames": frames}
        if not images and rate is not None:
            many["fps"] = rate
        return make_pictures(resolution=f"{width}x{height}", **many, **question.limits.asked())

    def fields(frames: int) -> dict[str, Any]:
        scene = pictures(frames)
        if scene is None:
            return {"num_visual": visual(frames)}
        return fields_of(cell.model, scene, cell.layout, cell.tower)

    bracket = _search(cell, fields, device_name, start, most, pictures)

    def sampled(frames: int | None) -> float | int | None:
        return frames if rate is None or frames is None else frames / rate / 60

    return {
        **_head(cell, bracket.device, question.solve),
        f"max_{question.solve}": sampled(bracket.fits),
        "fails_at": sampled(bracket.fails),
        "max_visual": None if bracket.fits is None else visual(bracket.fits),
        "vision": name,
        "resolution": f"{width}x{height}",
        **({} if rate is None else {"fps": rate, "max_frames": bracket.fits}),
        "tokens_each": (
            each if images else front_end.tokens_of_step(width, height, bracket.fits or 1)
        ),
        "capacity_bytes": bracket.capacity_bytes,
        "stopped_by": bracket.stopped_by
        or why.replace("frames", "images" if images else "frames"),
        **front_end.document(),
        "notes": front_end.notes(width, height, 0 if images else bracket.fits or 1),
    }


def _most_frames(front_end: FrontEnd, name: str, each: int, rate: float | None) -> tuple[int, str]:
    """The most frames that can be asked for, and why there are no more.

    A front end that samples at most so many frames of a video takes no more, however long it is.
    """
    most = max(1, MAX_TOKENS // each)
    if rate is not None:
        sampled = front_end.sampled(most, rate, rate)
        if sampled < most:
            return sampled, f"{name}, which samples at most {sampled:,} frames of a video"
    return most, f"nothing up to {most:,} frames"


def _head(cell: Cell, device: str, solve: str) -> dict[str, Any]:
    return {
        "cell": cell.document(),
        "key": cell.key,
        "source": "predicted",
        "device": device,
        "solve": solve,
        "flags": model_flags(cell),
    }
