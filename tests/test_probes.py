"""Every probe is a sweep of real names, and a program."""

import subprocess
import sys
from pathlib import Path

import pytest

from workbench.devices import DEVICES
from workbench.lvlm.build import check
from workbench.spec import Grid, Sweep
from workbench.sweep import machine
from workbench.sweep.plan import load_probe

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


@pytest.mark.parametrize(
    ("dtype", "rate", "forward", "train"),
    [
        ("float32", 1.29e11, (64, 256, 1024), (64, 128, 256)),
        ("bfloat16", 8e11, (64, 256, 1024, 4096), (64, 128, 256, 512, 1024)),
        ("bfloat16", 1e14, tuple(64 * 2**i for i in range(8)), (64, 128, 256, 512, 1024)),
    ],
)
def test_the_default_fits_the_cpu_and_meets_a_real_oom(
    monkeypatch: pytest.MonkeyPatch,
    dtype: str,
    rate: float,
    forward: tuple[int, ...],
    train: tuple[int, ...],
) -> None:
    sweep = default(monkeypatch, dtype, rate)
    measured = [p for p in sweep.points() if p.source == "measured"]
    assert {p.cell.dtype for p in measured} == {dtype}
    assert {p.protocol.min_samples for p in measured} == {3}
    limits = {p.protocol.memory_limit for p in measured}
    assert all(limit is not None and limit <= 12 * 2**30 for limit in limits)
    found = points(sweep, "measured")
    fused = [("s_attn", "sdpa"), ("d_attn", "sdpa")]
    for system in [("s_attn", "eager"), *fused]:
        extra = (8192,) if system == ("s_attn", "eager") and 8192 not in forward else ()
        assert tuple(v for *s, p, v in found if (*s,) == system and p == "forward") == (
            *forward, *extra,
        )  # fmt: skip
        assert tuple(v for *s, p, v in found if (*s,) == system and p == "train") == train
    # float32 scores of 8,192 tokens, the mask added to them and their softmax: beyond any limit.
    assert ("s_attn", "eager", "forward", 8192) in found
    assert 2 * 32 * 8256**2 * 4 > 12 * 2**30


def test_the_default_goes_to_the_oom_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "has_cuda", lambda: True)
    sweep = load_probe(FOLDER / "default.py")
    measured = [grid for grid in sweep.grids if grid.source == "measured"]
    assert {grid.device for grid in measured} == {"cuda"}
    eager, fused = measured

    def score_bytes(grid: Grid) -> int:
        return 32 * max(grid.visual) ** 2 * 2

    assert score_bytes(eager) > 192e9
    # Gate, up and their product, and two residual streams: what a fused forward holds of a token.
    assert max(fused.visual) * (3 * 14_336 + 2 * 4096) * 2 > 100e9


def test_the_sizes_are_those_of_real_pictures_and_videos() -> None:
    sizes = {v for *_, v in points(load_probe(FOLDER / "long_video.py"), "predicted")}
    assert {60 * 196, 3600 * 729, 14_400 * 729} <= sizes
    images = {v for *_, v in points(load_probe(FOLDER / "single_image.py"), "predicted")}
    assert {729, 256, 1536, 2928} <= images
