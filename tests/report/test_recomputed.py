"""Every sentence with a number, recomputed from the data bundle by other code.

A sentence that no pattern here knows fails: whoever adds one adds how to check it.
"""

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.reference import STORE
from tests.report.bundle import QUANTITY, Bundle, count, value
from workbench.report.bundle import write_bundle
from workbench.report.contents import contents
from workbench.telling.page import Contents
from workbench.vocabulary.systems import entries

CASES = [
    ("like_default", "dattn-vs-sattn"),
    ("like_default", "will-it-fit"),
    ("like_default", "kernel-choice"),
    ("measured_only", "dattn-vs-sattn"),
    ("predicted_only", "dattn-vs-sattn"),
    ("all_statuses", "dattn-vs-sattn"),
    ("all_statuses", "kernel-choice"),
    ("one_cell", "dattn-vs-sattn"),
    ("one_cell", "will-it-fit"),
    ("three_systems", "himix"),
    ("paper", "dattn-vs-sattn"),
    ("later", "regression"),
]
Q = re.sub(r"\((?!\?)", "(?:", QUANTITY)
"""The same without groups."""
N = r"[\d,]+"
X = r"[\d.,]+"
TIMES = rf"(?P<x>{X})×(?: \((?P<low>{X}) to (?P<high>{X})\))?"
WHERE = (
    r"\((?:(?P<subject>[^()]+ · \w+ · \w+), )?(?P<source>measured on|predicted for)"
    r" (?P<device>[^(),]+?)(?:, a check)?"
)
MORE = r"(?:, [^()]*)?"
"""Options that all have, and marks, behind the place."""
OF = WHERE.replace(r"\(", r"\[", 1) + r"(?:, .*)?\]"
"""The same of a recommendation, which is of what the page's answer is of."""
ROUNDED = 6e-3
"""Three digits are told."""


def near(told: float, true: float) -> bool:
    """Whether a told number is the true one, rounded."""
    return told == pytest.approx(true, rel=ROUNDED)


class Check:
    """What a pattern gets: the match, the bundle, and the cells that the sentence is about."""

    def __init__(self, found: re.Match[str], bundle: Bundle, section: str) -> None:
        self.found, self.bundle, self.section = found, bundle, section
        facts = found.groupdict()
        if facts.get("source"):
            source = facts["source"].split()[0]
            self.rows = bundle.rows(facts.get("subject") or section, source, facts["device"])
            assert len(self.rows), found[0]

    def __getitem__(self, name: str) -> str:
        return self.found[name]


def ratio(check: Check, series: str, base: str, at: int, metric: str) -> float:
    """Baseline over system."""
    ours = check.bundle.cell(check.rows, series, at)
    theirs = check.bundle.cell(check.rows, base, at)
    return float(theirs[metric] / ours[metric])


def ran_at(check: Check, series: str) -> set[int]:
    """Every |V| that a system ran with, and was timed."""
    rows = check.rows
    ran = rows[(rows["status"] == "ok") & rows["time_s"].notna() & (rows["series"] == series)]
    return set(ran["num_visual"])


def fused(check: Check) -> dict[int, tuple[float, str]]:
    """The fastest S-Attn kernel but eager at each |V|: its seconds and its series."""
    rows = check.rows
    ran = rows[(rows["status"] == "ok") & rows["time_s"].notna()]
    ran = ran[(ran["attention"] == "s_attn") & (ran["kernel"] != "eager")]
    return {
        int(at): min((float(row["time_s"]), str(row["series"])) for _, row in own.iterrows())
        for at, own in ran.groupby("num_visual")
    }


def full(check: Check, name: str) -> str:
    """The series whose name without the options that all have is ``name``."""
    return shortened(check)[name]


def shortened(check: Check) -> dict[str, str]:
    """Each series by its name without the options that all have."""
    apart = {series: series.split(" · ") for series in check.rows["series"].unique()}
    common = set.intersection(*({*words[2:]} for words in apart.values()))
    common = common if len(apart) > 1 else set()
    return {
        " · ".join(w for i, w in enumerate(words) if i < 2 or w not in common): series
        for series, words in apart.items()
    }


def holds_marks(check: Check, cells: list[tuple[str, int]]) -> None:
    """A sentence names every mark of its cells, and no other."""
    rows = [check.bundle.cell(check.rows, name, at) for name, at in cells]
    flags = {flag.partition(":")[0] for row in rows for flag in row["flags"].split("; ")}
    words = {"power_capped": "power-capped", "no_warmup": "cold", "emulated": "emulated"}
    for flag, word in words.items():
        assert (flag in flags) == (re.search(rf"[,(] {word}", check.found[0]) is not None), word
    counts = [float(row["num_samples"]) for row in rows if not pd.isna(row.get("num_samples"))]
    few = [n for n in counts if 0 < n <= 3]
    told = re.search(r", (?:(\d) to )?(\d) samples?(?:,|\)|$)", check.found[0])
    assert bool(few) == (told is not None)
    if told:
        assert (float(told[1] or told[2]), float(told[2])) == (min(few), max(few))


