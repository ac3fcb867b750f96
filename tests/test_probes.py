"""Every probe is a sweep of real names, and a program."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.lvlm.cell_check import check
from workbench.sweep import machine
from workbench.sweep.plan import load_probe
from workbench.vocabulary.devices import DEVICES
from workbench.vocabulary.record import Environment
from workbench.vocabulary.sweep import Sweep

FOLDER = Path(__file__).parents[1] / "probes"
PROBES = sorted(FOLDER.glob("*.py"))


def points(sweep: Sweep, source: str) -> list[tuple[str, str, str, int]]:
    """(attention, kernel, pass, |V|) of each point of a source."""
    return [
        (p.cell.attention, p.cell.kernel, p.cell.pass_, p.cell.num_visual)
        for p in sweep.points()
        if p.source == source
    ]


@pytest.mark.parametrize("path", PROBES, ids=lambda path: path.stem)
def test_every_name_exists(path: Path) -> None:
    sweep = load_probe(path)
    assert sweep.name == path.stem.replace("_", "-")
    for cell in {p.cell.replace(num_visual=1).key: p.cell for p in sweep.points()}.values():
        check(cell)
    assert all(p.device in DEVICES for p in sweep.points() if p.source == "predicted")


@pytest.mark.parametrize("path", PROBES, ids=lambda path: path.stem)
def test_it_is_a_program_and_a_second_look_is_the_same(path: Path) -> None:
    first, second = ([(p.cell, p.source) for p in load_probe(path).points()] for _ in "12")
    assert first == second
    command = [sys.executable, str(path), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "PROBE.py|SPEC.yaml" in done.stdout


def default(monkeypatch: pytest.MonkeyPatch, dtype: str, rate: float) -> Sweep:
    """The default probe on a machine without a GPU whose CPU is that fast."""
    speed = machine.CpuSpeed(dtype, rate)  # type: ignore[arg-type]
    monkeypatch.setattr(machine, "has_cuda", lambda: False)
    monkeypatch.setattr(machine, "cpu_speed", lambda: speed)
    return load_probe(FOLDER / "default.py")


def test_the_default_predicts_three_systems_on_an_h100(monkeypatch: pytest.MonkeyPatch) -> None:
    found = points(default(monkeypatch, "float32", 1.29e11), "predicted")
    systems = [("s_attn", "eager"), ("s_attn", "sdpa"), ("d_attn", "sdpa")]
    sizes = [256 * 2**i for i in range(10)]
    expected = [(a, k, p, v) for p in ("forward", "train") for a, k in systems for v in sizes]
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_default_ends_with_a_check_of_this_cpu(
    monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    sweep = default(monkeypatch, dtype, 1e11)
    sources = [p.source for p in sweep.points()]
    assert sources == sorted(sources, reverse=True)  # predicted first
    assert sweep.max_minutes is not None
    assert sweep.max_minutes <= 2
    measured = [p for p in sweep.points() if p.source == "measured"]
    assert {p.cell.dtype for p in measured} == {dtype}
    assert {p.protocol.min_samples for p in measured} == {3}
    limits = {p.protocol.memory_limit for p in measured}
    assert all(limit is not None and limit <= 12 * 2**30 for limit in limits)
    first, *found = points(sweep, "measured")
    # float32 scores of 8,192 tokens, the mask added to them and their softmax: beyond any limit.
    assert first == ("s_attn", "eager", "forward", 8192)
    assert 2 * 32 * 8256**2 * 4 > 12 * 2**30
    systems = [("s_attn", "eager"), ("s_attn", "sdpa"), ("d_attn", "sdpa")]
    # Whatever the minutes leave: three sizes of every system and pass before any larger one.
    asked = [(p, *s) for *s, p, _ in found[:18]]
    assert asked == [(p, *s) for p in ("forward", "train") for s in systems] * 3
    assert {v for *_, v in found[:18]} == {64, 128, 256}
    assert max(v for *_, p, v in found if p == "train") == 1024


H100 = machine.Card(0.55 * 989.4e12, 84_235_000_000)


@pytest.mark.parametrize(
    "gpu",
    [
        H100,
        machine.Card(0.55 * 989.4e12, 149_550_000_000),  # an H200
        machine.Card(0.55 * 165.2e12, 24_780_000_000),  # an RTX 4090
        machine.Card(0.55e14, 16 * 10**9),
    ],
)
def test_the_default_goes_to_the_oom_of_a_gpu_in_about_its_minutes(
    monkeypatch: pytest.MonkeyPatch, gpu: machine.Card
) -> None:
    monkeypatch.setattr(machine, "has_cuda", lambda: True)
    monkeypatch.setattr(machine, "card", lambda: gpu)
    probe = runpy.run_path(str(FOLDER / "default.py"), run_name="probe")
    measured = [grid for grid in probe["sweep"]().grids if grid.source == "measured"]
    assert {grid.device for grid in measured} == {"cuda"}
    spent = 0.0
    for grid in measured:
        *may_fit, fails = grid.visual
        assert len(may_fit) >= 3
        assert may_fit == sorted(may_fit)
        # The last size cannot fit under any of the systems; those before it perhaps do.
        for system in grid.options:
            assert probe["needs"](system, grid.passes[0], fails) > gpu.memory_bytes
        assert probe["needs"](grid.options[0], grid.passes[0], may_fit[-1]) <= gpu.memory_bytes
        spent += sum(probe["seconds"](grid.options, grid.passes, v, gpu) for v in may_fit)
        spent += probe["CELL_S"] * len(grid.options) * len(grid.passes)
    assert spent < 170
    systems = {(o["attention"], o["kernel"]) for grid in measured for o in grid.options}
    assert systems == {("s_attn", "eager"), ("s_attn", "sdpa"), ("d_attn", "sdpa")}


def test_a_card_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "device_name", lambda word: "NVIDIA H100 80GB HBM3")
    found = machine.card()
    assert found.flops_per_s == pytest.approx(H100.flops_per_s)
    assert found.memory_bytes == pytest.approx(H100.memory_bytes, rel=1e-3)
    monkeypatch.setattr(machine, "device_name", lambda word: "NVIDIA Unheard-of")
    facts = Environment(gpu_memory_bytes=10**10)
    monkeypatch.setattr(machine, "environment", lambda word: facts)
    assert machine.card() == pytest.approx((0.55e14, 10**10))


def test_the_sizes_are_those_of_real_pictures_and_videos() -> None:
    sizes = {v for *_, v in points(load_probe(FOLDER / "long_video.py"), "predicted")}
    assert {60 * 196, 3600 * 729, 14_400 * 729} <= sizes
    images = {v for *_, v in points(load_probe(FOLDER / "single_image.py"), "predicted")}
    assert {729, 256, 1536, 2928} <= images
