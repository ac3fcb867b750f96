"""Who wins, by how much, at which sizes: the sentences on top of a report and of each page."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from workbench.analysis import (
    beside_emulation,
    fit,
    limits,
    marks,
    short_names,
    systems_of,
    together,
)
from workbench.figures import in_order, quantity
from workbench.telling.fits import growth_words
from workbench.telling.material import Subject
from workbench.telling.sentences import (
    BASELINES,
    RAN,
    Pair,
    Row,
    at_place,
    both_marks,
    challengers,
    emulated,
    no_ratio,
    of_points,
    pairs_at,
    place,
    places,
    ratio_text,
    ratio_words,
    shared_options,
    turning,
)
from workbench.telling.text import listed

FIRST = "d_attn"
"""The system that is spoken of first where it is there."""


class Verdict:
    """One system of one place against both baselines: three sentences, each from the data."""

    def __init__(
        self, rows: pd.DataFrame, pairs: Sequence[Pair], where: str, system: str | None = None
    ) -> None:
        self.rows, self.where = rows, where
        self.system = system or first_system(rows)
        self.pairs = [pair for pair in pairs if pair["time_s"]["series"] == self.system]
        self.compared = [pair for pair in self.pairs if not pd.isna(pair["time_s"]["ratio"])]
        """Those of ``pairs`` in which both took a time."""
        self._short = short_names(in_order(rows))
        self._options = shared_options(in_order(rows))

    def name(self, series: str) -> str:
        """A series without the options that all have, which ``_place`` names."""
        return self._short.get(series, series)

    def _place(self, more: str = "") -> str:
        return f"({self.where}{self._options}{more})"

    def top(self) -> str:
        """Who wins, by how much, at which sizes, against eager and the fastest fused."""
        compared = self.compared
        if self.system is None or not compared:
            return self.speed()
        sizes = sorted({int(pair["time_s"]["num_visual"]) for pair in compared})
        parts = []
        fused: set[str] = set()
        for size in sizes:
            words = []
            for row in (pair["time_s"] for pair in compared):
                if int(row["num_visual"]) != size:
                    continue
                name, is_fused = row["baseline_series"], row["baseline"] == "fused"
                why = " (the fastest fused)" if is_fused and name not in fused else ""
                fused |= {name} if is_fused else set()
                words.append(f"{ratio_words(row['ratio'])}× as fast as {self.name(name)}{why}")
            parts.append(f"{listed(words)} at |V| = {size:,}")
        return f"{self.name(self.system)} is {'; '.join(parts)}."

    def basis(self) -> str:
        """What the figures of ``top`` are of: the place, the options that all share, the marks."""
        compared = self.compared
        if not compared:
            return ""
        return self._place(_marked(compared) + emulated(self._cells(compared)))[1:-1]

    def utilization(self) -> str | None:
        """MFU by allowed pairs at the largest |V| that system and fused baseline share."""
        for pair in self.pairs:
            row = pair["time_s"]
            if row["baseline"] != "fused" or row["size"] != "largest" or pd.isna(row["ratio"]):
                continue
            cells = self._cells([pair])
            cells = cells[cells["num_visual"] == row["num_visual"]]
            how = emulated(cells)
            cells = cells.drop_duplicates("series", keep="last").set_index("series")
            words = [
                f"{self.name(name)} {_share(cells.loc[name, 'mfu_causal'])} (dense count"
                f" {_share(cells.loc[name, 'mfu'])})"
                for name in (row["series"], row["baseline_series"])
                if name in cells.index and not pd.isna(cells.loc[name, "mfu_causal"])
            ]
            if words:
                return (
                    f"MFU by allowed pairs at |V| = {row['num_visual']:,}: {listed(words)}"
                    f" {self._place(_marked([pair]) + how)}."
                )
        return None

    def speed(self) -> str:
        """At each size the system's seconds, and how many times as fast it is as a baseline."""
        if self.system is None:
            return (
                f"There is no system besides S-Attn here, so nothing is compared {self._place()}."
            )
        compared = self.compared
        lacking = self.lacking(compared)
        if not compared:
            why = self._untimed() or listed(lacking)
            return f"{self.name(self.system)} is compared with nothing: {why} {self._place()}."
        sizes = sorted({int(pair["time_s"]["num_visual"]) for pair in compared})
        parts = [self._at(size, compared) for size in sizes]
        rest = f"; {listed(lacking)}" if lacking else ""
        cells = self._cells(compared)
        return (
            f"{self.name(self.system)} takes {'; '.join(parts)}{rest}"
            f" {self._place(_marked(compared) + emulated(cells))}."
        )

    def lacking(self, compared: Sequence[Pair]) -> list[str]:
        """Each baseline that no pair is against: 'S-Attn with a fused kernel is missing', or that
        it never ran, or fitted, or shares no |V| with the system, where there are cells of it.
        """
        against = {pair["time_s"]["baseline"] for pair in compared}
        there, fine = _baselines(self.rows), _baselines(self.rows[self.rows["status"] == "ok"])
        ran = RAN[str(self.rows["source"].iloc[0])]
        words = []
        for name, baseline in BASELINES.items():
            if name in against:
                continue
            if name in fine:
                words.append(f"{baseline} shares no |V| with it at which both {ran}")
            elif name in there:
                words.append(f"no cell of {baseline} {'fits' if ran == 'fit' else ran}")
            else:
                words.append(f"{baseline} is missing")
        return words

    def _untimed(self) -> str:
        """Where system and baseline were timed by the host alone."""
        waits = [pair for pair in self.pairs if pair["time_s"]["waits"]]
        return "the host set the pace wherever both were timed" if waits else ""

    def _cells(self, compared: Sequence[Pair]) -> pd.DataFrame:
        """The records that the sentence is of."""
        names = {
            (name, int(pair["time_s"]["num_visual"]))
            for pair in compared
            for name in (pair["time_s"]["series"], pair["time_s"]["baseline_series"])
        }
        return of_points(self.rows, names)

    def _at(self, size: int, compared: Sequence[Pair]) -> str:
        here = [pair["time_s"] for pair in compared if int(pair["time_s"]["num_visual"]) == size]
        words = []
        for row in here:
            kind = ", the fastest fused" if row["baseline"] == "fused" else ""
            words.append(
                f"{ratio_text(row)} as fast as {self.name(row['baseline_series'])}{kind}"
                f" ({quantity(row['baseline_value'], 's')})"
            )
        return f"{quantity(here[0]['value'], 's')} at |V| = {size:,}: {listed(words)}"

    def reach(self) -> str | None:
        """How many visual tokens the system took beside each baseline; None where none ended."""
        largest = {
            pair["time_s"]["baseline"]: pair["time_s"]
            for pair in self.pairs
            if pair["time_s"]["size"] == "largest"
        }
        thresholds = {
            name: row for name, row in largest.items() if not pd.isna(row["baseline_fails_at"])
        }
        if not thresholds:
            return None
        first = next(iter(thresholds.values()))
        bound: str = "at least " if pd.isna(first["fails_at"]) else ""
        words = [
            f"{bound}{ratio_words(row['visual_ratio'])}× the {row['baseline_max_visual']:,} of"
            f" {self.name(row['furthest_series'])}"
            + (", the furthest fused" if name == "fused" else "")
            for name, row in thresholds.items()
        ]
        table = limits(self.rows).dropna(subset=["max_visual"])
        beyond = table[
            (table["max_visual"] > first["max_visual"]) & (table["attention"] != "s_attn")
        ]
        rest = [
            f"{self.name(str(row['series']))} up to {row['max_visual']:,}"
            for row in beyond.sort_values("max_visual").to_dict("records")
        ]
        also = f"; {listed(rest)}" if rest else ""
        names = {
            str(self.system),
            *(row["furthest_series"] for row in thresholds.values()),
            *beyond["series"],
        }
        cells = self._furthest(names)
        still = "fit" if str(self.rows["source"].iloc[0]) == "predicted" else "ran"
        return (
            f"{self.name(str(self.system))} {still} up to |V| = {first['max_visual']:,}, "
            f"{listed(words)}{also} {self._place(emulated(cells))}."
        )

    def ends_of(self, row: Row) -> list[Any]:
        """The flags of the cells that the reach of a system and of its baseline stand on."""
        cells = self._furthest({row["series"], row["furthest_series"]})
        return list(cells["flags"])

    def _furthest(self, named: set[str]) -> pd.DataFrame:
        """The largest cell that ran of each named series."""
        ran = self.rows[(self.rows["status"] == "ok") & self.rows["series"].isin(named)]
        return ran.sort_values("num_visual").drop_duplicates("series", keep="last")

    def growth(self, fits: pd.DataFrame | None = None) -> str:
        """What four times the tokens take, of the system and its baselines.

        ``fits`` are those of the rows, where they are at hand.
        """
        if fits is None:
            fits, _ = fit(self.rows, ["time_s"])
        fits = fits[fits["metric"] == "time_s"]
        names = {str(self.system), *(pair["time_s"]["baseline_series"] for pair in self.pairs)}
        growing = fits[fits["growth"].notna()]
        growing = growing[growing["series"].isin(names)] if self.system else growing
        if growing.empty:
            return (
                "How the seconds grow with |V| is open: no system was timed at two sizes that tell"
                f" of its method {self._place()}."
            )
        lines = {str(row["series"]): row for row in growing.to_dict("records")}
        words = [_grown(self.name(name), lines[name]) for name in in_order(growing)]
        return (
            f"Four times the tokens take {listed(words)}; ×4 is linear, ×16"
            f" quadratic{self._left_out(lines)} {self._place(self._marks_of(lines))}."
        )

    def _left_out(self, lines: Mapping[str, Mapping[Any, Any]]) -> str:
        """The |V| that a fit left out; by system where a point tells of one and not of another."""
        sizes: dict[tuple[int, ...], list[str]] = {}
        for name, row in lines.items():
            if excluded := tuple(sorted(row["host_bound"])):
                sizes.setdefault(excluded, []).append(self.name(name))
        everywhere = len(sizes) == 1 and len(next(iter(sizes.values()))) == len(lines)
        words = [
            listed([f"{at:,}" for at in excluded]) + ("" if everywhere else f" of {listed(names)}")
            for excluded, names in sizes.items()
        ]
        return f"; left out as host-bound: {'; '.join(words)}" if words else ""

    def growth_marks(self, name: str, row: Mapping[Any, Any]) -> str:
        """The marks of the two points that one line's growth is of; empty without any."""
        return together(marks(cell) for cell in self._grown_of({name: row}).to_dict("records"))

    def _marks_of(self, lines: Mapping[str, Mapping[Any, Any]]) -> str:
        """The marks of all of these points, and how they were emulated."""
        cells = self._grown_of(lines)
        others = beside_emulation(marks(row) for row in cells.to_dict("records"))
        return "".join(f", {word}" for word in others) + emulated(cells)

    def _grown_of(self, lines: Mapping[str, Mapping[Any, Any]]) -> pd.DataFrame:
        """The records of the two points that each line's growth is of."""
        ends = {
            (name, int(row[end]))
            for name, row in lines.items()
            for end in ("grows_from", "grows_to")
        }
        cells = of_points(self.rows, ends)
        return cells.loc[cells["time_s"].notna(), ["flags", "num_samples"]]

    def peaks(self) -> str | None:
        """The peaks of system and baselines at the largest |V| that all of them ran."""
        names = telling_systems(self.rows)[:3]
        ran = self.rows[(self.rows["status"] == "ok") & self.rows["peak_bytes"].notna()]
        ran = ran[ran["series"].isin(names)]
        counts = ran.groupby("num_visual")["series"].nunique()
        if counts.empty or counts.max() < 2:
            return None
        at = int(counts[counts == counts.max()].index.max())
        cells = ran[ran["num_visual"] == at].drop_duplicates("series", keep="last")
        cells = cells.sort_values("peak_bytes", ascending=False)
        words = [
            f"{quantity(row['peak_bytes'], 'B')} with {self.name(row['series'])}"
            for row in cells.to_dict("records")
        ]
        return f"At |V| = {at:,} the peak is {listed(words)} {self._place(emulated(cells))}."

    def turns(self) -> list[str]:
        """Who is faster at which |V|, against each baseline."""
        sentences = []
        for pair in self.pairs:
            row = {**pair["time_s"], "series": self.name(pair["time_s"]["series"])}
            words = turning(row) if row["size"] == "largest" else ""
            if row["waits"] and pd.isna(row["ratio"]):
                words = no_ratio(row)
            if words:
                sentences.append(f"{words} {self._place()}.")
        return sentences