def interval(check: Check, series: str, base: str, at: int) -> tuple[float, float]:
    """A bootstrap of the ratio of medians: other code than the report's order statistics."""
    pools = [
        np.array(check.bundle.samples[check.bundle.cell(check.rows, name, at).name])
        for name in (base, series)
    ]
    draw = np.random.default_rng(0)
    medians = [np.median(draw.choice(p, (4000, len(p))), axis=1) for p in pools]
    low, high = np.percentile(medians[0] / medians[1], [2.5, 97.5])
    return float(low), float(high)


def speed(check: Check) -> None:
    """The answer's first sentence: at one or two |V|, against eager and the fastest fused."""
    system = full(check, check["system"])
    pattern = (
        rf"{TIMES} as fast as (?P<base>[^()]+?)(?P<kind>, the fastest fused)? \((?P<theirs>{Q})\)"
    )
    cells, most = [], {"eager": 0, "fused": 0}
    for size in re.finditer(
        rf"(?P<own>{Q}) at \|V\| = (?P<at>{N}): (?P<rest>.*?)(?:; |$)", check["parts"]
    ):
        at = count(size["at"])
        assert near(value(size["own"]), check.bundle.cell(check.rows, system, at)["time_s"])
        parts = list(re.finditer(pattern, size["rest"]))
        assert parts
        for part in parts:
            base = full(check, part["base"])
            kind = "fused" if part["kind"] else "eager"
            assert (base == fused(check)[at][1]) if part["kind"] else " · eager" in base
            most[kind] = max(most[kind], at)
            assert near(value(part["theirs"]), check.bundle.cell(check.rows, base, at)["time_s"])
            assert near(
                float(part["x"].replace(",", "")), ratio(check, system, base, at, "time_s")
            )
            cells += [(system, at), (base, at)]
    eager = next((s for s in check.rows["series"].unique() if s.startswith("S-Attn · eager")), "")
    for kind, theirs in (("eager", ran_at(check, eager)), ("fused", set(fused(check)))):
        shared = ran_at(check, system) & theirs
        assert most[kind] == max(shared, default=0), kind
    holds_marks(check, cells)


def compared(check: Check) -> None:
    """A bullet: one system against one baseline."""
    system, base, at = check["system"], check["base"], count(check["at"])
    if check["kind"]:
        assert base == fused(check)[at][1]
        shared = ran_at(check, system) & set(fused(check))
    else:
        shared = ran_at(check, system) & ran_at(check, base)
    if check["largest"]:
        assert at == max(shared)
    else:
        assert at == min(shared, key=lambda v: abs(np.log(v / 9000)))
    assert near(float(check["x"].replace(",", "")), ratio(check, system, base, at, "time_s"))
    if check["low"]:
        low, high = interval(check, system, base, at)
        assert float(check["low"]) == pytest.approx(low, rel=0.05)
        assert float(check["high"]) == pytest.approx(high, rel=0.05)
    for name, series in (("own", system), ("theirs", base)):
        assert near(value(check[name]), check.bundle.cell(check.rows, series, at)["time_s"])
    costs = check["costs"] or ""
    for metric, word in (("peak_bytes", "peak memory"), ("flops", "FLOPs")):
        true = ratio(check, system, base, at, metric)
        told = re.search(rf"({X})× (less|more|fewer) {word}", costs)
        if told is None:
            assert f"the same {word}" in costs
            assert true == pytest.approx(1, abs=0.005)
        else:
            true = 1 / true if told[2] == "more" else true
            assert near(float(told[1].replace(",", "")), true)


