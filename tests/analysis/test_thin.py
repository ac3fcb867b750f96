"""Fewer points, the same picture."""

import numpy as np
import pandas as pd
import pytest

from workbench.analysis.thin import MOST_POINTS, thin

COUNT = 5_000


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """Two systems, a spike in one of them, and a strip of cells that did not run."""
    frames = []
    for series in ("one", "two"):
        at = np.arange(1, COUNT + 1)
        seconds = at * 1e-3
        seconds[777] = 99.0 if series == "one" else seconds[777]
        frames.append(pd.DataFrame({"num_visual": at, "time_s": seconds, "series": series}))
    failed = pd.DataFrame({"num_visual": np.arange(COUNT), "series": "two", "status": "oom"})
    whole = pd.concat([*frames, failed], ignore_index=True)
    return whole.assign(
        model="m", source="measured", device="cpu", status=whole["status"].fillna("ok")
    )


def test_a_short_frame_stays_whole(rows: pd.DataFrame) -> None:
    short = rows.head(100)
    assert thin(short, ("time_s",)) is short


@pytest.mark.parametrize("panels", [1, 3])
def test_ends_extremes_and_endings_stay(rows: pd.DataFrame, panels: int) -> None:
    drawn = thin(rows, ("time_s",), panels)
    assert 100 < len(drawn) * panels <= MOST_POINTS
    assert drawn["time_s"].max() == 99.0
    for series in ("one", "two"):
        own = drawn[(drawn["series"] == series) & (drawn["status"] == "ok")]
        assert (own["num_visual"].min(), own["num_visual"].max()) == (1, COUNT)
    oom = drawn[drawn["status"] == "oom"]
    assert (oom["num_visual"].min(), oom["num_visual"].max()) == (0, COUNT - 1)
    assert drawn.index.is_monotonic_increasing


def test_the_few_cells_with_a_value_stay(rows: pd.DataFrame) -> None:
    alone = rows.assign(time_s=rows["time_s"].where(rows.index == 1234))
    drawn = thin(alone, ("time_s",))
    assert list(drawn["time_s"].dropna()) == [rows["time_s"][1234]]
    assert len(drawn) <= MOST_POINTS + 1
