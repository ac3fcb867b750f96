"""A calibration from records whose seconds are known to be of given rates, and its use."""

import json
import math
import random
import shlex
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from workbench import write_report
from workbench.cli import main
from workbench.probe.counting.trace import trace
from workbench.probe.predicting.predict import predict
from workbench.probe.predicting.roofline import Rates, predict_times, works
from workbench.probe.workers.seat import Seat
from workbench.report.command import repeat
from workbench.store import Store
from workbench.sweep.calibrate import calibrate, floor_of, unusable
from workbench.sweep.calibration_fit import Case, Cases, fit
from workbench.sweep.calibration_transfer import carried
from workbench.sweep.plan import plan
from workbench.sweep.run import environment_of, run_sweep
from workbench.sweep.validate import validation
from workbench.vocabulary.calibration import Calibration, Choice
from workbench.vocabulary.calibration_parts import kind_of
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.devices import DEVICES
from workbench.vocabulary.errors import Failure, RequestError
from workbench.vocabulary.record import Environment, Record
from workbench.vocabulary.sweep import Grid, Sweep

CARD = "h200-141gb"
H200 = Environment(gpu="NVIDIA H200", driver="570", cuda="12.8", torch="2.11.0")
TRUE = Rates(
    flops_per_s={
        "matmul bfloat16": 640e12,
        "attention flash bfloat16": 520e12,
        "attention flash bfloat16 backward": 410e12,
    },
    bytes_per_s=3.9e12,
    optimizer_bytes_per_s=3.9e12,
    exposed=0.3,
    overhead_s=2e-6,
    launch_s=7e-6,
)
MODELS = ("qwen2-0.5b", "mistral-7b-v0.3")
"""Of different widths: in one layer FLOPs and bytes of a token are in a fixed proportion."""
SIZES = (64, 1024, 8192, 131_072)


@cache
def work_of(model: str, attention: str, pass_: str, visual: int):
    cell = make_cell(
        model=model, attention=attention, kernel="flash", num_visual=visual, **{"pass": pass_}
    )
    return cell, works(cell, trace(cell))


def measured(noise: float, environment: Environment = H200, **fields) -> list[Record]:
    """Records whose seconds are those of TRUE, but for some noise."""
    draw = random.Random(7)
    found = []
    for point in product(MODELS, ("s_attn", "d_attn"), ("forward", "train"), SIZES):
        cell, work = work_of(*point)
        seconds = predict_times(work, TRUE, None).total * math.exp(draw.gauss(0, noise))
        found.append(
            Record(
                cell=cell,
                source="measured",
                device="NVIDIA H200",
                status="ok",
                metrics={"time_s": seconds},
                environment=environment,
                **fields,
            )
        )
    return found


def stored(path, records: list[Record]):
    with Store.open(path, "w") as store:
        run = store.begin_run("seen", {}, records[0].environment)
        store.add_many(run, records)
    return path


@pytest.fixture(scope="module")
def exact(tmp_path_factory) -> Calibration:
    path = tmp_path_factory.mktemp("exact") / "s.db"
    return calibrate([stored(path, measured(0.0))])


@pytest.fixture(scope="module")
def file(tmp_path_factory, exact):
    path = tmp_path_factory.mktemp("file") / "h200.json"
    exact.write(path)
    return path


def test_known_rates_are_recovered(exact) -> None:
    for name, rate in TRUE.flops_per_s.items():
        assert exact.flops_per_s[name].value == pytest.approx(rate, rel=0.03), name
    assert exact.bytes_per_s["operators"].value == pytest.approx(TRUE.bytes_per_s, rel=0.05)
    assert exact.launch_s is not None
    assert exact.launch_s.value == pytest.approx(TRUE.launch_s, rel=0.02)
    assert exact.fitted.worst < 0.02
    assert exact.held_out["cells"].worst < 0.05
    matmul = exact.flops_per_s["matmul bfloat16"]
    assert matmul.efficiency == pytest.approx(640 / 989.4, rel=0.03)


def cases_of(records: list[Record], factor: float = 1.0) -> Cases:
    """Records as cases, their seconds times a factor."""
    return Cases(
        [
            Case(
                r.cell.attention,
                work_of(r.cell.model, r.cell.attention, r.cell.pass_, r.cell.num_visual)[1],
                0,
                float(r.metrics["time_s"] or 0) * factor,
            )
            for r in records
        ]
    )


