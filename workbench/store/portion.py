"""How much of a store one table may take: all of it, or its newest runs where that is too much."""

from collections.abc import Callable
from typing import Any, NamedTuple

MOST_BYTES = 2**30
"""Bytes of memory that a table of records may cost while it is built."""
ROW_BYTES = 2_000
"""Bytes of a record in a table, without its texts: 80 columns, half of them Python objects."""
CHARACTER_BYTES = 4
"""Bytes of a character in memory at worst."""
SMALL = 16 * 2**20
"""Bytes of a file that needs no look: whatever is in it costs less."""

Query = Callable[..., list[tuple[Any, ...]]]
"""SQL and its values to rows."""

_TEXTS = ("key", "source", "device", "status", "started_at", "cell", "metrics", "flags", "error")
_COSTS = f"""
    SELECT runs.id, runs.name, count(records.id),
        sum({" + ".join(f"ifnull(length(records.{name}), 0)" for name in _TEXTS)})
    FROM runs JOIN records ON runs.id = records.run_id GROUP BY runs.id ORDER BY runs.id DESC
"""


class Portion(NamedTuple):
    """Which records a table takes."""

    where: str
    """A condition on ``records``; empty for all."""
    left_out: str | None
    """What it leaves out, as a sentence; None for nothing."""


def portion(query: Query, size: int, run_id: int | None = None) -> Portion:
    """Of all runs, or of the one, what fits into MOST_BYTES; ``size`` is the file's.

    The newest runs are taken whole; of a run that alone is too large, its newest records.
    """
    # The sign keeps SQLite off the index by run, which would have it sort whole rows by id.
    every = "" if run_id is None else f"+records.run_id = {run_id}"
    if size <= SMALL:
        return Portion(every, None)
    costs = [row for row in query(_COSTS) if run_id in (None, row[0])]
    room, records = MOST_BYTES, 0
    numbers: list[int] = []
    for number, _, count, characters in costs:
        cost = ROW_BYTES * count + CHARACTER_BYTES * (characters or 0)
        if cost > room:
            break
        numbers.append(number)
        room, records = room - cost, records + count
    if len(numbers) == len(costs):
        return Portion(every, None)
    total = sum(count for _, _, count, _ in costs)
    whole = f"a table of all {total:,} records would take more than {MOST_BYTES:,} bytes"
    if numbers:
        return Portion(
            f"+records.run_id IN ({', '.join(map(str, numbers))})",
            f"{whole}: only the newest {len(numbers):,} of {len(costs):,} runs are read, "
            f"{records:,} records",
        )
    number, name, count, characters = costs[0]
    most = int(MOST_BYTES / (ROW_BYTES + CHARACTER_BYTES * characters / count))
    last = "SELECT id FROM records WHERE +run_id = ? ORDER BY id DESC LIMIT 1 OFFSET ?"
    (first,) = query(last, (number, most))[0]
    return Portion(
        f"+records.run_id = {number} AND records.id > {first}",
        f"{whole}: only the newest {most:,} records of the newest run {name} are read",
    )
