"""Which kernel? The kernels of each system against each other."""

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import pandas as pd

from workbench.analysis import host_bound, legend, letters, marks, together
from workbench.figures import quantity
from workbench.report.question import QUESTIONS, Answer, Front, Question
from workbench.telling.material import Material, Subject
from workbench.telling.page import Table
from workbench.telling.sentences import at_place, place, places, ratio_words
from workbench.telling.text import listed
from workbench.vocabulary.units import plural

LINE = ["attention", "fold", "chunk", "skip_last", "tiled", "compile"]
"""What must agree for two cells to differ in their kernel only."""


def several_kernels(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of systems that ran, or were refused, under at least two kernels."""
    groups = frame.groupby(["model", "scope", "pass", "source", "device", *LINE], dropna=False)
    return frame[groups["kernel"].transform("nunique") > 1]


MOST = 6
"""Sizes of the first page's table."""


class Race(NamedTuple):
    """The kernels of one system of one subject and place."""

    subject: Subject
    source: str
    device: str
    system: str
    rows: pd.DataFrame
    """Every cell of the system."""
    cells: pd.DataFrame
    """What ran and was timed at a |V| that two kernels share, by |V| and then seconds."""

    @property
    def what(self) -> str:
        """Subject and place."""
        return f"{self.subject.title}, {place(self.source, self.device)}"

    @property
    def marks(self) -> str:
        """', power-capped, host-bound': the marks of its cells; empty without any."""
        words = together(marks(row) for row in self.cells.to_dict("records"))
        return f", {words}" if words else ""

    @property
    def sizes(self) -> list[int]:
        """Every |V| at which at least two kernels were timed."""
        return sorted(self.cells["num_visual"].unique().tolist())

    def at(self, num_visual: int) -> pd.DataFrame:
        """The kernels of one |V|, the fastest first."""
        return self.cells[self.cells["num_visual"] == num_visual]


def _races(material: Material) -> Iterator[Race]:
    """The systems with a choice, the subject that says most first."""
    for subject in material.spoken:
        for source, device in places(subject.rows):
            rows = at_place(subject.rows, source, device)
            rows = rows.assign(host_bound=host_bound(rows))
            for _, own in rows.groupby(LINE, dropna=False):
                ran = own[(own["status"] == "ok") & own["time_s"].notna()]
                several = ran.groupby("num_visual")["kernel"].transform("nunique") > 1
                cells = ran[several].sort_values(["num_visual", "time_s"])
                if len(cells):
                    name = str(own["series"].iloc[0]).replace(f" · {own['kernel'].iloc[0]}", "")
                    yield Race(subject, source, device, name, own, cells)


def _longest(material: Material) -> Race | None:
    """The race over most sizes, which the answer is of; None without one."""
    return max(_races(material), key=lambda each: len(each.sizes), default=None)


def front(material: Material) -> Front | None:
    """The kernels of that race, and the seconds of each by |V|."""
    race = _longest(material)
    if race is None:
        return None
    sizes = race.sizes
    last = len(sizes) - 1
    some = sorted({sizes[round(last * step / (MOST - 1))] for step in range(MOST)})
    kernels = race.cells["kernel"].drop_duplicates().tolist()
    rows = []
    for size in some:
        cells = {row["kernel"]: row for row in race.at(size).to_dict("records")}
        seconds = [
            f"{quantity(cells[name]['time_s'], 's')}{letters(marks(cells[name]))}"
            if name in cells
            else "–"
            for name in kernels
        ]
        first, second, *_ = cells
        times = cells[second]["time_s"] / cells[first]["time_s"]
        best = f"{first}, {ratio_words(times)}× as fast as {second}"
        rows.append((f"{size:,}", *seconds, best))
    note = legend(marks(row) for row in race.cells.to_dict("records"))
    note += f" {len(some)} of {len(sizes)} sizes." if len(some) < len(sizes) else ""
    columns = ("|V|", *(f"{race.system} · {name}" for name in kernels), "the fastest")
    table = Table("Seconds per iteration", columns, tuple(rows), note.strip())
    names = race.rows["series"].unique().tolist()
    return Front(race.subject, race.source, race.device, names, table)


def headline(material: Material) -> Table | None:
    """The kernels at every |V| that two of them ran, the fastest first."""
    rows = [
        (
            race.what,
            race.system,
            f"{size:,}",
            cell["kernel"],
            quantity(cell["time_s"], "s"),
            f"{ratio_words(cell['time_s'] / race.at(size)['time_s'].min())}×",
            quantity(cell["peak_bytes"], "B"),
            together([marks(cell)]),
        )
        for race in _races(material)
        for size in race.sizes
        for cell in race.at(size).to_dict("records")
    ]
    columns = (
        "what",
        "system",
        "at |V|",
        "kernel",
        "s/it",
        "over the fastest",
        "peak memory",
        "marks",
    )
    return Table("Headline", columns, tuple(rows)) if rows else None


def answer(material: Material) -> Answer:
    """The fastest kernel by size, each pair at its largest |V|, and those that refused."""
    race = _longest(material)
    frame = material.frame
    unsupported = frame[frame["status"] == "unsupported"]
    third = (
        f"{plural(len(unsupported), 'cell')} refused by"
        f" {listed(sorted(unsupported['kernel'].unique()))}; the reasons are below."
        if len(unsupported)
        else "No kernel refused a cell."
    )
    if race is None:
        lacking = "No two kernels of one system were timed at one |V|, so"
        return f"{lacking} none is called faster.", f"{lacking} no pair is compared.", third
    waits = sorted(race.cells.loc[race.cells["host_bound"], "num_visual"].unique().tolist())
    host_bound = f"; at {listed([f'{at:,}' for at in waits])} some are host-bound" if waits else ""
    first = f"The fastest kernel of {race.system} by |V|: {listed(_stretches(race))}{host_bound}"
    where = f"({race.what}{race.marks})"
    return f"{first} {where}.", f"{_pairs(race)} {where}.", third


def _stretches(race: Race) -> list[str]:
    """'flash at 256 to 1,024', 'cudnn at 4,096 to 65,536'."""
    stretches: list[list[int]] = []
    names: list[str] = []
    for size in race.sizes:
        best = str(race.at(size)["kernel"].iloc[0])
        if not names or names[-1] != best:
            names.append(best)
            stretches.append([])
        stretches[-1].append(size)
    return [
        f"{name} at {sizes[0]:,}" + (f" to {sizes[-1]:,}" if len(sizes) > 1 else "")
        for name, sizes in zip(names, stretches, strict=True)
    ]


def _pairs(race: Race) -> str:
    """Each two kernels at the largest |V| of both."""
    words = []
    for one, other in combinations(sorted(race.cells["kernel"].unique()), 2):
        both = [size for size in race.sizes if {one, other} <= set(race.at(size)["kernel"])]
        if not both:
            continue
        seconds = race.at(both[-1]).set_index("kernel")["time_s"]
        quick, slow = sorted((one, other), key=lambda name: float(seconds[name]))
        words.append(
            f"{quick} {ratio_words(seconds[slow] / seconds[quick])}× as fast as {slow} at"
            f" {both[-1]:,}"
        )
    return f"At the largest |V| of each pair: {listed(words)}"


QUESTIONS.add(
    "kernel-choice",
    Question(
        title="Which kernel should it run on?",
        fill="probes/default.py",
        answer=answer,
        headline=headline,
        front=front,
        keep=several_kernels,
    ),
)