def test_one_odd_cell_decides_nothing() -> None:
    cases = cases_of(measured(0.0))
    cases.measured[3] *= 20
    found = fit(cases, floor_of(cases, DEVICES[CARD]), True)
    errors = cases.seconds(found.cost) / cases.measured - 1
    assert errors[3] < -0.9
    assert np.median(abs(np.delete(errors, 3))) < 0.03


def test_the_fit_and_the_prediction_are_one_model(exact, file) -> None:
    for record in measured(0.0)[::5]:
        predicted = predict(record.cell, CARD, str(file))
        assert predicted.metrics["time_s"] == pytest.approx(record.metrics["time_s"], rel=0.02)
        assert any(flag.startswith(f"calibrated: {CARD}") for flag in predicted.flags)
        assert not any(flag.startswith("uncalibrated") for flag in predicted.flags)
        assert predicted.details["calibration"]["num_records"] == 32


def test_no_rate_is_above_the_peak() -> None:
    cases = cases_of(measured(0.0), 0.1)
    found = fit(cases, floor_of(cases, DEVICES[CARD]), True)
    assert 1 / found.cost["matmul bfloat16"] <= 989.4e12 * 1.001


def test_the_file_is_readable_sorted_and_says_where_it_is_from(exact, file) -> None:
    assert Calibration.read(file) == exact
    document = json.loads(file.read_text())
    assert list(document) == sorted(document)
    assert document["stores"][0]["num_records"] == 32
    assert document["environments"] == [
        {
            "gpu": "NVIDIA H200",
            "driver": "570",
            "cuda": "12.8",
            "cpu": None,
            "num_threads": None,
            "torch": "2.11.0",
            "transformers": None,
        }
    ]
    assert document["covered"]["num_visual"] == [64, 131_072]


def flag_of(record: Record, name: str) -> str:
    return next((flag for flag in record.flags if flag.startswith(f"{name}:")), "")


def test_beyond_what_was_measured_is_said(file) -> None:
    cell = make_cell(model="qwen2-0.5b", attention="himix", kernel="cudnn", num_visual=200_000)
    found = predict(cell, CARD, str(file))
    beyond = flag_of(found, "beyond_calibration")
    for word in ("'himix'", "'cudnn'", "200,000", "64 to 131,072"):
        assert word in beyond
    assert "cudnn" in flag_of(found, "stand_in")
    assert found.metrics["time_s"]
    inside = predict(
        cell.replace(attention="d_attn", kernel="flash", num_visual=512), CARD, str(file)
    )
    assert flag_of(inside, "beyond_calibration") == flag_of(inside, "stand_in") == ""


def test_an_h200_calibrates_an_h100(exact, file, tmp_path, capsys) -> None:
    there = carried(exact, "h100-80gb")
    assert there.flops_per_s == exact.flops_per_s
    assert (there.overheads, there.start_s) == (exact.overheads, exact.start_s)
    for name, rate in exact.bytes_per_s.items():
        assert there.bytes_per_s[name].value == pytest.approx(rate.value * 3.35 / 4.8)
        assert there.bytes_per_s[name].efficiency == rate.efficiency
    there.write(tmp_path / "h100.json")
    assert Calibration.read(tmp_path / "h100.json") == there
    cell = make_cell(model="qwen2-0.5b", attention="d_attn", kernel="flash", num_visual=512)
    found = predict(cell, "h100-80gb", str(tmp_path / "h100.json"))
    assert "h100-80gb, carried over from h200-141gb" in flag_of(found, "calibrated")
    assert "32 records on NVIDIA H200" in flag_of(found, "calibrated")
    slower = found.metrics["time_s"] / predict(cell, CARD, str(file)).metrics["time_s"]
    assert 1 <= slower <= 4.8 / 3.35


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a100-80gb", "of the same peaks"),
        ("cpu", "of the same peaks"),
        (CARD, "already"),
        ("h900", "h900"),
    ],
)
def test_where_a_calibration_cannot_be_carried_to(exact, name, message) -> None:
    with pytest.raises(RequestError, match=message):
        carried(exact, name)


