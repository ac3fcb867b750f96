"""Every sentence with a number, recomputed from the data bundle by other code.

A sentence that no pattern here knows fails: whoever adds one adds how to check it.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.report.bundle import QUANTITY, Bundle, count, value
from workbench.report.bundle import write_bundle
from workbench.report.contents import contents
from workbench.report.page import Contents

CASES = [
    ("like_default", "dattn-vs-sattn"), ("like_default", "will-it-fit"),
    ("like_default", "kernel-choice"), ("measured_only", "dattn-vs-sattn"),
    ("predicted_only", "dattn-vs-sattn"), ("all_statuses", "dattn-vs-sattn"),
    ("all_statuses", "kernel-choice"), ("one_cell", "dattn-vs-sattn"),
    ("one_cell", "will-it-fit"), ("three_systems", "himix"), ("paper", "dattn-vs-sattn"),
    ("later", "regression"),
]  # fmt: skip
Q = re.sub(r"\((?!\?)", "(?:", QUANTITY)
"""The same without groups."""
N = r"[\d,]+"
X = r"[\d.,]+"
TIMES = rf"(?P<x>{X})×(?: \((?P<low>{X}) to (?P<high>{X})\))?"
WHERE = (
    r"\((?:(?P<subject>[^()]+ · \w+ · \w+), )?(?P<source>measured on|predicted for)"
    r" (?P<device>[^(),]+?)"
)
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


def both_ran(check: Check, series: str, base: str) -> int:
    """The largest |V| that two systems share."""
    ran = check.rows[(check.rows["status"] == "ok") & check.rows["time_s"].notna()]
    ours, theirs = (set(ran.loc[ran["series"] == s, "num_visual"]) for s in (series, base))
    return max(ours & theirs)


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
    """The answer's first sentence."""
    system, at, own = check["system"], 0, 0.0
    pattern = (
        rf"(?:(?P<own>{Q}) at \|V\| = (?P<at>{N}), )?{TIMES} as fast as (?P<base>[^()]+)"
        rf" \((?P<theirs>{Q})\)"
    )
    parts = list(re.finditer(pattern, check["parts"]))
    assert parts
    for part in parts:
        if part["own"]:
            at, own = count(part["at"]), value(part["own"])
        assert at == both_ran(check, system, part["base"])
        assert near(own, check.bundle.cell(check.rows, system, at)["time_s"])
        assert near(value(part["theirs"]),
                    check.bundle.cell(check.rows, part["base"], at)["time_s"])  # fmt: skip
        assert near(float(part["x"]), ratio(check, system, part["base"], at, "time_s"))


def compared(check: Check) -> None:
    """A bullet: one system against one baseline."""
    system, base, at = check["system"], check["base"], count(check["at"])
    assert at == both_ran(check, system, base)
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


def brackets(rows: pd.DataFrame) -> dict[str, tuple[int | None, int | None]]:
    """System -> (largest |V| that ran, smallest beyond it that was out of memory)."""
    found = {}
    for series, own in rows.groupby("series"):
        ran = own.loc[own["status"] == "ok", "num_visual"]
        top = int(ran.max()) if len(ran) else None
        beyond = own.loc[(own["status"] == "oom") & (own["num_visual"] > (top or -1)),
                         "num_visual"]  # fmt: skip
        found[str(series)] = top, int(beyond.min()) if len(beyond) else None
    return found


def reached(check: Check) -> None:
    """Who ran out of memory where, and how far the others went."""
    true = brackets(check.rows)
    ended = {s: end for s, (_, end) in true.items() if end is not None}
    ends, _, still = check["text"].partition(";")
    told = {s.removeprefix("and "): count(n)
            for s, n in re.findall(rf"(\S.*?) at \|V\| = ({N})(?:, | and |$)", ends)}  # fmt: skip
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


def terms(check: Check) -> None:
    """Fitted growth: a weighted polynomial fit of another library's."""
    for part in re.finditer(
        rf"(?P<s>[^,()]+?) (?P<shape>constant|linear|quadratic)"
        rf" \((?P<b>{Q})(?: \+ (?P<c>{Q})·\|V\|)? per further token\)(?:, | and |$)",
        check["text"],
    ):
        own = check.rows[(check.rows["series"] == part["s"]) & check.rows["time_s"].notna()]
        x, y = own["num_visual"].to_numpy(float), own["time_s"].to_numpy(float)
        _, b, c = np.polynomial.Polynomial.fit(x, y, 2, w=1 / y).convert().coef
        assert near(value(part["b"]), b)
        if part["c"]:
            assert near(value(part["c"]), 2 * c)


