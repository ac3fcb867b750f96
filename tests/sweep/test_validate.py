"""Predictions against measured records of a real store."""

import pytest

from tests.small import small_model
from workbench.errors import RequestError
from workbench.probe.measure import measure
from workbench.record import Environment
from workbench.spec import Protocol, make_cell
from workbench.store import Store
from workbench.sweep.validate import entry_of, validation


def test_every_measured_cell_is_held_against_its_prediction(tmp_path):
    path = tmp_path / "s.db"
    model = small_model("mistral", tmp_path)
    cells = [
        make_cell(model=model, attention=a, num_visual=v, dtype="float32")
        for a in ("s_attn", "d_attn")
        for v in (40, 80)
    ]
    with Store.open(path, "w") as store:
        run = store.begin_run("small", {}, Environment())
        for cell in cells:
            store.add(run, measure(cell, "cpu", Protocol(min_samples=1, precision=None)))
    found = validation(path)
    assert {row["metric"] for row in found["summary"]} == {"flops", "peak_bytes"}
    assert [row["num_cells"] for row in found["summary"]] == [2, 2, 2, 2]
    assert all(row["worst"] == 0 for row in found["summary"] if row["metric"] == "flops")
    assert all(row["worst"] <= 0.02 for row in found["summary"])


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("cpu", "cpu"),
        ("NVIDIA H200", "h200-141gb"),
        ("NVIDIA H100 80GB HBM3", "h100-80gb"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090-24gb"),
        ("NVIDIA L40S", "l40s-48gb"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("NVIDIA B200", "b200-192gb"),
    ],
)
def test_names_of_drivers(name, entry):
    assert entry_of(name) == entry


def test_an_unknown_card_lists_the_entries():
    with pytest.raises(RequestError, match="h100-80gb"):
        entry_of("NVIDIA T4")
