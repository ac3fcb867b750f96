"""The reader's own case, ``--case model=…,images=…,gpus=…,price=…``: read here, without torch.

Its prediction is made elsewhere, where torch is, and comes back as answers to ``case_table``.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.telling.page import Table
from workbench.visual.tokens import (
    front_end_of,
    parse_resolution,
    tokens_of_image,
    tokens_of_video,
)
from workbench.vocabulary.cell import Cell, make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.fields import MAX_TOKENS
from workbench.vocabulary.systems import label
from workbench.vocabulary.units import quantity

KEYS = (
    "model",
    "visual",
    "images",
    "frames",
    "resolution",
    "fps",
    "text",
    "steps",
    "gpus",
    "price",
    "device",
)
SYSTEMS = (
    ("s_attn", "eager", None),
    ("s_attn", "sdpa", None),
    ("d_attn", "sdpa", None),
    ("d_attn", "sdpa", 8192),
)
"""Attention, kernel, chunk: the columns of a report, as far as a prediction has them."""
_PRICE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z$€£¥]{1,4})")


@dataclass(frozen=True)
class Case:
    """What the reader trains, on what, and what that costs an hour."""

    model: str = "mistral-7b-v0.3"
    visual: int = 0
    tokens_of_a_minute: float = 0.0
    """Visual tokens of a minute of video; 0 where the model's front end is unknown."""
    shown: str = ""
    """What the visual tokens are of, in words."""
    text: int = 400
    steps: int = 1000
    gpus: int = 32
    price: float | None = None
    """Of one card for an hour, in ``currency``."""
    currency: str = ""
    device: str = "h100-80gb"

    def cells(self) -> list[Cell]:
        """A training step of every system: checkpoints, logits of text, ZeRO 3 over the cards."""
        sharded = {"zero": 3, "world_size": self.gpus} if self.gpus > 1 else {}
        return [
            make_cell(
                model=self.model,
                attention=attention,
                kernel=kernel,
                chunk=chunk,
                num_visual=self.visual,
                num_text=self.text,
                scope="decoder",
                checkpoint=True,
                logits="text",
                **{"pass": "train"},
                **sharded,
            )
            for attention, kernel, chunk in SYSTEMS
        ]


@dataclass(frozen=True)
class CaseAnswer:
    """The prediction of one of a case's cells."""

    cell: Cell
    status: str
    seconds: float | None
    peak_bytes: int | None
    max_visual: int | None
    """The largest |V| that fits; None where nothing does."""
    flags: Sequence[str] = ()


def read_case(text: str) -> Case:
    """The case of ``name=value,…``; raises RequestError with the name and what would be right."""
    given: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise RequestError(f"case {part[:60]!r}: write name=value, such as gpus=32")
        if name not in KEYS:
            raise RequestError(f"case {name[:60]!r}: choose {', '.join(KEYS)}")
        if name in given:
            raise RequestError(f"case {name}: is given twice")
        given[name] = value
    sizes = [name for name in ("visual", "images", "frames") if name in given]
    if len(sizes) != 1:
        raise RequestError("case: give one of visual=N, images=N and frames=N")
    model = given.get("model", Case.model)
    visual, minute, note = _tokens(model, sizes[0], given)
    price, currency = _price(given.get("price"))
    return Case(
        model=model,
        visual=visual,
        tokens_of_a_minute=minute,
        shown=note,
        text=_count(given, "text", Case.text),
        steps=_count(given, "steps", Case.steps),
        gpus=_count(given, "gpus", Case.gpus),
        price=price,
        currency=currency,
        device=given.get("device", Case.device),
    )


def _count(given: dict[str, str], name: str, default: int, most: int = 1_000_000_000) -> int:
    text = given.get(name)
    if text is None:
        return default
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise RequestError(f"case {name}={text[:40]}: a whole number from 1 to {most:,}")
    return int(text)


def _tokens(model: str, size: str, given: dict[str, str]) -> tuple[int, float, str]:
    """|V|, the tokens of a minute of video, and what |V| is of."""
    count = _count(given, size, 1, MAX_TOKENS)
    width, height = parse_resolution(given.get("resolution", "1344x896"))
    rate = given.get("fps", "1")
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", rate) or not 0 < float(rate) <= 120:
        raise RequestError(f"case fps={rate[:40]}: a number above 0, at most 120")
    fps = float(rate)
    try:
        front = front_end_of(model, offline=True)
    except RequestError:
        if size != "visual":
            raise
        return count, 0.0, f"{count:,} visual tokens"
    minute = tokens_of_video(front, width, height, max(1, round(3600 * fps))) / 60
    if size == "visual":
        return count, minute, f"{count:,} visual tokens"
    if size == "images":
        visual, words = count * tokens_of_image(front, width, height), f"{count:,} images"
    else:
        visual, words = tokens_of_video(front, width, height, count), f"{count:,} frames"
    if visual > MAX_TOKENS:
        raise RequestError(f"case {size}={count:,}: {visual:,} tokens; at most {MAX_TOKENS:,}")
    return visual, minute, f"{words} of {width}x{height}, {visual:,} visual tokens"


def _price(text: str | None) -> tuple[float | None, str]:
    if text is None:
        return None, ""
    match = _PRICE.fullmatch(text)
    if match is None:
        raise RequestError(f"case price={text[:40]}: a number with its currency, such as 2.5EUR")
    return float(match[1]), match[2]


def case_table(case: Case, answers: Sequence[CaseAnswer]) -> Table:
    """GPU-hours, money where there is a price, and minutes of video, a row a system."""
    money = [f"{case.currency} for {case.steps:,} steps"] if case.price is not None else []
    columns = (
        "system",
        "fits",
        "an iteration",
        f"GPU-hours for {case.steps:,} steps",
        *money,
        "largest |V|",
        "minutes of video that fit",
    )
    rows = tuple(_row(case, answer) for answer in answers)
    flags = dict.fromkeys(
        flag
        for answer in answers
        for flag in answer.flags
        if flag.partition(":")[0] in ("calibrated", "uncalibrated", "carried")
    )
    cards = "one card" if case.gpus == 1 else f"each of {case.gpus:,} cards, ZeRO 3"
    note = (
        f"Predicted for {case.device}, {case.model}, {case.shown}, |T| = {case.text:,}, a sample"
        f" on {cards}, with checkpoints and logits of text rows; nothing ran, and communication"
        f" is assumed to hide behind the computing. {' '.join(f'{flag}.' for flag in flags)}"
    )
    return Table("Your case", columns, rows, note.strip())


def _row(case: Case, answer: CaseAnswer) -> tuple[str, ...]:
    cell = answer.cell
    name = f"{label('attention', cell.attention)} · {cell.kernel}"
    name += f" · chunk {cell.chunk:,}" if cell.chunk else ""
    peak = quantity(answer.peak_bytes, "B")
    fits = answer.status == "ok"
    lacking = ["–"] * (2 if case.price is None else 3)
    figures = lacking
    if fits and answer.seconds is not None:
        hours = answer.seconds * case.steps * case.gpus / 3600
        figures = [quantity(answer.seconds, "s"), f"{hours:,.2f}"]
        figures += [f"{hours * case.price:,.2f}"] if case.price is not None else []
    top = answer.max_visual
    minutes = "–"
    if top is not None and case.tokens_of_a_minute:
        minutes = f"{top / case.tokens_of_a_minute:,.1f}"
    words = {"ok": f"yes, {peak}", "oom": f"no, needs {peak}"}
    return (
        name,
        words.get(answer.status, "cannot run"),
        *figures,
        "–" if top is None else f"{top:,}",
        minutes,
    )
