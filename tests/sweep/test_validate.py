"""Predictions against measured records of a real store."""

from tests.small import small_model
from workbench.probe.measuring.measure import measure
from workbench.store import Store
from workbench.sweep.validate import validation
from workbench.telling.validation import both_sources, errors_by
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Environment


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
    assert [row["num_cells"] for row in found["by_visual"]] == [2, 2, 2, 2]
    assert found["run"] is None
    kept = validation(path, keep=True)
    with Store.open(path) as store:
        predicted = [r for r in store.records(kept["run"]) if r.source == "predicted"]
        pairs = both_sources(store.frame().assign(series="all"))
    assert [r.cell for r in predicted] == cells
    assert set(pairs["metric"]) == {"flops", "peak_bytes"}
    table = errors_by(pairs, "num_visual")
    assert list(table["cells"]) == [2, 2, 2, 2]
    assert table["worst"].max() <= 0.02
