"""How a cell's LoRA adapters are written: ``--lora r=16,alpha=32,targets=q_proj+v_proj``."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from workbench.vocabulary.systems import written
from workbench.vocabulary.units import SHORT_DTYPES

ALL = "all-linear"
"""peft's word for every linear layer but the head."""
MAX_RANK = 65_536
DTYPES = ("bfloat16", "float16", "float32", "float64")


@dataclass(frozen=True)
class Lora:
    """Adapters of rank ``r`` beside the frozen linear layers of a decoder."""

    r: int = 8
    alpha: float = 8.0
    """The adapters' output is multiplied by alpha / r."""
    targets: tuple[str, ...] = ()
    """The names of the layers that are adapted; empty for all."""
    dtype: str | None = None
    """Data type of the adapters' weights; None is the cell's."""
    dropout: float = 0.0
    """Share of what enters an adapter that is dropped in training."""

    @property
    def scaling(self) -> float:
        """What the adapters' output is multiplied by."""
        return self.alpha / self.r


def canonical_lora(value: Any) -> str | None:
    """The one text that a cell keeps; None for no adapters. Raises ValueError for what is wrong.

    ``r`` has to be given; ``alpha`` is 8 unless it is, as in peft.
    """
    if value is None:
        return None
    values = dict[str, str]()
    for name, text in written(value, "r=16"):
        if name in values:
            raise ValueError(f"{name} is given twice")
        values[name] = text
    if "r" not in values:
        raise ValueError("r is missing: give the rank, such as r=16,alpha=32,targets=all-linear")
    adapters = _read(values)
    targets = "+".join(adapters.targets) or ALL
    dropout = f"dropout={adapters.dropout:g}," if adapters.dropout else ""
    dtype = f"dtype={adapters.dtype}," if adapters.dtype else ""
    return f"alpha={adapters.alpha:g},{dropout}{dtype}r={adapters.r},targets={targets}"


@lru_cache(maxsize=1024)
def lora_of(text: str) -> Lora:
    """The adapters of a cell's canonical text."""
    return _read(dict(written(text)))


def _read(given: dict[str, str]) -> Lora:
    unknown = next((name for name in given if name not in Lora.__dataclass_fields__), None)
    if unknown is not None:
        raise ValueError(f"{unknown}: lora has {', '.join(Lora.__dataclass_fields__)}")
    return Lora(
        r=_rank(given["r"]),
        alpha=_alpha(given.get("alpha", "8")),
        targets=_targets(given.get("targets", ALL)),
        dtype=_dtype(given.get("dtype")),
        dropout=_dropout(given.get("dropout", "0")),
    )


def _rank(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and 1 <= int(text) <= MAX_RANK):
        raise ValueError(f"r={text:.40}: a whole number from 1 to {MAX_RANK:,}")
    return int(text)


def _alpha(text: str) -> float:
    try:
        alpha = float(text)
    except ValueError:
        alpha = 0.0
    if not 0 < alpha <= 1e6:
        raise ValueError(f"alpha={text:.40}: a number above 0 and up to 1,000,000")
    return alpha


def _dropout(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise ValueError(f"dropout={text:.40}: a share from 0 to below 1")
    return share


def _targets(text: str) -> tuple[str, ...]:
    names = {name.strip() for name in text.split("+")} - {""}
    if ALL in names or not names:
        if len(names) > 1:
            raise ValueError(f"targets={text:.60}: {ALL} leaves nothing to name beside it")
        return ()
    wrong = next((name for name in names if not name.isidentifier()), None)
    if wrong is not None:
        raise ValueError(f"targets={text:.60}: names of layers with + between, or {ALL}")
    return tuple(sorted(names))


def _dtype(text: str | None) -> str | None:
    if text is None:
        return None
    name = SHORT_DTYPES.get(text, text)
    if name not in DTYPES:
        raise ValueError(f"dtype={text:.40}: one of {', '.join(DTYPES)}")
    return name
