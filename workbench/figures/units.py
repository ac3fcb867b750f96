"""Numbers as people read them: SI for FLOPs and seconds, binary prefixes for bytes."""

import math

AXIS_UNITS = {"FLOP": ("TFLOP", 1e12), "B": ("GiB", 2.0**30), "s": ("s", 1.0), "1": ("", 1.0)}
"""A metric's unit to the unit on its axis and how many base units that is."""

_SI = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_SMALL = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"))
_BINARY = ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"))


def digits(value: float, significant: int = 3) -> str:
    """``value`` to so many significant digits, never in scientific notation below a million."""
    if value == 0:
        return "0"
    if abs(value) >= 1e6 or abs(value) < 1e-4:
        return f"{value:.{significant - 1}e}"
    places = max(0, significant - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _prefixed(value: float, steps: tuple[tuple[float, str], ...], significant: int) -> str:
    for factor, prefix in steps:
        if abs(value) >= factor * (1 - 5 * 10 ** -(significant + 1)):
            return f"{digits(value / factor, significant)} {prefix}"
    factor, prefix = steps[-1]
    return f"{digits(value / factor, significant)} {prefix}"


def quantity(value: float | None, unit: str, significant: int = 3) -> str:
    """``value`` with the prefix that suits it: '12.3 TFLOP', '3.42 GiB', '12.3 ms', '1,024'.

    ``unit`` is a metric's: FLOP, B, s, J, W or 1. A missing value is 'n/a'.
    """
    if value is None or math.isnan(value):
        return "n/a"
    if unit == "1":
        whole = float(value).is_integer() and abs(value) < 1e15
        return f"{int(value):,}" if whole else digits(value, significant)
    if value == 0:
        return f"0 {unit}"
    if unit == "B":
        if abs(value) < 2**10:
            return f"{digits(value, significant)} B"
        return _prefixed(value, _BINARY, significant)
    steps = _SMALL if abs(value) < 1 else _SI
    if unit == "s":
        # Kiloseconds are nobody's unit, and the axis is in seconds.
        steps = _SMALL
    return _prefixed(value, steps, significant) + unit
