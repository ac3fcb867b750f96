"""What stands behind predictions: what they assume of a card, deepspeed's estimate, the paper."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from workbench.figures import quantity
from workbench.telling.published import D_ATTN, PAPER, S_ATTN, SPEED_RATIO, Published
from workbench.telling.view import Details
from workbench.vocabulary.record import Record

Rows = tuple[tuple[str, ...], ...]

ASSUMED = ("kernel", "of", "what is assumed")
STATES = ("system", "ZeRO", "ranks", "a rank holds", "deepspeed's estimate", "difference")
TABLE_2_BESIDE = (
    "system",
    "|V|",
    "published |V|",
    "predicted peak",
    "of the card",
    "samples that fit",
    "predicted s/it",
    "published s/it",
    "published over predicted",
)
TABLE_2_NOTE = (
    f"Published: {PAPER}. Nothing is tuned to it. The paper states neither the micro-batch nor"
    " |T|. 'Samples that fit' is the micro-batch at which the predicted cell would fill its card:"
    " where a published limit shows about the same number for both systems, that micro-batch"
    " explains it. Predicted seconds are a roofline's lower bound for the cell's own batch. A"
    " larger micro-batch, the efficiency of real kernels, communication, and float32 parts, masks"
    " and padding that the paper does not describe all lengthen a step; what both systems share"
    " shows as the same factor in the last column, and cancels in their ratio"
    f" ({SPEED_RATIO:.2f} as published)."
)
FIXED = ("weights", "gradients", "optimizer", "zero buffers", "workspace")
"""Kinds of memory that a larger micro-batch does not add to."""


def assumed_rows(rows: pd.DataFrame, details: Details) -> Rows:
    """Every assumption of the predictions of one device, once a kernel where kernels differ."""
    kernels_of: dict[tuple[str, str], set[str]] = {}
    for record in _one_each(rows, ["kernel", "pass"], details):
        for name, sentence in _detail(record, "assumed").items():
            kernels_of.setdefault((str(name), str(sentence)), set()).add(record.cell.kernel)
    return tuple(
        (", ".join(sorted(kernels)), *assumption)
        for assumption, kernels in sorted(kernels_of.items())
    )


def states_rows(rows: pd.DataFrame, details: Details) -> Rows:
    """Model states beside deepspeed's estimate, for the predicted cells under ZeRO 2 and 3."""
    systems_of: dict[tuple[str, ...], list[str]] = {}
    sharded = rows[rows["zero"] >= 2]
    for record in _one_each(sharded, ["series", "zero", "world_size"], details):
        states = _detail(record, "states")
        own, estimate = (states.get(k) for k in ("held_bytes", "deepspeed_estimate_bytes"))
        if isinstance(own, int) and isinstance(estimate, int):
            figures = (
                str(record.cell.zero),
                f"{record.cell.world_size:,}",
                quantity(own, "B"),
                quantity(estimate, "B"),
                str(states.get("difference", "")),
            )
            series = rows.loc[rows["key"] == record.cell.key, "series"].iloc[0]
            systems_of.setdefault(figures, []).append(str(series))
    return tuple((", ".join(systems), *figures) for figures, systems in systems_of.items())


def table_2_rows(rows: pd.DataFrame, details: Details) -> Rows:
    """Predicted cells of the paper's setting beside its Table 2."""
    fits = (rows["model"] == "mistral-7b-v0.3") & (rows["pass"] == "train")
    fits &= (rows["scope"] != "layer") & (rows["zero"] == 3) & (rows["world_size"] == 32)
    fits &= rows["num_visual"].isin([S_ATTN.max_visual, D_ATTN.max_visual])
    fits &= rows["attention"].isin(["s_attn", "d_attn", "d_attn_biased"])
    lines = []
    for row in rows[fits & (rows["device"] == "h100-80gb")].to_dict("records"):
        published = S_ATTN if row["attention"] == "s_attn" else D_ATTN
        identity = (row["run"], row["key"], row["source"], row["device"])
        record = details.some([identity]).get(identity)
        capacity = None if record is None else record.details.get("capacity_bytes")
        if record is not None and isinstance(capacity, int) and not pd.isna(row["peak_bytes"]):
            lines.append(_table_2_row(row, published, record, capacity))
    return tuple(lines)


def _table_2_row(
    row: Mapping[Any, Any], published: Published, record: Record, capacity: int
) -> tuple[str, ...]:
    kinds = _detail(record, "memory_by_kind")
    fixed = sum(size for kind in FIXED if isinstance(size := kinds.get(kind), int))
    peak, seconds = int(row["peak_bytes"]), row["time_s"]
    samples = (capacity - fixed) / max(peak - fixed, 1) * record.cell.batch
    at_reach = row["num_visual"] == published.max_visual
    shared = row["num_visual"] == S_ATTN.max_visual  # Both systems can only be timed there.
    timed = not pd.isna(seconds)
    return (
        str(row["series"]),
        f"{row['num_visual']:,}",
        "the largest" if at_reach else "fits" if shared else "out of memory",
        quantity(peak, "B"),
        f"{peak / capacity:.0%}",
        f"{samples:.2f}",
        f"{seconds:.2f}" if timed else "n/a",
        f"{published.seconds:.2f}" if shared else "",
        f"{published.seconds / seconds:.2f}×" if shared and timed else "",
    )


def _detail(record: Record, name: str) -> dict[str, Any]:
    """A mapping among the details: a stranger's store may hold anything there."""
    value = record.details.get(name)
    return value if isinstance(value, dict) else {}


def _one_each(rows: pd.DataFrame, columns: list[str], details: Details) -> list[Record]:
    """One predicted record for each combination of ``columns``."""
    predictions = rows[rows["source"] == "predicted"].drop_duplicates(columns)
    identities = predictions[["run", "key", "source", "device"]].itertuples(index=False, name=None)
    keys = [(str(a), str(b), str(c), str(d)) for a, b, c, d in identities]
    return list(details.some(keys).values())