def turns(check: Check) -> None:
    """Who is faster at which |V|."""
    text = check["text"]
    (system,) = {
        name
        for name in check.rows["series"].unique()
        if re.search(rf"{re.escape(name)} (?:is|from|at)", text)
    }
    base = (
        fused(check)
        if "fastest fused" in text
        else {
            at: (float(check.bundle.cell(check.rows, name, at)["time_s"]), name)
            for name in check.rows["series"].unique()
            if name.startswith("S-Attn · eager")
            for at in ran_at(check, name)
        }
    )
    wins = {
        at: check.bundle.cell(check.rows, system, at)["time_s"] < base[at][0]
        for at in ran_at(check, system) & set(base)
    }
    won, lost = ({at for at, w in wins.items() if w is side} for side in (True, False))
    ours = text.startswith(system)
    if found := re.search(rf"at every \|V\| in common, ({N}) to ({N})", text):
        assert (count(found[1]), count(found[2])) == (min(wins), max(wins))
        assert set(wins.values()) == {ours}
    elif found := re.search(rf"up to \|V\| = ({N}), .*? from ({N}) on", text):
        early, late = (won, lost) if ours else (lost, won)
        assert (count(found[1]), count(found[2])) == (max(early), min(late))
        assert max(early) < min(late)
    else:
        found = re.search(rf"at \|V\| = ({N}(?:(?:, | and ){N})*), .*? at (.*)", text)
        assert found, text
        assert {count(n) for n in re.findall(N, found[1])} == won
        assert {count(n) for n in re.findall(N, found[2])} == lost


def sharing_none(check: Check) -> None:
    """Two systems that were never timed at one |V|."""
    assert not ran_at(check, check["system"]) & ran_at(check, check["base"])


def waiting(check: Check) -> None:
    """Every |V| at which a system and a baseline were timed by the host alone."""
    own = ran_at(check, check["system"])
    theirs = (
        set(fused(check))
        if "fused" in check["base"]
        else {
            at
            for name in check.rows["series"].unique()
            if name.startswith("S-Attn · eager")
            for at in ran_at(check, name)
        }
    )
    assert {count(n) for n in re.findall(N, check["sizes"])} == own & theirs
    # Its seconds do not follow its work: doubled FLOPs take less than 1.41 times as long.
    cells = [check.bundle.cell(check.rows, check["system"], at) for at in sorted(own)]
    slow = [
        np.log(high["time_s"] / low["time_s"]) / np.log(high["flops"] / low["flops"])
        for low, high in pairwise(cells)
        if high["flops"] > 1.5 * low["flops"] and low["num_visual"] in own & theirs
    ]
    assert min(slow, default=0.0) < 0.6


def reach(check: Check) -> None:
    """How many tokens a system took beside its baselines."""
    true = brackets(check.rows)
    system, top = full(check, check["system"]), count(check["at"])
    assert true[system][0] == top
    for part in re.finditer(
        rf"(?P<least>at least )?(?P<x>{X})× the (?P<n>{N}) of (?P<base>[^,;()]+?)"
        r"(?P<kind>, the furthest fused)?(?=, | and |;|$)",
        check["text"],
    ):
        base = full(check, part["base"])
        of_fused = bool(part["kind"])
        alike = {
            s: b[0] or 0
            for s, b in true.items()
            if s.startswith("S-Attn") and (" · eager" in s) is not of_fused
        }
        assert count(part["n"]) == true[base][0] == max(alike.values())
        assert near(float(part["x"].replace(",", "")), top / count(part["n"]))
        assert bool(part["least"]) == (true[system][1] is None)
    further = {
        s for s, (ran, _) in true.items() if (ran or 0) > top and not s.startswith("S-Attn")
    }
    told = re.findall(rf"(\S[^;]*?) up to ({N})", check["text"].partition(";")[2])
    assert {full(check, s.removeprefix("and ").strip(", ")): count(n) for s, n in told} == {
        s: true[s][0] for s in further
    }


def grown(check: Check) -> None:
    """What four times the tokens take: a power law through two points."""
    parts = list(
        re.finditer(
            rf"×(?P<x>{X}) the time with (?P<s>[^()]+?) \((?P<low>{N}) to (?P<high>{N})",
            check["text"],
        )
    )
    assert parts
    for part in parts:
        name = full(check, part["s"])
        low, high = count(part["low"]), count(part["high"])
        own = check.rows[(check.rows["series"] == name) & check.rows["time_s"].notna()]
        assert high == own["num_visual"].max()
        seconds = [check.bundle.cell(check.rows, name, at)["time_s"] for at in (low, high)]
        power = np.log(seconds[1] / seconds[0]) / np.log(high / low)
        assert near(float(part["x"]), 4**power)


def top(check: Check) -> None:
    """The answer in front: ratios at each |V|, against eager and the fastest fused."""
    system = full(check, check["system"])
    cells = []
    named: set[str] = set()  # A fused baseline is called the fastest once.
    for size in re.finditer(rf"(?P<rest>.*?) at \|V\| = (?P<at>{N})(?:; |$)", check["parts"]):
        at = count(size["at"])
        parts = re.findall(
            rf"({X})× as fast as ([^;]+?)( \(the fastest fused\))?(?= and |$)", size["rest"]
        )
        assert parts
        for x, name, kind in parts:
            base = full(check, name)
            named |= {base} if kind else set()
            assert (base == fused(check)[at][1]) if base in named else " · eager" in base
            assert near(float(x.replace(",", "")), ratio(check, system, base, at, "time_s"))
            cells += [(system, at), (base, at)]
    assert cells
    holds_marks(check, cells)


