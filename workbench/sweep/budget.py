"""A sweep's own minutes: what they have no room for is noted on its run and left out after that.

The note is one that people can read, change and take away: a run without it is gone on with.
"""

from collections.abc import Iterable, Sequence

from workbench.store import Store
from workbench.store.notes import MAX_TEXT, Note
from workbench.store.notes import OUT_OF_MINUTES as TAG
from workbench.sweep.plan import Task


def is_spent(store: Store, run: str) -> bool:
    """Whether an earlier call came to the end of the sweep's minutes."""
    return TAG in store.notes().get((run, "", "", ""), Note()).tags


def note_dropped(store: Store, run: str, minutes: float | None, left: Sequence[Task]) -> None:
    """Say on the run which tasks its minutes had no room for; for none, no longer say it."""
    of = (run, "", "", "")
    previous = store.notes().get(of, Note())
    lines = [line for line in previous.text.splitlines() if not line.startswith(f"{TAG}: ")]
    tags = [tag for tag in previous.tags if tag != TAG]
    if left:
        room = MAX_TEXT - sum(len(line) + 1 for line in lines)
        words = f"{TAG}: {minutes:g} minutes had no room for {described(left)}"
        lines.append(words if len(words) <= room else f"{words[: room - 1]}…")
        tags.append(TAG)
    note = Note("\n".join(lines), tuple(tags))
    if note != previous:
        store.write_note(of, note.text, note.tags)


def described(tasks: Iterable[Task]) -> str:
    """'3 cells: d_attn sdpa train |V| = 512, 1,024; s_attn sdpa train |V| = 1,024'."""
    kinds: dict[str, list[int]] = {}
    for task in tasks:
        cell = task.point.cell
        where = "" if task.point.source == "measured" else f"{task.device_name} "
        name = f"{where}{cell.attention} {cell.kernel} {cell.scope} {cell.pass_}"
        kinds.setdefault(name, []).append(cell.num_visual)
    count = sum(map(len, kinds.values()))
    lines = [
        f"{name} |V| = {', '.join(f'{size:,}' for size in sorted(sizes))}"
        for name, sizes in sorted(kinds.items())
    ]
    return f"{count} cell{'s' * (count != 1)}: {'; '.join(lines)}"
