"""Numbers as people read them: SI for FLOPs and seconds, binary prefixes for bytes."""

import math
import re
from decimal import Decimal

COUNT_PATTERN = r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(?:([kKMG])|[eE]\+?([0-9]{1,2}))"
"""A whole number in short."""
_COUNT = re.compile(COUNT_PATTERN)
_TIMES = {"k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9}

SHORT_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "fp64": "float64"}

AXIS_UNITS = {"FLOP": ("TFLOP", 1e12), "B": ("GiB", 2.0**30), "s": ("s", 1.0), "1": ("", 1.0)}
"""A metric's unit to the unit on its axis and how many base units that is."""

_SI = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_SMALL = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"))
_BINARY = ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"))


def count_of(text: str) -> int | None:
    """The number that ``10k``, ``1.5M``, ``1G`` or ``1e6`` writes; None for any other text.

    A number that is not whole, such as ``1.5432k``, is another text.
    """
    match = _COUNT.fullmatch(text.strip())
    if match is None:
        return None
    times = _TIMES[match[2]] if match[2] else 10 ** int(match[3])
    value = Decimal(match[1]) * times
    return int(value) if value == value.to_integral_value() else None


def digits(value: float, significant: int = 3) -> str:
    """``value`` to so many significant digits, never in scientific notation below a million."""
    if value == 0:
        return "0"
    if abs(value) >= 1e6 or abs(value) < 1e-4:
        return f"{value:.{significant - 1}e}"
    places = max(0, significant - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _prefix(value: float, unit: str, significant: int) -> tuple[float, str]:
    """The factor and the prefixed unit in which ``value`` reads best."""
    if unit == "1":
        return 1.0, ""
    if unit.startswith("1/"):
        return 1.0, unit.removeprefix("1")
    if value == 0 or (unit == "B" and abs(value) < 2**10):
        return 1.0, unit
    steps: tuple[tuple[float, str], ...]
    if unit == "B":
        steps = _BINARY
    elif unit == "s" or abs(value) < 1:
        # Kiloseconds are nobody's unit, and the axis is in seconds.
        steps = tuple((factor, prefix + unit) for factor, prefix in _SMALL)
    else:
        steps = tuple((factor, prefix + unit) for factor, prefix in _SI)
    round_up = 1 - 5 * 10 ** -(significant + 1)
    return next((step for step in steps if abs(value) >= step[0] * round_up), steps[-1])


def quantity(value: float | None, unit: str, significant: int = 3) -> str:
    """``value`` with the prefix that suits it: '12.3 TFLOP', '3.42 GiB', '12.3 ms', '1,024'.

    ``unit`` is a metric's: FLOP, B, s, J, W, 1 or 1/s ('2,549 /s'). A missing value is 'n/a'.
    """
    if value is None or math.isnan(value):
        return "n/a"
    if unit == "1" and float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    factor, name = _prefix(value, unit, significant)
    return f"{digits(value / factor, significant)} {name}".rstrip()


def interval(value: float, low: float, high: float, unit: str, significant: int = 3) -> str:
    """'4.07 ms (3.9 to 4.2)': all three in the unit that suits ``value``."""
    factor, name = _prefix(value, unit, significant)
    ends = " to ".join(digits(end / factor, significant) for end in (low, high))
    return f"{digits(value / factor, significant)} {name}".rstrip() + f" ({ends})"


def plural(count: int, noun: str) -> str:
    """'1 sample', '3 samples'."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