def verdict_of(subject: Subject) -> Verdict:
    """Of a subject's first place."""
    source, device = places(subject.rows)[0]
    rows, pairs = at_place(subject.rows, source, device), pairs_at(subject.pairs, source, device)
    return Verdict(rows, pairs, f"{subject.title}, {place(source, device)}")


def first_system(rows: pd.DataFrame) -> str | None:
    """The plainest series of D-Attn, else of any system but S-Attn; None without one."""
    names = challengers(rows)
    if not names:
        return None
    own = {series: attention for series, attention, _ in systems_of(rows)}
    timed = set(rows.loc[rows["time_s"].notna(), "series"].unique())
    return min(names, key=lambda name: (own[name] != FIRST, name not in timed, len(name), name))


def _baselines(rows: pd.DataFrame) -> set[str]:
    """Those of BASELINES that the rows have a cell of."""
    kernels = rows.loc[rows["attention"] == "s_attn", "kernel"].unique()
    return {"eager" if kernel == "eager" else "fused" for kernel in kernels}


def _share(value: Any) -> str:
    return "unknown" if pd.isna(value) else f"{100 * float(value):.0f} %"


def telling_systems(rows: pd.DataFrame) -> list[str]:
    """Every series, those first that a comparison must not lack: D-Attn and the S-Attn kernels
    that went furthest, eager and fused.
    """
    table = limits(rows)
    reach = dict(zip(table["series"], table["max_visual"].fillna(0), strict=True))
    own = dict(zip(table["series"], table["attention"], strict=True))
    eager = {
        name: kernel == "eager"
        for name, kernel in zip(table["series"], table["kernel"], strict=True)
    }
    plain = [name for name in in_order(rows) if own[name] == "s_attn"]
    first = []
    for kind in (True, False):
        alike = [name for name in plain if eager[name] is kind]
        first += [max(alike, key=lambda name: (reach[name], -len(name)))] if alike else []
    system = first_system(rows)
    first += [system] if system else []
    return [*first, *(name for name in in_order(rows) if name not in first)]


def _grown(name: str, row: Mapping[Any, Any]) -> str:
    """'×6.83 the time with S-Attn · cudnn (16,384 to 65,536, quadratic)'."""
    factor, _, ends = growth_words(row).partition(" ")
    shape = "" if pd.isna(row["shape"]) else f", {row['shape']}"
    return f"{factor} the time with {name} {ends[:-1]}{shape})"


def _marked(pairs: Sequence[Pair]) -> str:
    """The marks of all figures of a sentence; how it was emulated is told apart."""
    others = beside_emulation([each for pair in pairs for each in both_marks(pair)])
    return "".join(f", {word}" for word in others)
