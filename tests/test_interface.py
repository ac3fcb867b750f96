"""The Python interface: light to import, typed, and the numbers of the command line."""

import inspect
import json
import pkgutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest

import workbench
from workbench import Cell, Grid, Protocol, RequestError, Sweep, open_store, plot, predict
from workbench.report.over_visual import figure_over_visual
from workbench.store import Store

ROOT = Path(__file__).parents[1]
LAYER = Cell(num_visual=729, attention="d_attn", kernel="flash")

LIGHT = """
import sys, workbench
from workbench import Cell, Sweep, predict, measure, limit, run_sweep, open_store, write_report
assert dir(workbench) and workbench.__version__
print(sorted({"torch", "transformers", "pandas", "plotly", "numpy"} & set(sys.modules)))
"""
CALLABLE = """
import importlib, pkgutil, workbench
for found in pkgutil.iter_modules(workbench.__path__, "workbench."):
    if found.name != "workbench.__main__":
        importlib.import_module(found.name)
print([n for n in workbench.__all__ if not callable(getattr(workbench, n))])
"""


def python(code: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_it_imports_neither_torch_nor_pandas() -> None:
    assert python(LIGHT) == "[]"


def test_no_name_is_a_module_s() -> None:
    modules = {found.name for found in pkgutil.iter_modules(workbench.__path__)}
    assert not modules & set(workbench.__all__)
    assert python(CALLABLE) == "[]"


def test_every_name_is_listed_once_and_explained() -> None:
    listed = [name for names in workbench._MODULES.values() for name in names]
    assert sorted(listed) == sorted(workbench.__all__)
    for name in workbench.__all__:
        value = getattr(workbench, name)
        assert (value.__doc__ or "").strip(), name
        if inspect.isfunction(value):
            assert all(
                p.annotation is not p.empty for p in inspect.signature(value).parameters.values()
            )


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"workbench.*'predicted'"):
        workbench.predicted  # noqa: B018


def test_its_types_are_shipped() -> None:
    assert (files("workbench") / "py.typed").is_file()


