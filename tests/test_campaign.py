"""The reference campaign, rehearsed: what runs on a card, on the CPU with a tiny model."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from workbench.store import Store

SCRIPT = Path(__file__).parents[1] / "probes" / "reference_campaign.py"
BLOCKED = """
from importlib.machinery import PathFinder

NAMES = {"pandas", "plotly", "streamlit", "deepspeed", "pyarrow", "scipy", "kaleido"}
found = PathFinder.find_spec

def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in NAMES else found(name, path, target)

PathFinder.find_spec = find_spec
"""
"""As a node has it that brings torch and transformers alone."""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables of a process, and its children, without what the data half needs."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "sitecustomize.py").write_text(BLOCKED)
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{SCRIPT.parents[1]}"}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reference")


def rehearse(bare: dict[str, str], out: Path, *parts: int, minutes: float = 8) -> tuple[int, str]:
    words = [word for part in parts for word in ("--part", str(part))]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--rehearse", "--out", str(out), "--minutes", str(minutes),
         *words], env=bare, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def statuses(path: Path) -> Counter[str]:
    with Store.open(path) as store:
        assert store.check() == []
        return Counter(str(record.status) for record in store.records())


def test_ceilings_correctness_and_layers(bare: dict[str, str], out: Path) -> None:
    code, said = rehearse(bare, out, 1, 2, 3)
    assert code == 0, said
    assert statuses(out / "part-1.db") == {"ok": 1}
    checked = statuses(out / "part-2.db")
    assert set(checked) == {"ok", "unsupported"}
    with Store.open(out / "part-2.db") as store:
        norms = [record.details["relative_error"] for record in store.records()
                 if record.status == "ok"]  # fmt: skip
    assert all(0 <= norm < 1e-4 for found in norms for norm in found.values())
    assert any(norm > 0 for found in norms for norm in found.values())
    with Store.open(out / "part-3.db") as store:
        records = store.records()
    assert all(record.metrics["ceiling_flops_s"] for record in records if record.status == "ok")
    assert len({record.cell.num_visual for record in records}) == 3
    # A second call finds everything there.
    code, said = rehearse(bare, out, 3)
    assert (code, len(said.splitlines())) == (0, 1)


def test_steps_models_traces_and_the_comparison(bare: dict[str, str], out: Path) -> None:
    code, said = rehearse(bare, out, 5, 7, 6, 8)
    assert code == 0, said
    with Store.open(out / "part-5.db") as store:
        steps = store.records()
    assert {record.cell.num_visual for record in steps} == {24, 96}
    assert all(record.metrics["time_s"] for record in steps)
    assert all(any(f.startswith("emulated: ") for f in record.flags) for record in steps)
    with Store.open(out / "part-7.db") as store:
        passes = Counter(record.cell.pass_ for record in store.records())
    assert passes == {"forward": 4, "decode": 4, "train": 4}
    assert len(list((out / "traces").iterdir())) == 4
    assert statuses(out / "part-8.db") == {"ok": 1}
    assert "workbench calibrate does it where scipy is" in said
    (found, *_) = json.loads((out / "part-6.json").read_text())
    assert "peak_bytes" in {row["metric"] for row in found["summary"]}


def test_a_part_stops_when_its_minutes_are_over(bare: dict[str, str], tmp_path: Path) -> None:
    code, said = rehearse(bare, tmp_path, 3, minutes=0)
    assert code == 3
    assert "the same command goes on" in said


@pytest.mark.slow
def test_thresholds(bare: dict[str, str], tmp_path: Path) -> None:
    code, said = rehearse(bare, tmp_path, 4)
    assert code == 0, said
    found = json.loads((tmp_path / "part-4.json").read_text())
    limit = found["d_attn"]
    assert limit["num_oom"] <= 6
    assert limit["max_visual"] < limit["fails_at"]
    assert any(flag.startswith("emulated: ") for flag in limit["flags"])
    assert [record["cell"]["num_visual"] for record in found["all layers"]] == [
        limit["max_visual"], limit["fails_at"],
    ]  # fmt: skip
    # A size whose proof failed stays in the store as the one iteration that ran.
    assert 1 <= statuses(tmp_path / "part-4.db")["oom"] <= limit["num_oom"]


@pytest.mark.slow
def test_the_dry_run_plans_for_25_minutes(bare: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--dry-run", "--out", str(tmp_path)]
    done = subprocess.run(command, env=bare, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    minutes = [float(re.findall(r"([0-9.]+) min", line)[0]) for line in lines]
    assert len(lines) == 8
    assert minutes[-1] <= 25
    assert not list(tmp_path.iterdir())
