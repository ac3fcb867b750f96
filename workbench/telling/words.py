"""Sentences computed from the frame: what a figure shows, and a fit in words."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from workbench.analysis import (
    CONDITIONS,
    SUBJECT,
    common_options,
    emulation,
    host_bound,
    kinds,
    marks,
)
from workbench.analysis.marks import FEW
from workbench.figures import place_names
from workbench.telling.text import listed
from workbench.vocabulary.cell import FIELDS, condition_words
from workbench.vocabulary.metrics import METRICS
from workbench.vocabulary.units import plural

SCOPES = {
    "layer": "One decoder layer of {}",
    "decoder": "The decoder of {} with LM head and loss",
    "lvlm": "{} with vision tower, adapter and decoder",
}
PASSES = {"forward": "forward", "train": "training step", "decode": "decoding step"}
TOGETHER = ("logits", "zero", "world_size", "weights")
"""Conditions whose words depend on another field; others have them in their description."""
LAYER_TRAIN = "forward and backward, no optimizer"


def spread(values: pd.Series, noun: str) -> str:
    """'3 samples', or '3 to 10 samples' where the cells differ."""
    low, high = int(values.min()), int(values.max())
    return plural(high, noun) if low == high else f"{low:,} to {high:,} {noun}s"


def setting(rows: pd.DataFrame) -> str:
    """What was run: 'One decoder layer of mistral-7b-v0.3, forward, bfloat16, |T| = 64, …'.

    A condition that differs between devices is left to ``provenance``.
    """
    distinct = kinds(rows, (*SUBJECT, *CONDITIONS)).distinct
    unique = {name: distinct[name].unique() for name in (*SUBJECT, *CONDITIONS)}
    facts: dict[str, Any] = {
        name: None if pd.isna(values[0]) else values[0]
        for name, values in unique.items()
        if len(values) == 1
    }
    kind = PASSES[facts["pass"]]
    if facts["scope"] == "layer" and facts["pass"] == "train":
        kind = f"{kind} ({LAYER_TRAIN})"
    models = listed(sorted(map(str, unique["model"])))
    words = [SCOPES[facts["scope"]].format(models), kind]
    words += [condition_words(name, facts[name]) for name in _ALWAYS if name in facts]
    words += [
        condition_words(name, value)
        for name, value in facts.items()
        if name in CONDITIONS
        and name not in (*_ALWAYS, *TOGETHER)
        and value not in (None, FIELDS[name].default)
    ]
    if facts["scope"] != "layer" and "logits" in facts:
        words.append(f"logits of {facts['logits']} rows")
    if facts.get("zero"):
        words.append(f"ZeRO {facts['zero']} over {plural(facts.get('world_size', 1), 'rank')}")
    if "weights" in facts:
        real = facts["weights"]
        words.append("random weights" if real is None else condition_words("weights", real))
    common = common_options(list(rows["series"].unique())) if "series" in rows else ()
    words += [f"all with {listed(common)}"] if common else []
    return ", ".join(words)


_ALWAYS = ("dtype", "num_text", "batch")
"""Conditions that a caption says whatever their value."""


def provenance(frame: pd.DataFrame, bars: bool = True) -> list[str]:
    """One sentence a source and device: how many cells and samples, what was only predicted.

    ``bars``: whether the figure draws the quartiles.
    """
    meaning = ", bars are quartiles" if bars else ""
    sentences, names = [], place_names(frame)
    narrow = frame[["source", "device", "time_s", "num_samples", "flags"]]
    narrow = narrow.assign(host_bound=host_bound(frame))
    for (source, device), rows in narrow.groupby(["source", "device"]):
        name = names[str(source), str(device)]
        cells = plural(len(rows), "cell")
        if source == "predicted":
            sentences.append(
                f"Predicted for {name}: {cells}, computed from shapes and datasheet"
                " peaks; nothing ran."
            )
            continue
        timed = rows.loc[rows["time_s"].notna(), "num_samples"]
        how = f", median of {spread(timed, 'sample')} each{meaning}" if len(timed) else ""
        sentences.append(f"Measured on {name}: {cells}{how}{_marked(rows)}.")
        if str(device) == "cpu":
            sentences.append("A CPU's cells are a check: their seconds do not stand for a card's.")
    return sentences


def _marked(rows: pd.DataFrame) -> str:
    """'; 45 emulated (1 of 32 ranks, …), 12 power-capped, 8 of at most 3 samples'; or nothing."""
    counts: dict[str, int] = {}
    timed = rows.assign(timed=rows["time_s"].notna())
    # Thousands of records share a few combinations of flags.
    _, distinct, times = kinds(timed, ("flags", "num_samples", "host_bound", "timed"))
    for row, count in zip(distinct.to_dict("records"), times, strict=True):
        for word in marks(row, timed=row["timed"]):
            few = word.partition(" ")[2].startswith("sample")
            word = f"of at most {FEW} samples" if few else word
            counts[word] = counts.get(word, 0) + int(count)
    how = emulation(distinct["flags"])
    words = [
        f"{count:,} {word}" + (f" ({how})" if word == "emulated" and how else "")
        for word, count in counts.items()
    ]
    return f"; {listed(words)}" if words else ""


OUTCOMES = {
    "ok": "ran",
    "oom": "out of memory",
    "killed": "killed",
    "timeout": "timed out",
    "error": "failed with an error",
    "unsupported": "unsupported",
}
"""A record's status, and the words for it."""