def taken(check: Check) -> None:
    """From which |V| on a system is recommended, and why."""
    system, base = full(check, check["system"]), full(check, check["base"])
    at, start = count(check["at"]), count(check["start"])
    assert near(float(check["x"].replace(",", "")), ratio(check, system, base, at, "time_s"))
    theirs = (
        fused(check)
        if " · eager" not in base
        else {
            size: (float(check.bundle.cell(check.rows, base, size)["time_s"]), base)
            for size in ran_at(check, base)
        }
    )
    seconds = {
        size: check.bundle.cell(check.rows, system, size)["time_s"]
        for size in ran_at(check, system) & set(theirs)
    }
    assert at == max(seconds)
    assert all(took < theirs[size][0] for size, took in seconds.items() if size >= start)
    before = [size for size in seconds if size < start]
    assert not before or seconds[max(before)] >= theirs[max(before)][0]


def kept(check: Check) -> None:
    """S-Attn is kept where the system is hardly faster."""
    system, base = full(check, check["system"]), full(check, check["base"])
    true = ratio(check, system, base, count(check["at"]), "time_s")
    assert near(float(check["x"].replace(",", "")), true)
    assert true < 1.05


def keeping(check: Check) -> None:
    """The largest |V| at which S-Attn is the faster one."""
    at = count(check["at"])
    assert any(at in ran_at(check, name) for name in check.rows["series"].unique())


def on_condition(check: Check) -> None:
    """What the system gives up is what is on record of one that was run."""
    (own,) = (each for each in entries()["attention"].values() if each.label == check["system"])
    assert own.gives_up == check["loss"].replace(", and ", "; ")
    assert any(name.startswith(own.label) for name in check.rows["series"])


def for_memory(check: Check) -> None:
    """Who takes more tokens than any S-Attn kernel."""
    true = brackets(check.rows)
    base = full(check, check["base"])
    assert true[base][0] == count(check["n"])
    more = {
        s
        for s, (ran, _) in true.items()
        if (ran or 0) > count(check["n"]) and not s.startswith("S-Attn")
    }
    told = re.findall(
        rf"(?:only |, | and )([^(),]+(?: · [^(),]+(?:,\d+)?)*) \(({N})( or more)?\)", check["rest"]
    )
    assert len(told) == len(more)
    assert {count(n) for _, n, _ in told} == {true[s][0] for s in more}
    for _, n, beyond in told:
        assert bool(beyond) == any(true[s] == (count(n), None) for s in more)


def brackets(rows: pd.DataFrame) -> dict[str, tuple[int | None, int | None]]:
    """System -> (largest |V| that ran, smallest beyond it that was out of memory)."""
    found = {}
    for series, own in rows.groupby("series"):
        ran = own.loc[own["status"] == "ok", "num_visual"]
        top = int(ran.max()) if len(ran) else None
        beyond = own.loc[
            (own["status"] == "oom") & (own["num_visual"] > (top or -1)), "num_visual"
        ]
        found[str(series)] = top, int(beyond.min()) if len(beyond) else None
    return found


def reached(check: Check) -> None:
    """Who ran out of memory where, and how far the others went."""
    true = brackets(check.rows)
    ended = {s: end for s, (_, end) in true.items() if end is not None}
    ends, _, still = check["text"].partition(";")
    told = {
        s.removeprefix("and "): count(n)
        for s, n in re.findall(rf"(\S.*?) at \|V\| = ({N})(?:, | and |$)", ends)
    }
    assert told == ended
    for names, top in re.findall(rf"(\S.*?) still (?:ran|fit) at \|V\| = ({N})", still):
        for name in re.split(r", | and ", names.removeprefix("; ")):
            assert true[name] == (count(top), None)


def no_end(check: Check) -> None:
    """Nothing ran out of memory."""
    assert all(end is None for _, end in brackets(check.rows).values())
    if check["at"]:
        ran = check.rows[check.rows["status"] == "ok"]
        assert count(check["at"]) == ran["num_visual"].max()


