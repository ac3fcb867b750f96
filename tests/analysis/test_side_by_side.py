"""Two systems at equal |V|: the ratios are those of the records, and a host's pace makes none."""

import pandas as pd
import pytest

from workbench.analysis.side_by_side import side_by_side
from workbench.dashboard.two_systems import who_wins

FLAGS = ("host_bound: the card was busy for 40 % of an iteration",)


def frame() -> pd.DataFrame:
    """D-Attn from 256 to 4,096, S-Attn to 1,024, where the first is the host's."""
    rows = [
        {"series": "D", "num_visual": 256, "time_s": 0.5, "peak_bytes": 8, "flops": 10},
        {"series": "D", "num_visual": 512, "time_s": 1.0, "peak_bytes": 8, "flops": 20},
        {"series": "D", "num_visual": 1024, "time_s": 2.0, "peak_bytes": 8, "flops": 40},
        {"series": "D", "num_visual": 4096, "time_s": 8.0, "peak_bytes": 8, "flops": 160},
        {"series": "S", "num_visual": 256, "time_s": 0.4, "peak_bytes": 8, "flops": 10},
        {"series": "S", "num_visual": 512, "time_s": 0.8, "peak_bytes": 10, "flops": 30},
        {"series": "S", "num_visual": 1024, "time_s": 5.0, "peak_bytes": 16, "flops": 120},
        {"series": "S", "num_visual": 4096, "time_s": None, "peak_bytes": None, "flops": None},
    ]
    facts = {"run": "r", "source": "measured", "device": "cpu", "status": "ok"}
    made = pd.DataFrame(
        [{**row, **facts, "key": f"{i}", "flags": ()} for i, row in enumerate(rows)]
    )
    made["flags"] = [FLAGS if i == 4 else () for i in range(len(made))]
    made.loc[made["time_s"].isna(), "status"] = "oom"
    return made


def test_ratios_are_baseline_over_system() -> None:
    samples = {("r", "2", "measured", "cpu"): [2.0, 2.1, 1.9] * 4}
    samples[("r", "6", "measured", "cpu")] = [5.0, 5.1, 4.9] * 4
    table = side_by_side(frame(), "D", "S", samples)
    seconds = table[table["metric"] == "time_s"].set_index("num_visual")
    assert list(seconds.index) == [256, 512, 1024]  # S-Attn was out of memory at 4,096.
    assert pd.isna(seconds.loc[256, "ratio"])
    assert seconds.loc[512, "ratio"] == pytest.approx(0.8)
    assert seconds.loc[1024, "ratio"] == pytest.approx(2.5)
    assert seconds.loc[1024, "low"] < 2.5 < seconds.loc[1024, "high"]
    assert pd.isna(seconds.loc[512, "low"])
    flops = table[table["metric"] == "flops"]
    assert flops["ratio"].tolist() == [1, 1.5, 3]
    assert flops["low"].isna().all()


def test_the_sentence_says_who_wins_where() -> None:
    table = side_by_side(frame(), "D", "S", {})
    assert who_wins(table, "D", "S") == (
        "S is 1.25× as fast as D at |V| = 512; D is 2.50× as fast as S at |V| = 1,024, where"
        " D takes 2.00× less peak memory and 3.00× fewer FLOPs."
    )
    bytes_alone = table[table["metric"] == "peak_bytes"]
    assert who_wins(bytes_alone, "D", "S") == (
        "At |V| = 1,024 D takes 2.00× less peak memory than S."
    )
    assert side_by_side(frame(), "D", "gone", {}).empty
