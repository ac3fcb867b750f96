"""What the doctor says of one thing."""

from typing import NamedTuple


class Finding(NamedTuple):
    """One thing that was looked for. ``cost_if_missing`` and ``fix`` hold in either case."""

    name: str
    ok: bool
    detail: str
    cost_if_missing: str
    fix: str