def kinds(check: Check) -> dict[str, tuple[int, dict[str, int]]]:
    """System -> (its largest |V| with a told peak, the bytes by kind there)."""
    found: dict[str, tuple[int, dict[str, int]]] = {}
    for _, row in (
        check.rows[check.rows["peak_bytes"].notna()].sort_values("num_visual").iterrows()
    ):
        told = check.bundle.details[row.name].get("memory_by_kind")
        if told is None:
            told = {
                "weights": row["weight_bytes"],
                "gradients": row.get("gradient_bytes"),
                "activations": row.get("activation_bytes"),
            }
            told = {k: v for k, v in told.items() if not pd.isna(v)}
            told["not split by kind"] = row["peak_bytes"] - sum(told.values())
        # The largest |V| whose record splits its whole peak, else the largest.
        before = found.get(str(row["series"]))
        if before is None or "not split by kind" not in told or "not split by kind" in before[1]:
            found[str(row["series"])] = int(row["num_visual"]), told
    return found


def largest_kind(check: Check) -> None:
    """The kind that takes most of one peak."""
    at, told = kinds(check)[check["system"]]
    most = max(told, key=lambda kind: told[kind])
    words = {"working": "temporary tensors"}
    words["ballast"] = "ballast, which stands for the rest of a rank"
    assert (count(check["at"]), check["kind"]) == (at, words.get(most, most))
    assert near(value(check["own"]), told[most])
    assert near(value(check["total"]), sum(told.values()))
    assert int(check["share"]) == pytest.approx(100 * told[most] / sum(told.values()), abs=0.51)


def stopped_by(check: Check) -> None:
    """The same in one sentence for several systems."""
    true = kinds(check)
    names = "|".join(sorted(map(re.escape, shortened(check)), key=len, reverse=True))
    parts = re.findall(rf"({names}) ([a-z ]+) \((\d+)% at \|V\| = ({N})\)", check["text"])
    assert parts
    for system, kind, share, at in parts:
        place, told = true[full(check, system)]
        assert count(at) == place
        most = max(told, key=lambda name: told[name])
        assert kind == {"working": "temporary tensors"}.get(most, most)
        assert int(share) == pytest.approx(100 * told[most] / sum(told.values()), abs=0.51)


def held(check: Check) -> None:
    """What the store holds."""
    rows = check.bundle.frame
    assert count(check["num"]) == rows["series"].nunique()
    assert count(check["stored"]) == check.bundle.num_stored
    assert count(check["cells"] or check["stored"]) == len(rows)
    words = {
        "ran": ("ok", "measured"),
        "predicted to fit": ("ok", "predicted"),
        "out of memory": ("oom", None),
        "killed": ("killed", None),
        "timed out": ("timeout", None),
        "failed with an error": ("error", None),
        "unsupported": ("unsupported", None),
    }
    text = re.sub(r" \([^)]*\)", "", check["ends"])
    for part in re.split(r", | and ", text):
        number, word = part.split(" ", 1)
        status, source = words[word]
        own = rows[rows["status"] == status]
        own = own if source is None else own[own["source"] == source]
        assert int(number) == len(own), part
    for number in re.findall(r"\((\d+) of them predicted", check["ends"]):
        ended = rows[(rows["source"] == "predicted") & (rows["status"] != "ok")]
        assert int(number) == len(ended)


def runs(check: Check) -> None:
    """How many runs."""
    assert int(check["n"]) == check.bundle.frame["run"].nunique()


def wide(check: Check) -> None:
    """Brackets wider than a hundredth: of one subject's systems, or of all that have both ends."""
    frame = check.bundle.frame
    subject = " · ".join(check.section.split(" · ")[:3])
    true = [
        pair
        for (model, scope, pass_, _, _), own in frame.groupby(
            ["model", "scope", "pass", "source", "device"]
        )
        for pair in brackets(own).values()
        if not subject.count(" · ") or subject == f"{model} · {scope} · {pass_}"
    ]
    ended = [pair for pair in true if None not in pair]
    assert int(check["n"]) == sum(end > top * 1.01 for top, end in ended if top and end)
    assert int(check["all"]) == len(ended if "out-of-memory" in check.found[0] else true)


def predictions(check: Check) -> None:
    """How many cells are predictions."""
    rows = check.bundle.frame
    assert count(check["n"]) == (rows["source"] == "predicted").sum()
    assert count(check["all"]) == len(rows)


def flagged(check: Check) -> None:
    """How many cells carry a flag."""
    flags = check.bundle.frame["flags"].str.split("; ")
    names = [{flag.partition(":")[0] for flag in own} for own in flags]
    assert count(check["n"]) == sum(check["flag"] in own for own in names)