def test_without_one_a_prediction_says_so(file) -> None:
    cell = make_cell(model="qwen2-0.5b", num_visual=512)
    for found in (predict(cell, "a100-80gb"), predict(cell, CARD, "none")):
        assert flag_of(found, "uncalibrated")
    assert predict(cell, "cpu").metrics["time_s"] is None


def test_one_that_comes_with_the_workbench_is_found(exact, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("workbench.vocabulary.calibration.PACKAGED", tmp_path)
    exact.write(tmp_path / f"{CARD}.json")
    cell = make_cell(model="qwen2-0.5b", attention="d_attn", kernel="flash", num_visual=512)
    assert flag_of(predict(cell, CARD), "calibrated")
    assert flag_of(predict(cell, CARD, "none"), "uncalibrated")
    assert flag_of(predict(cell, "h100-80gb"), "uncalibrated")


def test_the_host_has_no_say_in_the_rates(exact) -> None:
    """Where the device waits, seconds may be anything: rates come from the other cells alone."""
    cases = cases_of(measured(0.0))
    floor = floor_of(cases, DEVICES[CARD])
    plain = fit(cases, floor, True)
    waiting = cases.host_bound(plain.cost)
    assert 0 < waiting.sum() < len(waiting) / 2
    slower = [
        case._replace(seconds=case.seconds * (1.6 if waits else 1), host_bound=bool(waits))
        for case, waits in zip(cases.cases, waiting, strict=True)
    ]
    found = fit(Cases(slower), floor, True)
    for name in TRUE.flops_per_s:
        assert found.cost[name] == pytest.approx(plain.cost[name], rel=0.01), name
    assert found.cost["launch"] > 1.3 * plain.cost["launch"]
    assert waiting.sum() <= found.num_host_bound < len(waiting) / 2


def test_a_flag_of_the_record_makes_a_cell_host_bound() -> None:
    cases = cases_of(measured(0.0))
    flagged = Cases([case._replace(host_bound=True) for case in cases.cases])
    assert flagged.host_bound({"bytes": 1e-12}).all()
    with pytest.raises(Failure, match="0 of 32 usable records are bound by the device"):
        fit(flagged, floor_of(cases, DEVICES[CARD]), True)


def test_a_rate_that_decides_no_cell_is_undetermined(tmp_path) -> None:
    """On a CPU whose memory is never the slower, as in the store of ``make sweep``."""
    cpu = Environment(cpu="one", num_threads=2)
    slow = Rates(dict.fromkeys(TRUE.flops_per_s, 1e11), 1e18, 1e18)
    records = []
    for point in product(MODELS, ("s_attn", "d_attn"), ("forward", "train"), SIZES[1:3]):
        cell, work = work_of(*point)
        records.append(
            Record(
                cell=cell,
                source="measured",
                device="cpu",
                status="ok",
                environment=cpu,
                metrics={"time_s": predict_times(work, slow, None).total},
            )
        )
    found = calibrate([stored(tmp_path / "cpu.db", records)])
    assert "bytes" in found.undetermined
    assert found.bytes_per_s == {}
    found.write(tmp_path / "cpu.json")
    predicted = predict(records[0].cell, "cpu", str(tmp_path / "cpu.json"))
    assert predicted.metrics["time_s"] == pytest.approx(records[0].metrics["time_s"], rel=0.05)
    assert "decided no measured cell" in flag_of(predicted, "stand_in")


def test_noise_is_borne_and_errors_are_stated_by_kind_and_of_a_run_alone(tmp_path) -> None:
    records = measured(0.03)
    path = tmp_path / "s.db"
    with Store.open(path, "w") as store:
        for name, some in (("layers-a", records[:16]), ("layers-b", records[16:])):
            store.add_many(store.begin_run(name, {}, H200), some)
    found = calibrate([path], alone="layers-a")
    for name in ("matmul bfloat16", "attention flash bfloat16"):
        assert found.flops_per_s[name].value == pytest.approx(TRUE.flops_per_s[name], rel=0.15)
    assert 0.005 < found.held_out["cells"].median < 0.08
    assert found.held_out["alone"].num_cells == 16
    kinds = found.held_out_by_kind["cells"]
    assert {"layer forward", "layer train"} <= set(kinds)
    assert sum(spread.num_cells for spread in kinds.values()) == 32
    said = found.error_of("layer train")
    median = found.held_out_by_kind["alone"]["layer train"].median
    assert f"held-out error of layer train: {median:.1%} at the median" in said
    assert "a fit of the run layers-a alone" in said
    assert "nobody knows" in found.error_of("decode")
    with pytest.raises(RequestError, match="alone 'else'"):
        calibrate([path], alone="else")


def test_kinds_of_cells() -> None:
    cell = make_cell(num_visual=64)
    assert kind_of(cell) == "layer forward"
    assert kind_of(cell.replace(scope="decoder"), True) == "prefill, host-bound"
    assert kind_of(cell.replace(scope="lvlm", **{"pass": "train"})) == "training step with tower"
    assert kind_of(cell.replace(scope="decoder", **{"pass": "decode"})) == "decode"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"device": "h100-80gb"}, "belongs to device 'h100-80gb'"),
        ({"version": 9}, "version"),
        ({"version": 1}, "writes version 2"),
        *(
            ({field: {name: {"value": value, "low": 0, "high": 1, "num_cells": 1}}}, shown)
            for field, name, value, shown in (
                ("flops_per_s", "matmul bfloat16", 5e-324, "1e+06 to 1e+18 FLOP/s"),
                ("flops_per_s", "matmul bfloat16", 1e308, "1e+06 to 1e+18 FLOP/s"),
                ("bytes_per_s", "operators", 5e-324, "10000 to 1e+16 B/s"),
                ("bytes_per_s", "operators", 1e308, "10000 to 1e+16 B/s"),
                ("start_s", "train", 1e308, "0 to 60 s"),
                ("flops_per_s", "\x1b[2J", 1e12, "flops_per_s.\\x1b[2J"),
            )
        ),
        *(
            (
                {name: {"value": 1e308, "low": 0, "high": 1, "num_cells": 1}},
                f"{name}: value 1e+308",
            )
            for name in ("exposed", "overhead_s", "launch_s")
        ),
        ({"flops_per_s": {"matmul bfloat16": {"value": -1}}}, "flops_per_s.matmul bfloat16"),
        ({"surprise": 1}, "surprise"),
        (None, "UTF-8"),
        ("gone", "no such file"),
    ],
)
def test_a_file_of_no_use_is_one_line_and_exit_2(file, tmp_path, capsys, change, message) -> None:
    path = tmp_path / "bad.json"
    if isinstance(change, dict):
        path.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    elif change is None:
        path.write_bytes(b"\xff{")
    with pytest.raises(SystemExit) as left:
        main(["predict", "--visual", "1", "--device", CARD, "--calibration", str(path)])
    assert left.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert message in said[0]