def test_predict_gives_the_record_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    from workbench.cli import main

    record = predict(LAYER, "h200-141gb")
    words = f"predict --attention d_attn --kernel flash --visual {LAYER.num_visual}"
    main([*words.split(), "--device", "h200-141gb", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert record.status == told["status"] == "ok"
    assert record.metrics == told["metrics"]
    assert record.flags == told["flags"]


def test_a_limit_is_a_bracket() -> None:
    found = workbench.limit(LAYER.replace(pass_="train"), "rtx-4090-24gb")
    assert found.fails_at is not None
    assert found.max_visual is not None
    assert found.max_visual < found.fails_at <= 1.01 * found.max_visual
    with pytest.raises(RequestError, match=r"protocol.*measured=True"):
        workbench.limit(LAYER, protocol=Protocol())


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that a sweep of the interface filled: measured and predicted cells."""
    path = tmp_path_factory.mktemp("interface") / "kept.db"
    brief = Protocol(max_seconds=0.2, min_samples=3, precision=None)
    small = {"models": ("tinyllama-1.1b",), "attentions": ("s_attn", "d_attn")}
    sweep = Sweep(
        name="interface",
        grids=(
            Grid(source="predicted", device="h100-80gb", visual=(64, 128, 256), **small),
            Grid(device="cpu", visual=(64,), dtypes=("float32",), protocol=brief, **small),
        ),
    )
    done = workbench.run_sweep(sweep, path)
    assert (done.num_ran, done.counts) == (8, {"ok": 8})
    assert workbench.run_sweep(sweep, path).num_ran == 0
    return path


def test_a_store_is_a_frame(kept: Path) -> None:
    with open_store(kept) as store:
        frame = store.frame()
        metrics = [record.metrics for record in store.records()]
    assert len(frame) == len(metrics) == 8
    for name in ("flops", "peak_bytes", "time_s"):
        assert frame[name].tolist() == [found[name] for found in metrics]


def test_a_figure_shows_what_the_store_holds(kept: Path) -> None:
    figure = plot(kept, "flops")
    assert isinstance(figure, go.Figure)
    drawn = [trace.y for trace in figure.data if trace.mode != "lines" and trace.y[0] is not None]
    with open_store(kept) as store:
        assert plot(store, "flops").to_json() == figure.to_json()
        frame = store.frame()
    values = sorted({float(value) for line in drawn for value in line})
    in_tera = sorted({value / 1e12 for value in frame["flops"]})
    assert values == pytest.approx(in_tera, rel=1e-12)
    predicted = plot(frame[frame["source"] == "predicted"], ["flops", "time_s"], dark=True)
    assert len({trace.xaxis for trace in predicted.data if trace.xaxis}) == 2


def test_what_no_figure_can_show_is_refused(kept: Path) -> None:
    with open_store(kept) as store:
        frame = store.frame()
    mixed = frame.assign(scope=["layer", "decoder"] * 4)
    for data, metrics, words in (
        (frame, "tiem_s", "metric 'tiem_s' is unknown; did you mean time_s"),
        (frame, (), "metrics: none is given"),
        (frame.iloc[:0], "flops", "no record"),
        (frame.drop(columns="flops"), "flops", "'flops': is no column"),
        (mixed, "flops", "several subjects.*scope decoder, layer"),
        (3, "flops", "data of type int"),
    ):
        with pytest.raises(RequestError, match=words):
            plot(data, metrics)


def test_the_capacity_stands_in_a_store_s_figure(kept: Path) -> None:
    with Store.open(kept) as store:
        frame, runs = store.frame(details=("capacity_bytes", "memory_limit_bytes")), store.runs()
    # A capacity far above the cells is left out of the panel.
    near = frame.assign(capacity_bytes=2 * frame["peak_bytes"].max())
    with_line = figure_over_visual(near, runs, ("peak_bytes",)).to_dict()["layout"]
    without = figure_over_visual(near, (), ("peak_bytes",)).to_dict()["layout"]
    assert len(with_line["shapes"]) > len(without["shapes"])


def test_a_measured_cell(tmp_path: Path) -> None:
    cell = Cell(model="tinyllama-1.1b", dtype="float32", num_visual=16)
    brief = Protocol(max_seconds=20, min_samples=3, precision=None)
    found = workbench.measure(cell, "cpu", protocol=brief, trace=tmp_path / "traces")
    assert (found.status, found.source) == ("ok", "measured")
    assert len(found.samples["time_s"]) >= 3
    assert list((tmp_path / "traces").iterdir())
    with pytest.raises(RequestError, match="device"):
        workbench.measure(cell, "tpu")


def test_a_report_is_written(kept: Path, tmp_path: Path) -> None:
    written = workbench.write_report(kept, tmp_path / "report", static_images=False)
    assert written.html.is_file()


NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"


def code_cells() -> list[str]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    return ["".join(cell["source"]) for cell in code]


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path: Path) -> None:
    script = tmp_path / "tutorial.py"
    script.write_text("\n".join(code_cells()))
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "14 ran: {'ok': 14}" in done.stdout
    assert (tmp_path / "tutorial-report" / "report.html").is_file()


def test_the_tutorial_uses_the_whole_interface() -> None:
    used = "\n".join(code_cells())
    functions = [
        name for name in workbench.__all__ if inspect.isfunction(getattr(workbench, name))
    ]
    assert [name for name in functions if f"{name}(" not in used] == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda _: predict({"num_visual": 3}), "cell of type dict: Cell is right"),
        (lambda _: predict(LAYER, None), "device of type NoneType: str or PathLike is right"),
        (lambda _: predict(LAYER, calibration=3), "calibration of type int: str or PathLike or"),
        (lambda _: predict(LAYER, pictures="a.jpg"), "pictures of type str: Pictures or None is"),
        (lambda _: workbench.limit(None), "cell of type NoneType: Cell is right"),
        (lambda _: workbench.limit(LAYER, protocol={}), "protocol of type dict: Protocol or None"),
        (lambda _: workbench.measure("qwen2-0.5b"), "cell of type str: Cell is right"),
        (lambda _: workbench.measure(LAYER, protocol={}), "protocol of type dict: Protocol or"),
        (
            lambda _: workbench.measure(LAYER, trace=3),
            "trace of type int: str or PathLike or None",
        ),
        (
            lambda _: workbench.run_sweep({}),
            "sweep of type dict: Sweep or str or PathLike is right",
        ),
        (lambda _: workbench.run_sweep("a.yaml", None), "store of type NoneType: str or PathLike"),
        (lambda _: workbench.run_sweep("a.yaml", workers="2"), "workers of type str: int or None"),
        (
            lambda _: workbench.run_sweep("a.yaml", calibrations="c.json"),
            "calibrations 'c.json': a list of files is right",
        ),
        (lambda _: open_store(None), "path of type NoneType: str or PathLike is right"),
        (lambda folder: open_store(folder / "new.db", mode="x"), "mode 'x': r, to read, or w, to"),
        (
            lambda folder: plot(folder / "new.db", 3),
            "metrics of type int: str or Sequence is right",
        ),
        (lambda _: workbench.write_report(None, "x"), "store of type NoneType: str or PathLike"),
        (lambda _: workbench.write_report("x", 3), "folder of type int: str or PathLike is right"),
    ],
)
def test_an_argument_of_another_type_is_one_line(call, message, tmp_path):
    with pytest.raises(RequestError) as refusal:
        call(tmp_path)
    assert str(refusal.value).startswith(message)
    assert not list(tmp_path.iterdir())


def test_numbers_of_numpy_and_paths_are_values(tmp_path):
    (count,) = np.array([64])
    cell = Cell(num_visual=count, batch=np.int32(2), model=tmp_path)
    assert cell == Cell(num_visual=64, batch=2, model=str(tmp_path))
    assert (type(cell.num_visual), type(cell.model)) == (int, str)
    for value in (np.float64(64), np.bool_(True), True):
        with pytest.raises(ValueError, match="write a whole number"):
            Cell(num_visual=value)