def fastest(check: Check) -> None:
    """The fastest kernel of one system at each |V| that two of them ran."""
    own = check.rows[(check.rows["status"] == "ok") & check.rows["time_s"].notna()]
    own = own[own["attention"] == "s_attn"]
    true = {
        int(at): str(cells.sort_values("time_s")["kernel"].iloc[0])
        for at, cells in own.groupby("num_visual")
        if cells["kernel"].nunique() > 1
    }
    told = re.findall(rf"(\w+) at ({N})(?: to ({N}))?", check["text"])
    spans = [(kernel, count(low), count(high or low)) for kernel, low, high in told]
    assert {at: next(k for k, low, high in spans if low <= at <= high) for at in true} == true


def pairs_of_kernels(check: Check) -> None:
    """Each two kernels at the largest |V| of both."""
    own = check.rows[(check.rows["status"] == "ok") & check.rows["time_s"].notna()]
    own = own[own["attention"] == "s_attn"]
    seconds = own.set_index(["kernel", "num_visual"])["time_s"]
    told = re.findall(rf"(\w+) ({X})× as fast as (\w+) at ({N})", check["text"])
    assert told
    for quick, times, slow, at in told:
        sizes = [set(own.loc[own["kernel"] == name, "num_visual"]) for name in (quick, slow)]
        assert count(at) == max(sizes[0] & sizes[1])
        assert near(float(times), seconds[slow, count(at)] / seconds[quick, count(at)])


def refused(check: Check) -> None:
    """Kernels that refused."""
    frame = check.bundle.frame
    assert count(check["n"]) == (frame["status"] == "unsupported").sum()


def furthest(check: Check) -> None:
    """The largest |V| that fits, and under what."""
    true = brackets(check.rows)
    top = max(ran for ran, _ in true.values() if ran is not None)
    assert count(check["at"]) == top
    names = {full(check, name) for name in re.split(r", | and ", check["systems"])}
    assert names == {s for s, b in true.items() if b[0] == top}


def between(check: Check) -> None:
    """Brackets in words."""
    true = brackets(check.rows)
    parts = re.findall(rf"(?:^|, | and )([^,]+?) between ({N}) and ({N})", check["text"])
    told = {full(check, s): (count(low), count(high)) for s, low, high in parts}
    assert told == {s: (low or 0, high) for s, (low, high) in true.items() if high is not None}


def himix(check: Check, metric: str) -> None:
    """HiMix beside the others."""
    text = check["rest"]
    at = check.found.groupdict().get("at")
    rows = check.rows
    if at is None:
        own = rows[rows["attention"] == "himix"]
        shared = rows[rows["num_visual"].isin(own["num_visual"])]
        at = str(shared["num_visual"].max())
    mine = check.bundle.cell(rows, "HiMix · sdpa", count(at))
    assert near(value(check["own"]), mine[metric])
    for name, told, times in re.findall(rf"([^,()]+?) ({Q}) \(({X})×\)", text):
        theirs = check.bundle.cell(rows, name.removeprefix(" and ").strip(), count(at))
        assert near(value(told), theirs[metric])
        assert near(float(times.replace(",", "")), theirs[metric] / mine[metric])


def himix_models(check: Check) -> None:
    """How many models."""
    frame = check.bundle.frame
    assert int(check["n"]) == frame.loc[frame["attention"] == "himix", "model"].nunique()


def verdicts(check: Check) -> None:
    """Cells of two stores: each is counted once."""
    numbers = [
        int(n) for n in re.findall(r"(\d+) (?:slower|faster|same|can't tell)", check["text"])
    ]
    assert sum(numbers) == count(check["cells"]) == len(check.bundle.frame)


def part_share(check: Check) -> None:
    """The part that takes most of the time."""
    own = check.rows[(check.rows["series"] == check["system"])]
    row = own[own["num_visual"] == count(check["at"])].iloc[0]
    details = check.bundle.details[row.name]
    told = details["trace"]["parts"] if "trace" in details else details["modules"]
    seconds: dict[str, float] = {}
    for part in told:
        name = part.get("module", part["part"])
        seconds[name] = seconds.get(name, 0.0) + part["time_s"]
    most = max(seconds, key=lambda name: seconds[name])
    assert check["part"] == most
    assert int(check["share"]) == pytest.approx(
        100 * seconds[most] / sum(seconds.values()), abs=0.51
    )


def plain(check: Check) -> None:
    """No number but those of names."""