def test_records_that_do_not_belong_together_are_refused(tmp_path) -> None:
    records = measured(0.0)[:12]
    other = H200.model_copy(update={"gpu": "NVIDIA H200 NVL"})
    mixed = [*records[:6], *(r.model_copy(update={"environment": other}) for r in records[6:])]
    path = tmp_path / "mixed.db"
    with Store.open(path, "w") as store:
        for environment, some in ((H200, mixed[:6]), (other, mixed[6:])):
            store.add_many(store.begin_run("seen", {}, environment), some)
    with pytest.raises(RequestError, match="NVIDIA H200 NVL"):
        calibrate([path])
    with pytest.raises(Failure, match="3 usable records"):
        calibrate([stored(tmp_path / "few.db", records[:3])])


def test_unusable_records_are_left_out_with_their_reason() -> None:
    record = measured(0.0)[0]
    assert unusable(record) == ""
    compiled = record.model_copy(update={"cell": record.cell.replace(compile=True)})
    assert unusable(compiled) == "compiled"
    assert unusable(record.model_copy(update={"flags": ["no_warmup: x"]})) == "no warm-up"
    assert unusable(record.model_copy(update={"metrics": {"time_s": None}})) == "no time"
    sharded = record.model_copy(update={"cell": record.cell.replace(zero=3, world_size=32)})
    assert unusable(sharded) == "several processes"
    emulated = {"flags": ["emulated: one rank"]}
    assert unusable(sharded.model_copy(update=emulated)) == ""
    cold = {"flags": ["emulated: one rank", "no_warmup: x"], "metrics": {"time_s": 7.7}}
    assert unusable(sharded.model_copy(update=cold)) == ""