def kinds(check: Check) -> dict[str, tuple[int, dict[str, int]]]:
    """System -> (its largest |V| with a told peak, the bytes by kind there)."""
    found: dict[str, tuple[int, dict[str, int]]] = {}
    for _, row in (
        check.rows[check.rows["peak_bytes"].notna()].sort_values("num_visual").iterrows()
    ):
        told = check.bundle.details[row.name].get("memory_by_kind")
        if told is None:
            told = {"weights": row["weight_bytes"], "gradients": row.get("gradient_bytes"),
                    "activations": row.get("activation_bytes")}  # fmt: skip
            told = {k: v for k, v in told.items() if not pd.isna(v)}
            told["rest of the peak"] = row["peak_bytes"] - sum(told.values())
        found[str(row["series"])] = int(row["num_visual"]), told
    return found


def largest_kind(check: Check) -> None:
    """The kind that takes most of one peak."""
    at, told = kinds(check)[check["system"]]
    most = max(told, key=lambda kind: told[kind])
    assert (count(check["at"]), check["kind"]) == (at, most)
    assert near(value(check["own"]), told[most])
    assert near(value(check["total"]), sum(told.values()))
    assert int(check["share"]) == pytest.approx(100 * told[most] / sum(told.values()), abs=0.51)


def stopped_by(check: Check) -> None:
    """The same in one sentence for several systems."""
    true = kinds(check)
    names = "|".join(map(re.escape, true))
    parts = re.findall(rf"({names}) ([a-z ]+) \((\d+)% at \|V\| = ({N})\)", check["text"])
    assert parts
    for system, kind, share, at in parts:
        place, told = true[system]
        assert count(at) == place
        assert kind == max(told, key=lambda name: told[name])
        assert int(share) == pytest.approx(100 * told[kind] / sum(told.values()), abs=0.51)


def held(check: Check) -> None:
    """What the store holds."""
    rows = check.bundle.frame
    assert count(check["num"]) == rows["series"].nunique()
    assert count(check["stored"]) == check.bundle.num_stored
    assert count(check["cells"] or check["stored"]) == len(rows)
    words = {"ran": ("ok", "measured"), "predicted to fit": ("ok", "predicted"),
             "out of memory": ("oom", None), "killed": ("killed", None),
             "timed out": ("timeout", None), "failed with an error": ("error", None),
             "unsupported": ("unsupported", None)}  # fmt: skip
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
    """Kernels of one system at one |V|."""
    own = check.rows[check.rows["num_visual"] == count(check["at"])]
    own = own[(own["status"] == "ok") & own["attention"].eq("s_attn")].set_index("kernel")
    best = own["time_s"].idxmin()
    assert check["best"] == best
    assert near(value(check["own"]), own["time_s"][best])
    for kernel, seconds, times in re.findall(rf"(\w+) ({Q}) \(({X})×\)", check["rest"]):
        assert near(value(seconds), own["time_s"][kernel])
        assert near(float(times), own["time_s"][kernel] / own["time_s"][best])


def leanest(check: Check) -> None:
    """Their peaks."""
    own = check.rows[check.rows["num_visual"] == count(check["at"])]
    own = own[(own["status"] == "ok") & own["attention"].eq("s_attn")].set_index("kernel")
    for kernel, size in re.findall(rf"(\w+) ({Q})", check["rest"]):
        assert near(value(size), own["peak_bytes"][kernel])


def refused(check: Check) -> None:
    """Kernels that refused."""
    frame = check.bundle.frame
    assert count(check["n"]) == (frame["status"] == "unsupported").sum()


def furthest(check: Check) -> None:
    """The largest |V| that fits, and under what."""
    true = brackets(check.rows)
    top = max(ran for ran, _ in true.values() if ran is not None)
    assert count(check["at"]) == top
    assert set(re.split(r", | and ", check["systems"])) == {
        s for s, b in true.items() if b[0] == top
    }


