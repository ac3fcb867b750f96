"""What predicted seconds rest on, as flags of a record say it, in plain words."""

import re

WORDS = {
    "calibrated": "fitted to measurements",
    "uncalibrated": "fitted to no measurement",
    "carried": "from another card",
    "beyond_calibration": "extrapolated",
    "stand_in": "taken from another operator",
    "host_bound": "host-bound",
}
"""Flags that say where predicted seconds come from and how far they can be off."""
_STAND_IN = re.compile(r"(?P<of>.+) is not calibrated; (?:the rate of )?(?P<as>.+) stands in")


def trust(flag: str) -> str | None:
    """'extrapolated: communication was not measured' of a flag of WORDS, None of another one."""
    name, _, reason = flag.partition(": ")
    if name not in WORDS:
        return None
    if name == "stand_in" and (match := _STAND_IN.fullmatch(reason)):
        nearest = _operator(match["as"]).rstrip(",")
        return f"{_operator(match['of'])} was not measured: taken to be as fast as {nearest}"
    return f"{WORDS[name]}: {reason.replace('time_s', 'the time')}"


def _operator(name: str) -> str:
    """'attention flash bfloat16 backward' as 'flash attention, backward', 'matmul bfloat16' as
    'matmuls'; anything else as it is.
    """
    kind, *rest = name.split()
    if kind == "attention" and len(rest) in (2, 3):
        return f"{rest[0]} attention" + (", backward," if rest[2:] else "")
    return "matmuls" if kind == "matmul" and len(rest) == 1 else name