def test_a_sweep_predicts_with_it_and_another_one_is_another_run(file, client, tmp_path) -> None:
    path = tmp_path / "s.db"
    grid = Grid(source="predicted", device=CARD, visual=(64, 128), models="qwen2-0.5b")
    sweep = Sweep(name="small", grids=(grid,))
    choice = Choice.of([str(file)])
    assert run_sweep(sweep, path, client=client, calibrations=choice).num_ran == 2
    again = run_sweep(sweep, path, client=client, calibrations=choice)
    assert (again.num_held, again.num_ran) == (2, 0)
    without = Choice.of(["none"])
    assert run_sweep(sweep, path, client=client, calibrations=without).num_ran == 2
    packaged = run_sweep(sweep, path, client=client)
    assert packaged.num_ran == 2
    with Store.open(path) as store:
        kinds = [flag.split(":")[0] for r in store.records() for flag in r.flags[:1]]
        assert len(store.runs()) == 3
    assert kinds == ["calibrated"] * 2 + ["uncalibrated"] * 2 + ["calibrated"] * 2
    named = sweep.replace(grids=[grid.model_dump() | {"calibration": str(file)}])
    seat = Seat()
    assert environment_of(plan(named), seat) == environment_of(plan(sweep, choice), seat)


def test_what_repeats_a_prediction_names_its_calibration(
    file, client, tmp_path, capsys, monkeypatch
) -> None:
    """By the file's name and its content: one that has changed since is refused."""
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "mine.json"
    mine.write_text(file.read_text())
    cell = make_cell(model="qwen2-0.5b", num_visual=64)
    for asked in (str(mine), "mine.json"):
        record = predict(cell, CARD, asked)
        assert record.details["calibration"]["file"] == "mine.json"
    digest = Calibration.read(mine).digest
    command = repeat(record)
    assert command.endswith(f"--calibration mine.json@{digest[:12]} --device {CARD}")
    main([*shlex.split(command)[1:], "--json"])
    again = json.loads(capsys.readouterr().out)
    assert again["metrics"]["time_s"] == record.metrics["time_s"]
    assert repeat(predict(cell, CARD, f"mine.json@{digest}")) == command
    assert "file" not in predict(cell, "h100-80gb").details["calibration"]

    sweep = Sweep(name="s", grids=(Grid(source="predicted", device=CARD, visual=(64,)),))
    choice = Choice.of([f"{mine}@{digest[:12]}"])
    assert run_sweep(sweep, Path("s.db"), client=client, calibrations=choice).num_ran == 1
    write_report("s.db", "out", static_images=False)
    text = (tmp_path / "out" / "REPRODUCE.md").read_text()
    assert f"--store again.db --calibration mine.json@{digest[:12]}\n" in text
    assert str(tmp_path) not in text

    mine.write_text(mine.read_text().replace('"num_records": ', '"num_records": 1'))
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(shlex.split(command)[1:])
    line = capsys.readouterr().err
    assert end.value.code == 2
    assert line.startswith("workbench: calibration mine.json: has changed, its digest is ")
    assert f"and not {digest[:12]}" in line
    with pytest.raises(RequestError, match="has changed"):
        Choice.of([f"mine.json@{digest[:12]}"])


def test_calibrations_are_chosen_by_device(file) -> None:
    assert Choice.of(["none"]).file("cpu") == "none"
    assert Choice.of([str(file)]).file("cpu") is None
    with pytest.raises(RequestError, match="already"):
        Choice.of([str(file), str(file)])
    with pytest.raises(RequestError, match="none"):
        Choice.of([str(file), "none"])
    with pytest.raises(RequestError, match="predicted: cpu"):
        Choice.of([str(file)]).check(["cpu"])


def test_validation_with_and_without(file, tmp_path) -> None:
    path = stored(tmp_path / "s.db", measured(0.0)[:6])
    plain, calibrated = (
        validation(path, calibrations=Choice.of([asked])) for asked in ("none", str(file))
    )
    (before,), (after,) = (
        [row for row in found["summary"] if row["metric"] == "time_s"]
        for found in (plain, calibrated)
    )
    assert before["bias"] < -0.3
    assert after["worst"] < 0.02
    sizes = [row["num_visual"] for row in calibrated["by_visual"] if row["metric"] == "time_s"]
    assert sizes == list(SIZES)