def between(check: Check) -> None:
    """Brackets in words."""
    true = brackets(check.rows)
    parts = re.findall(rf"(?:^|, | and )([^,]+?) between ({N}) and ({N})", check["text"])
    told = {s: (count(low), count(high)) for s, low, high in parts}
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
    (rf"(?P<system>[^:]+?) takes (?P<parts>{Q} at .*?)(?:; [^;]+ is missing)? {WHERE}\)\.", speed),
    (rf"At \|V\| = (?P<at>{N}), the largest that both (?:ran|fit), (?P<system>.+?) is"
     rf" (?:as fast as far as the samples tell, )?{TIMES}(?:, as| as fast as)"
     rf" (?P<base>[^()]+?) \((?P<own>{Q}) against"
     rf" (?P<theirs>{Q})\)(?:, with (?P<costs>.*?))? {WHERE}(?:, [^)]*)?\)\.", compared),
    (rf"Out of memory: (?P<text>.*) {WHERE}\)\.", reached),
    (rf"No system ran out of memory(?: up to \|V\| = (?P<at>{N}), where this sweep ends)?"
     rf"(?:, so no threshold is known)? {WHERE}\)\.", no_end),
    (rf"Seconds grow with \|V\|: (?P<text>.*) {WHERE}\)\.", terms),
    (rf"(?P<system>.+) at \|V\| = (?P<at>{N}): (?P<own>{Q}) of (?P<total>{Q})"
     rf" \((?P<share>\d+)%\) is"
     rf" (?P<kind>.+) {WHERE}\)\.", largest_kind),
    (rf"What takes most of the peak at the largest \|V\|: (?P<text>.*) {WHERE}\)\.", stopped_by),
    (rf"(?P<system>.+) at \|V\| = (?P<at>{N}): (?P<share>\d+)% of the time goes to (?P<part>.+)"
     rf" {WHERE}\)\.", part_share),
    (rf"\S+ holds (?P<stored>{N}) cells?(?:, of which (?P<cells>{N}) bear on the question)?, of"
     rf" (?P<num>{N}) systems? \((?P<systems>.*?)\): (?P<ends>.*)\.", held),
    (r"The cells come from (?P<n>\d+) runs; .*", runs),
    (rf"(?P<n>{N}) of (?P<all>{N}) (?:out-of-memory )?brackets are wider than 1%.*", wide),
    (rf"(?P<n>{N}) of (?P<all>{N}) cells are predictions, .*", predictions),
    (rf"(?P<n>{N}) cells? flagged (?P<flag>\w+): .*", flagged),
    (rf"(?P<system>.+) at \|V\| = (?P<at>{N}), the largest that most kernels (?:ran|fit):"
     rf" (?P<best>\w+) is fastest with (?P<own>{Q}), then (?P<rest>.*) {WHERE}\)\.", fastest),
    (rf"Peak memory of .+ at \|V\| = (?P<at>{N}): (?P<rest>.*) {WHERE}\)\.", leanest),
    (rf"(?P<n>{N}) cells? refused by .*", refused),
    (rf"The largest \|V\| that (?:ran|fit) is (?P<at>{N}), under (?P<systems>.*?) {WHERE}"
     rf"(?: of {Q})?\)\.", furthest),
    (rf"Memory ends for (?P<text>.*) {WHERE}\)\.", between),
    (rf"At \|V\| = (?P<at>{N}) HiMix takes (?P<own>{Q}), (?P<rest>.*) {WHERE}\)\.",
     lambda check: himix(check, "flops")),
    (rf"An iteration takes (?P<own>{Q}), (?P<rest>.*) {WHERE}\)\.",
     lambda check: himix(check, "time_s")),
    (r"HiMix has cells of (?P<n>\d+) models? here: .*", himix_models),
    (rf"Of (?P<cells>{N}) cells?, from run \S+ to run \S+: (?P<text>.*)\.", verdicts),
    (r"This store has no such training step of a whole [\w.-]+; workbench sweep \S+ --store \S+"
     r" adds it\.", plain),
    (r"(?:Measured on|Kernels that|The two environments|No cell that ran in both) .*", plain),
    (r"Not compared against .*|There is no system besides .*|.* is compared with nothing: .*"
     r"|No other system has .*|How the seconds grow .*|What takes the bytes is not told.*"
     r"|No cell here .*", plain),
]  # fmt: skip


def sentences(found: Contents) -> Iterator[tuple[str, str]]:
    """(title of its section, sentence), of everything that the report says."""
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