PATTERNS: list[tuple[str, Callable[[Check], Any]]] = [
    (
        rf"(?P<system>[^:]+?) takes (?P<parts>{Q} at .*?)(?:; [^;]+ is missing)? {WHERE}"
        r"(?:, [^()]*)?\)\.",
        speed,
    ),
    (
        rf"(?!At )(?P<system>[^:]+?) is (?P<parts>{X}× as fast as .*?) {WHERE}(?:, [^()]*)?\)\.",
        top,
    ),
    (
        rf"Take (?P<system>.+) from \|V\| = (?P<start>{N}) on: at (?P<at>{N}) it is (?P<x>{X})× as"
        rf" fast as (?P<base>.+)\. {OF}",
        taken,
    ),
    (
        rf"Keep (?P<base>.+): at \|V\| = (?P<at>{N}) (?P<system>.+) is (?P<x>{X})× as fast\. {OF}",
        kept,
    ),
    (
        r"On one condition: (?P<system>.+) gives up (?P<loss>.+); whether the model stays as good"
        rf" is not measured here\. {OF}",
        on_condition,
    ),
    (rf"Up to \|V\| = (?P<at>{N}) keep S-Attn\. {OF}", keeping),
    (
        rf"For memory: (?P<base>.+) takes up to (?P<n>{N}) visual tokens, and (?P<rest>.*)\. {OF}",
        for_memory,
    ),
    (
        rf"At \|V\| = (?P<at>{N}),(?P<largest> the largest that both (?:ran|fit),)?"
        rf" (?P<system>.+?) is (?:as fast as far as the samples tell, )?{TIMES}(?:,"
        rf" as| as fast as)"
        rf" (?P<base>[^()]+?)(?P<kind>, the fastest fused)? \((?P<own>{Q}) against"
        rf" (?P<theirs>{Q})\)(?:, with (?P<costs>.*?))? {WHERE}(?:, [^)]*)?\)\.",
        compared,
    ),
    (
        rf"(?P<system>.+) and (?P<base>.+) share no \|V\| at which both (?:ran|fit) {WHERE}\)\.",
        sharing_none,
    ),
    (
        rf"(?P<system>.+?) and (?P<base>(?:eager|the fastest fused) S-Attn) were both timed"
        r" at \|V\| ="
        rf" (?P<sizes>.*), where"
        rf" the host set the pace, so no ratio is formed {WHERE}\)\.",
        waiting,
    ),
    (rf"(?P<text>.+ is faster (?:than|at|up to) .*?) {WHERE}(?:, [^()]*)?\)\.", turns),
    (
        rf"(?P<system>[^:]+?) (?:ran|fit) up to \|V\| = (?P<at>{N}), (?P<text>.*) {WHERE}"
        r"(?:, [^()]*)?\)\.",
        reach,
    ),
    (
        rf"Four times the tokens take (?P<text>.*); ×4 is linear, .*? {WHERE}(?:, [^()]*)?\)\.",
        grown,
    ),
    (rf"Out of memory: (?P<text>.*) {WHERE}(?:, [^()]*)?\)\.", reached),
    (
        rf"No system ran out of memory(?: up to \|V\| = (?P<at>{N}), where this sweep ends)?"
        rf"(?:, so no threshold is known)? {WHERE}\)\.",
        no_end,
    ),
    (
        rf"(?P<system>.+) at \|V\| = (?P<at>{N}): (?P<own>{Q}) of (?P<total>{Q})"
        rf" \((?P<share>\d+)%\) is"
        rf" (?P<kind>.+) {WHERE}\)\.",
        largest_kind,
    ),
    (
        r"What takes most of the peak at the largest \|V\| whose record splits it:"
        rf" (?P<text>.*) {WHERE}{MORE}\)\.",
        stopped_by,
    ),
    (
        rf"(?P<system>.+) at \|V\| = (?P<at>{N}): (?P<share>\d+)% of the time goes to (?P<part>.+)"
        rf" {WHERE}\)\.",
        part_share,
    ),
    (
        rf"\S+ holds (?P<stored>{N}) cells?(?:, of which (?P<cells>{N}) bear on the question)?, of"
        rf" (?P<num>{N}) systems? \((?P<systems>.*?)\): (?P<ends>.*)\.",
        held,
    ),
    (r"The cells come from (?P<n>\d+) runs; .*", runs),
    (rf"(?P<n>{N}) of (?P<all>{N}) (?:out-of-memory )?brackets (?:is|are) wider than 1%.*", wide),
    (rf"(?P<n>{N}) of (?P<all>{N}) cells are predictions, .*", predictions),
    (rf"(?P<n>{N}) cells? flagged (?P<flag>\w+): .*", flagged),
    (
        rf"The fastest kernel of .+? by \|V\|: (?P<text>.*?)(?:; at .* host-bound)?"
        rf" {WHERE}{MORE}\)\.",
        fastest,
    ),
    (rf"At the largest \|V\| of each pair: (?P<text>.*) {WHERE}{MORE}\)\.", pairs_of_kernels),
    (rf"(?P<n>{N}) cells? refused by .*", refused),
    (
        rf"The largest \|V\| that (?:ran|fit)(?: within {Q})? is (?P<at>{N}), under"
        rf" (?P<systems>.*?) {WHERE}{MORE}\)\.",
        furthest,
    ),
    (rf"Memory ends for (?P<text>.*) {WHERE}{MORE}\)\.", between),
    (
        rf"At \|V\| = (?P<at>{N}) HiMix takes (?P<own>{Q}), (?P<rest>.*) {WHERE}{MORE}\)\.",
        lambda check: himix(check, "flops"),
    ),
    (
        rf"An iteration takes (?P<own>{Q}), (?P<rest>.*) {WHERE}{MORE}\)\.",
        lambda check: himix(check, "time_s"),
    ),
    (r"HiMix has cells of (?P<n>\d+) models? here: .*", himix_models),
    (rf"Of (?P<cells>{N}) cells?, from run \S+ to run \S+: (?P<text>.*)\.", verdicts),
    (
        r"This store has no such training step of a whole [\w.-]+; workbench sweep \S+ --store \S+"
        r" adds it\.",
        plain,
    ),
    (r"(?:Measured on|Kernels that|The two environments|No cell that ran in both) .*", plain),
    (
        r"Not compared against .*|There is no system besides .*|.* is compared with nothing: .*"
        r"|No other system has .*|Nothing can be recommended: .*|How the seconds grow .*"
        r"|What takes the bytes is unknown.*"
        r"|No cell here .*",
        plain,
    ),
]


