"""Threats to validity, generated from what the records say of themselves."""

from collections.abc import Iterator

import pandas as pd

from workbench.analysis import limits
from workbench.aspects.thresholds import TOLERANCE
from workbench.telling.material import Material
from workbench.telling.page import Block, Section, Table
from workbench.telling.sentences import BASELINES
from workbench.telling.text import listed
from workbench.vocabulary.units import plural

MOST = 200
"""Rows of the table of flags; beyond it only their number is told."""
MEANING = {
    "few_samples": "fewer samples than asked for: the median is less sure",
    "no_warmup": "timed without a warm-up",
    "host_bound": "the card waited for the host: the time is not the method's",
    "unsettled": "warm-up windows never agreed, so the machine was not at rest",
    "imprecise": "the interval of the median is wider than asked for",
    "retries": "the allocator had to free its cache, which costs time",
    "throttled": "the card slowed itself down during samples",
    "shared": "another process used the card",
    "memory_cap": "a smaller card was emulated on a larger one",
    "emulated": "one rank of many was emulated on one device",
    "calibrated": "seconds are fitted; the flag tells the error of cells that were held out",
    "carried": "seconds use the rates of another card with the same processor",
    "uncalibrated": "seconds are the roofline's, not fitted to any measurement",
    "beyond_calibration": "seconds are fitted, but to other sizes, systems or kernels than these",
    "stand_in": "seconds of attention use the rate of another kind of operator",
    "loss_rows": "the loss runs over the text rows alone, which is cheaper than transformers' own",
    "offload_optimizer": "seconds of the optimizer on the host are left out",
}
"""Flags whose name alone says little."""


def threats_chapter(material: Material) -> Section:
    """Sentences on the store as a whole, then every flag with the number of its cells."""
    rows = material.frame
    counts: dict[str, int] = {}
    for flags in rows["flags"]:
        for flag in set(flags):
            counts[flag] = counts.get(flag, 0) + 1
    ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    table = Table(
        "Quality flags",
        ("cells", "flag", "reason"),
        tuple((f"{n:,}", *_split(flag)) for flag, n in ordered[:MOST]),
        f"And {len(ordered) - MOST:,} more." if len(ordered) > MOST else "",
    )
    return Section(
        "Threats to validity",
        "threats",
        (Block("", (), None, (table,) if ordered else ()),),
        tuple(_threats(rows, counts)),
    )


def _split(flag: str) -> tuple[str, str]:
    name, _, reason = flag.partition(": ")
    return name, reason


def _threats(rows: pd.DataFrame, counts: dict[str, int]) -> Iterator[str]:
    measured, predicted = (rows[rows["source"] == s] for s in ("measured", "predicted"))
    if measured.empty:
        yield "Predicted only: no cell of this report was run."
    elif len(predicted):
        yield (
            f"{len(predicted):,} of {plural(len(rows), 'cell')} are predictions, marked as such in"
            " every figure and table."
        )
    yield from _machine(measured)
    yield from _baselines(rows)
    by_name: dict[str, int] = {}
    for flags in rows["flags"]:
        for name in {flag.partition(":")[0] for flag in flags}:
            by_name[name] = by_name.get(name, 0) + 1
    for name, meaning in MEANING.items():
        if name in by_name:
            yield f"{plural(by_name[name], 'cell')} flagged {name}: {meaning}."
    yield from _brackets(rows)
    if (rows["scope"] == "layer").any():
        yield (
            "A layer is not a model: cells of scope layer have no embedding, LM head, loss or"
            " optimizer, and a whole step is more than its layers."
        )
    if rows["weights"].isna().all():
        yield "Weights are random: costs do not depend on their values, answers would."


def _machine(measured: pd.DataFrame) -> Iterator[str]:
    devices = sorted(measured["device"].unique())
    if devices:
        yield (
            f"Measured on {listed(devices)} only; times of another device differ by more than a"
            " factor."
        )
    kernels = sorted(measured.loc[measured["status"] == "ok", "kernel"].unique())
    if kernels:
        yield f"Kernels that ran: {listed(kernels)}."
    unsupported = measured[measured["status"] == "unsupported"]
    if len(unsupported):
        names = sorted(unsupported["kernel"].unique())
        yield f"Kernels that refused some cell: {listed(names)}, with their reasons below."


def _baselines(rows: pd.DataFrame) -> Iterator[str]:
    ran = rows[(rows["attention"] == "s_attn") & (rows["status"] == "ok")]
    kernels = set(ran["kernel"].unique())
    lacking = [
        words
        for name, words in BASELINES.items()
        if not (kernels & {"eager"} if name == "eager" else kernels - {"eager"})
    ]
    if lacking:
        yield f"Without {listed(lacking, 'or')}, ratios have only one side."


def _brackets(rows: pd.DataFrame) -> Iterator[str]:
    ends = limits(rows).dropna(subset=["max_visual", "fails_at"])
    wide = int((ends["fails_at"] > ends["max_visual"] * (1 + TOLERANCE)).sum())
    if wide:
        yield (
            f"{wide} of {len(ends)} out-of-memory brackets are wider than {TOLERANCE:.0%}: the"
            " threshold lies somewhere inside."
        )
