"""The reference campaign, rehearsed: the probes of a card, on the CPU with tiny models."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.small import small_model
from workbench.store import Store
from workbench.sweep.plan import load_probe, plan
from workbench.vocabulary.sweep import Grid, Sweep

PROBES = Path(__file__).parents[1] / "probes"
BLOCKED = """
from importlib.machinery import PathFinder

NAMES = {"pandas", "plotly", "streamlit", "deepspeed", "pyarrow", "scipy", "kaleido"}
found = PathFinder.find_spec

def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in NAMES else found(name, path, target)

PathFinder.find_spec = find_spec
"""
"""As a node has it that brings torch and transformers alone."""
TINY = {9_000: 24, 74_000: 96, 1_000_000: 384}
FAMILIES = {"gemma-2-9b": "gemma2", "qwen2.5-vl-7b": "qwen2_5_vl"}


def rehearsal(name: str, folder: Path) -> Sweep:
    """The probe's sweep with its options and protocols, on a CPU's scale."""

    def tiny(grid: Grid) -> Grid:
        (model,) = grid.models
        protocol = grid.protocol
        if protocol.iterations is None:
            protocol = protocol.model_copy(update={"min_samples": 2, "max_seconds": 5.0})
        chunks = ({**each, **({"chunk": 32} if "chunk" in each else {})} for each in grid.options)
        return grid.model_validate(
            {
                **grid.model_dump(),
                "device": "cpu",
                "dtypes": "float32",
                "text": 8,
                "models": small_model(FAMILIES.get(model, "mistral"), folder),
                "visual": tuple(TINY.get(v, max(8, v // 256)) for v in grid.visual),
                "options": tuple({**o, "compile": False} for o in chunks),
                "protocol": protocol,
            }
        )

    sweep = load_probe(PROBES / f"{name}.py")
    return sweep.replace(grids=tuple(map(tiny, sweep.grids)))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables of a process, and its children, without what the data half needs."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "sitecustomize.py").write_text(BLOCKED)
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{PROBES.parent}"}


def sweep_in(
    bare: dict[str, str], sweep: Sweep, folder: Path, *more: str
) -> tuple[int, str, list[object]]:
    """Exit code, what was said, and the statuses by cell of ``workbench sweep``."""
    probe, store = folder / "probe.py", folder / "node.db"
    text = sweep.model_dump_json(by_alias=True)
    probe.write_text(
        "from workbench import Sweep\n\ndef sweep():\n"
        f"    return Sweep.model_validate_json({text!r})\n"
    )
    command = [sys.executable, "-m", "workbench", "sweep", str(probe), "--store", str(store)]
    done = subprocess.run(
        [*command, *more], env=bare, capture_output=True, text=True, timeout=500, check=False
    )
    with Store.open(store) as opened:
        assert opened.check() == []
        return done.returncode, done.stderr, list(opened.records())


def test_the_campaign_stops_between_cells_and_goes_on(bare: dict[str, str], tmp_path: Path):
    sweep = rehearsal("reference", tmp_path)
    sweep = sweep.replace(grids=(sweep.grids[0], sweep.grids[-2]))
    cells = len(plan(sweep))
    code, said, records = sweep_in(bare, sweep, tmp_path, "--max-minutes", "0.0001")
    assert (code, records) == (3, [])
    assert f"the minutes are over, {cells} cells are left; to go on: " in said
    code, said, records = sweep_in(bare, sweep, tmp_path, "--max-minutes", "20")
    assert code == 0, said
    assert len(records) == cells
    # The most valuable first: the steps are the sweep's first grid, and an emulated rank each.
    assert [record.cell.kind for record in records] == [t.point.cell.kind for t in plan(sweep)]
    steps = [record for record in records if record.cell.scope == "decoder"]
    assert all(f.startswith("emulated: ") for r in steps for f in r.flags[:1])
    ran = [record for record in steps if record.status == "ok"]
    assert {record.cell.attention for record in ran} == {"s_attn", "d_attn"}
    assert all(record.metrics["time_s"] for record in ran)
    assert Counter(str(r.status) for r in records).keys() <= {"ok", "unsupported"}
    assert all(r.metrics["ceiling_flops_s"] for r in records if r.status == "ok")


def test_the_far_goal_times_its_second_iteration(bare: dict[str, str], tmp_path: Path) -> None:
    code, said, (record,) = sweep_in(bare, rehearsal("reference_far", tmp_path), tmp_path)
    assert code == 0, said
    assert record.metrics["num_samples"] == 1
    assert record.metrics["prepare_s"] > 0
    assert record.metrics["offload_bytes"] > 0


def test_every_kind_of_cell_is_there_in_the_order_of_its_worth() -> None:
    points = load_probe(PROBES / "reference.py").points()
    asked = [(p.cell.scope, p.cell.pass_, p.protocol.emulate) for p in points]
    assert asked[0] == ("decoder", "train", "all")
    kinds = list(dict.fromkeys(asked))
    assert kinds.index(("layer", "train", None)) < kinds.index(("decoder", "decode", None))
    assert {p.cell.model for p in points} == {"mistral-7b-v0.3", "gemma-2-9b", "qwen2.5-vl-7b"}
    assert sum(p.cell.compile for p in points) == 4