def endings(frame: pd.DataFrame) -> str:
    """How the cells ended: '20 ran, 3 out of memory (2 of them predicted), 1 killed'."""
    parts = []
    counts = frame[["status", "source"]].value_counts().to_dict()
    for status, word in OUTCOMES.items():
        guessed = counts.get((status, "predicted"), 0)
        count = guessed + counts.get((status, "measured"), 0)
        if status == "ok":
            parts += [f"{count - guessed:,} ran"] if count > guessed else []
            parts += [f"{guessed:,} predicted to fit"] if guessed else []
        elif count:
            share = "predicted" if guessed == count else f"{guessed:,} of them predicted"
            parts.append(f"{count:,} {word}" + (f" ({share})" if guessed else ""))
    return listed(parts)


def conventions(metrics: Sequence[str]) -> list[tuple[str, str, str]]:
    """(label, unit, convention) of each metric."""
    return [(METRICS[m].label, METRICS[m].unit, METRICS[m].convention) for m in metrics]


def convention_line(metrics: Sequence[str]) -> str:
    """The conventions of a figure's metrics in one sentence."""
    return "; ".join(f"{label}: {how}" for label, _, how in conventions(metrics)) + "."


def _reading(rows: pd.DataFrame, has_fits: bool) -> list[str]:
    sources = set(rows["source"].unique())
    sentences = (
        ["Lines with a band are fits; the band is their 95 % interval."] if has_fits else []
    )
    if sources == {"measured", "predicted"}:
        sentences.append(
            "Filled points and unbroken strokes are measured; hollow points and broken"
            " strokes are predicted."
        )
    failed = rows["status"] == "oom"
    if (failed & (rows["source"] == "measured")).any():
        sentences.append("Out of memory when run: a cross in the band above the panel.")
    if (failed & (rows["source"] == "predicted")).any():
        sentences.append(
            "Predicted beyond the card's memory: the point crossed out, at the value that"
            " an unlimited card would show."
        )
    return sentences


def thinned(drawn: pd.DataFrame, rows: pd.DataFrame) -> str:
    """What a figure leaves out; empty where it draws everything."""
    if len(drawn) == len(rows):
        return ""
    return (
        f"{len(drawn):,} of {len(rows):,} cells are drawn, the ends and extremes of each line;"
        " fits, tables and downloads hold all."
    )


def figure_caption(rows: pd.DataFrame, metrics: Sequence[str], has_fits: bool) -> list[str]:
    """What a scaling figure of one subject shows, in sentences."""
    return [
        f"{setting(rows)}.",
        *provenance(rows),
        f"Outcome: {endings(rows)}.",
        *_reading(rows, has_fits),
        convention_line(metrics),
    ]
