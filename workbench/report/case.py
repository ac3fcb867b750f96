"""The reader's own case, ``--case model=…,frames=…,gpus=…,price=…``: read here, without torch.

Its prediction is made elsewhere, where torch is; ``case_table`` makes a table of the answers.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.telling.text import listed
from workbench.visual.tokens import (
    front_end_of,
    parse_resolution,
    tokens_of_image,
    tokens_of_video,
)
from workbench.vocabulary.cell import Cell, make_cell
from workbench.vocabulary.errors import Faults, RequestError, unknown_name
from workbench.vocabulary.fields import MAX_TOKENS
from workbench.vocabulary.systems import label
from workbench.vocabulary.units import count_of, plural

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
FUSED = ("flash", "cudnn", "flex")
"""Kernels that a fused column chooses from: flex serves the models that the other two do not."""
SYSTEMS: tuple[tuple[str, tuple[str, ...], int | None], ...] = (
    ("s_attn", ("eager",), None),
    ("s_attn", FUSED, None),
    ("d_attn", FUSED, None),
    ("d_attn", FUSED, 8192),
)
"""Attention, kernels to choose from, chunk: a column each, both baselines first."""
MAX_CARDS = 1_000_000
_PRICE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([A-Za-z$€£¥]{1,4})")


@dataclass(frozen=True)
class Case:
    """What the reader trains, on what, and what that costs an hour."""

    model: str = "mistral-7b-v0.3"
    visual: int = 0
    beside: int = 0
    """Those of ``visual`` that are of images beside a video."""
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

    def systems(self) -> list[list[Cell]]:
        """Training steps: checkpoints, logits of text, ZeRO 3 over the cards.

        A list a system, with a cell for each kernel that it may choose.
        """
        return [
            [self._cell(attention, kernel, chunk) for kernel in kernels]
            for attention, kernels, chunk in SYSTEMS
        ]

    def _cell(self, attention: str, kernel: str, chunk: int | None) -> Cell:
        sharded = {"zero": 3, "world_size": self.gpus} if self.gpus > 1 else {}
        return make_cell(
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

    @property
    def name(self) -> str:
        """'D-Attn · cudnn · chunk 8,192'."""
        words = f"{label('attention', self.cell.attention)} · {self.cell.kernel}"
        return f"{words} · chunk {self.cell.chunk:,}" if self.cell.chunk else words

    @property
    def timed(self) -> float | None:
        """Seconds of an iteration where it fits: what does not fit takes no time."""
        return self.seconds if self.status == "ok" else None


def read_case(
    text: str, wrong_names: Callable[[str, str], Iterable[str]] = lambda model, device: ()
) -> Case:
    """The case of ``name=value,…``; raises RequestError with every name and value that is wrong.

    ``wrong_names`` says what is wrong with the name of a model and of a device: the torch half
    knows them.
    """
    faults = Faults()
    texts: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            faults.add(f"case {part[:60]!r}: write name=value, such as gpus=32")
        elif name not in KEYS:
            faults.add(str(unknown_name("case's name", name[:60], KEYS)))
        elif name in texts:
            faults.add(f"case {name}: is given twice")
        else:
            texts[name] = value
    fields: dict[str, Any] = {name: texts[name] for name in ("model", "device") if name in texts}
    case = Case(**fields)
    unread = bool(faults)  # What could not be read may say how many tokens there are.
    for name in ("text", "steps", "gpus"):
        with faults:
            most = MAX_CARDS if name == "gpus" else MAX_TOKENS
            fields[name] = _count(texts, name, getattr(case, name), most)
    with faults:
        fields["price"], fields["currency"] = _price(texts.get("price"))
    unknown = list(wrong_names(case.model, case.device))
    is_known = not any(repr(case.model) in line for line in unknown)
    with faults:
        fields |= _tokens(case.model if is_known else None, texts, unread)
    faults.add(*unknown)
    faults.raise_all()
    return Case(**fields)


def _count(texts: dict[str, str], name: str, default: int, most: int = MAX_TOKENS) -> int:
    text = texts.get(name)
    if text is None:
        return default
    plain = text.replace("_", "")
    count = int(plain) if plain.isdecimal() and len(plain) < 30 else count_of(text)
    if count is None or not 1 <= count <= most:
        raise RequestError(f"case {name}={text[:40]}: a whole number from 1 to {most:,}")
    return count


def _tokens(model: str | None, texts: dict[str, str], unread: bool) -> dict[str, Any]:
    """|V|, what it is of, the images' part of it beside a video, and the tokens of a minute.

    Of an ``unread`` text no count is missed; without a model the values are only checked.
    """
    faults = Faults()
    sizes: dict[str, int] = {}
    amounts = [name for name in ("visual", "images", "frames") if name in texts]
    for name in amounts:
        with faults:
            sizes[name] = _count(texts, name, 1)
    if ("visual" in amounts and len(amounts) > 1) or not (amounts or unread):
        faults.add("case: give visual=N, or images=N, frames=N or both of these")
    with faults:
        width, height = parse_resolution(texts.get("resolution", "1344x896"))
    rate = texts.get("fps", "1")
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", rate) or not 0 < float(rate) <= 120:
        faults.add(f"case fps={rate[:40]}: a number above 0, at most 120")
    faults.raise_all()
    if not sizes or model is None:
        return {}
    try:
        front = front_end_of(model, offline=True)
    except RequestError:
        if "visual" not in sizes:
            raise
        return {"visual": sizes["visual"], "shown": f"{sizes['visual']:,} visual tokens"}
    minute = tokens_of_video(front, width, height, max(1, round(3600 * float(rate)))) / 60
    if "visual" in sizes:
        count = sizes["visual"]
        return {
            "visual": count,
            "shown": f"{count:,} visual tokens",
            "tokens_of_a_minute": minute,
        }
    still = sizes.get("images", 0) * tokens_of_image(front, width, height)
    frames = sizes.get("frames", 0)
    visual = still + (tokens_of_video(front, width, height, frames) if frames else 0)
    words = listed([plural(count, name[:-1]) for name, count in sizes.items()])
    if visual > MAX_TOKENS:
        raise RequestError(f"case: {words} are {visual:,} tokens; at most {MAX_TOKENS:,}")
    return {
        "visual": visual,
        "shown": f"{words} of {width}x{height}, {visual:,} visual tokens",
        "beside": still if frames else 0,
        "tokens_of_a_minute": minute,
    }


def _price(text: str | None) -> tuple[float | None, str]:
    if text is None:
        return None, ""
    match = _PRICE.fullmatch(text)
    if match is None:
        raise RequestError(
            f"case price={text[:40]}: a number below a billion with its currency, such as 2.5EUR"
        )
    return float(match[1]), match[2]