def sentences(found: Contents) -> Iterator[tuple[str, str]]:
    """(title of its section, sentence), of everything that the report says."""
    if found.first is not None:
        # What the answer in front is of stands below it, as it does at the end of a sentence.
        basis = f" ({found.first.basis})." if found.first.basis else ""
        yield "", found.first.answer.removesuffix(".") + basis if basis else found.first.answer
        of = found.first.basis or "".join(re.findall(r"\(([^()]*)\)\.$", found.first.answer))
        own = found.first.heading == "What to do"  # Else it is the rest of the answer.
        for sentence in found.first.recommendation if own else ():
            yield "", f"{sentence} [{of}]"
        # Its assumptions are what captions say, and its risks have no figure.
    for sentence in (*found.answer, *found.provenance):
        yield "", sentence
    for section in found.sections:
        for sentence in section.bullets:
            yield section.title, sentence
        for block in section.blocks:
            for sentence in block.sentences:
                yield section.title, sentence


def recompute(report: Contents, bundle: Bundle) -> int:
    """Check every sentence with a number; how many had one to recompute."""
    bundle.keep(re.findall(r"systems? \((.*?)\)", report.provenance[0])[0])
    checked = 0
    for section, sentence in sentences(report):
        if not re.search(r"\d", sentence):
            continue
        matches = [(re.fullmatch(pattern, sentence), check) for pattern, check in PATTERNS]
        known = [(found, check) for found, check in matches if found]
        assert known, f"no way to check: {sentence}"
        found, check = known[0]
        assert found is not None
        check(Check(found, bundle, section))
        checked += check is not plain
    return checked


@pytest.mark.parametrize(("kind", "question"), CASES)
def test_every_sentence_with_a_number_is_what_the_data_say(
    stores: Path, tmp_path: Path, kind: str, question: str
) -> None:
    against = stores / "two_runs.db" if question == "regression" else None
    report = contents(stores / f"{kind}.db", question, against)
    write_bundle(report, tmp_path)
    assert recompute(report, Bundle(tmp_path)) >= 1


@pytest.mark.parametrize("metric", ["time_s", "peak_bytes", "flops"])
def test_other_data_are_noticed(stores: Path, tmp_path: Path, metric: str) -> None:
    report = contents(stores / "like_default.db")
    write_bundle(report, tmp_path)
    bundle = Bundle(tmp_path)
    ours = bundle.frame["attention"] == "d_attn"
    bundle.frame.loc[ours, metric] *= 1.05
    with pytest.raises(AssertionError):
        recompute(report, bundle)


def test_the_reference_records_are_told_as_they_are(tmp_path: Path) -> None:
    """What an H100 measured: emulated, power-capped, cold, of few samples, host-bound."""
    report = contents(STORE)
    write_bundle(report, tmp_path)
    assert recompute(report, Bundle(tmp_path)) > 80
    first = report.answer[0]
    assert "5.23× as fast as S-Attn · eager" in first
    assert "1.21× as fast as S-Attn · cudnn, the fastest fused" in first
    assert "2.60× as fast as S-Attn · cudnn, the fastest fused" in first
    assert "emulated: 1 of 32 ranks, all layers, nothing communicated" in first
