"""Fits on synthetic points: exact terms, honest intervals, the right shape."""

import numpy as np
import pytest

from workbench.analysis import Fit, fit_curve

VISUAL = [2**k for k in range(6, 17)]
CURVES = {
    "constant": (5.0, 0.0, 0.0),
    "linear": (0.02, 1e-5, 0.0),
    "quadratic": (0.02, 1e-5, 4e-9),
}


def points(terms: tuple[float, float, float], visual: list[int], noise: float, seed: int) -> list:
    chance = np.random.default_rng(seed)
    x = np.array(visual, dtype=float)
    y = terms[0] + terms[1] * x + terms[2] * x**2
    return list(y * (1 + noise * chance.standard_normal(len(x))))


def holds(fit: Fit, terms: tuple[float, float, float]) -> list[bool]:
    pairs = zip(fit.intervals, terms, strict=True)
    return [
        interval is not None and interval[0] <= term <= interval[1] for interval, term in pairs
    ]


def test_exact_counts_give_exact_terms() -> None:
    values = [436_207_616 * v + 16_384 * v**2 for v in VISUAL]
    fit = fit_curve(VISUAL, values)
    assert fit.shape == "quadratic"
    assert fit.terms == pytest.approx((0, 436_207_616, 16_384), rel=1e-9, abs=1e-3)
    assert fit.note == ""


def test_integers_beyond_63_bits_are_taken() -> None:
    values = [2**70 + 2**64 * v for v in VISUAL]
    fit = fit_curve(VISUAL, values)
    assert fit.shape == "linear"
    assert fit.terms[:2] == pytest.approx((2**70, 2**64), rel=1e-9)


@pytest.mark.parametrize("shape", CURVES)
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_the_shape_is_recognised(shape: str, noise: float) -> None:
    trials = 300
    shapes = [
        fit_curve(VISUAL, points(CURVES[shape], VISUAL, noise, s)).shape for s in range(trials)
    ]
    # The F-test is allowed to be wrong one time in a hundred.
    assert shapes.count(shape) >= (0.97 * trials if noise else trials)


def test_a_quadratic_is_recognised_where_one_slope_would_say_linear() -> None:
    # A real S-Attn layer on 2 % noise: its slope on log-log axes is near 1 over most of the range.
    terms = (28e9 / 1e11, 438e6 / 1e11, 16_384 / 1e11)
    visual = [2**k for k in range(6, 14)]
    slope = np.polyfit(np.log(visual), np.log(points(terms, visual, 0.02, 1)), 1)[0]
    assert slope < 1.1
    shapes = [fit_curve(visual, points(terms, visual, 0.02, s)).shape for s in range(200)]
    assert shapes.count("quadratic") >= 190


@pytest.mark.parametrize("shape", CURVES)
def test_intervals_cover_at_their_level(shape: str) -> None:
    terms, trials = CURVES[shape], 1500
    hits = np.zeros(3)
    in_band = 0
    for seed in range(trials):
        fit = fit_curve(VISUAL, points(terms, VISUAL, 0.02, seed))
        hits += holds(fit, terms)
        low, high = fit.band([3000])
        in_band += low[0] <= terms[0] + terms[1] * 3000 + terms[2] * 3000**2 <= high[0]
    assert all(0.93 <= share <= 0.97 for share in hits / trials)
    assert 0.93 <= in_band / trials <= 0.97


def test_the_scatter_is_the_noise() -> None:
    found = [
        fit_curve(VISUAL, points(CURVES["linear"], VISUAL, 0.02, s)).scatter for s in range(200)
    ]
    assert np.sqrt(np.mean(np.square(found))) == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_no_more_points_than_terms_give_no_interval_and_say_so(count: int) -> None:
    visual = [64, 128, 256][:count]
    values = [1.0, 3.0, 17.0][:count]
    fit = fit_curve(visual, values)
    assert [term is not None for term in fit.terms] == [i < count for i in range(3)]
    assert fit.intervals == (None, None, None)
    assert fit.shape is None
    assert fit.scatter is None
    several = "" if count == 1 else "s"
    assert f"{count} point{several} for {count} term{several}: no interval" in fit.note
    assert fit.values(visual) == pytest.approx(values)
    assert np.isnan(fit.band(visual)).all()


def test_four_noisy_points_have_wide_intervals_and_no_shape() -> None:
    fit = fit_curve(VISUAL[:4], points(CURVES["quadratic"], VISUAL[:4], 0.02, 1))
    assert fit.shape is None
    assert "too few" in fit.note
    assert fit.intervals[2] is not None


def test_few_exact_points_have_a_shape() -> None:
    assert fit_curve([64, 128], [7, 7]).shape == "constant"
    assert fit_curve([64, 128, 256], [64, 128, 256]).shape == "linear"
    assert fit_curve([1, 2, 3, 4], [1, 4, 9, 16]).shape == "quadratic"


def test_a_linear_call_names_the_quadratic_term_that_it_cannot_exclude() -> None:
    near = [64, 128, 256, 512, 1024]
    found = fit_curve(near, points((1.5, 0.02, 1.3e-6), near, 0.02, 3))
    assert found.shape == "linear"
    assert "is not excluded" in found.note


def test_repeated_points_count_and_repeated_visual_cannot_bend() -> None:
    fit = fit_curve([64, 64, 64, 128, 128, 128], [1.0, 1.1, 0.9, 2.0, 2.1, 1.9])
    assert fit.terms[2] is None
    assert fit.intervals[1] is not None
    assert fit.shape is None


def test_zeros_do_not_take_over() -> None:
    assert fit_curve(VISUAL, [0] * len(VISUAL)).shape == "constant"
    assert fit_curve(VISUAL, [0] * len(VISUAL)).terms == (0.0, 0.0, 0.0)
    visual = [0, *VISUAL]
    fit = fit_curve(visual, [3 * v for v in visual])
    assert fit.shape == "linear"
    assert fit.terms == pytest.approx((0, 3, 0), abs=1e-6)


def test_points_that_bend_down_are_not_called_quadratic() -> None:
    values = [1 + v - 5e-6 * v**2 for v in VISUAL]
    noisy = np.array(values) * (1 + 0.01 * np.random.default_rng(1).standard_normal(len(values)))
    assert fit_curve(VISUAL, list(noisy)).shape != "quadratic"


def test_no_points_is_a_mistake() -> None:
    for visual, values in (([], []), ([64], [1.0, 2.0])):
        with pytest.raises(ValueError, match="points"):
            fit_curve(visual, values)


H100_CUDNN = [1.4759, 2.1879, 4.3190, 17.9087, 116.466]
"""Milliseconds of an S-Attn layer's forward under cuDNN at |V| 256 to 65,536: host, then card."""
H100_SIZES = [256, 1024, 4096, 16384, 65536]


def test_points_that_grow_eightyfold_are_not_called_constant() -> None:
    found = fit_curve(H100_SIZES, H100_CUDNN)
    assert found.shape is None
    assert found.note == (
        "5 points, 28% about a linear curve: they grow, but how they do not tell"
    )
    # Without the two that the host bounds nothing is claimed either, and of exact ones all is.
    assert fit_curve(H100_SIZES[2:], H100_CUDNN[2:]).shape is None
    exact = [1.3e-3 + 7e-7 * v + 1.6e-11 * v**2 for v in H100_SIZES]
    assert fit_curve(H100_SIZES, exact).shape == "quadratic"


def test_constant_is_claimed_where_the_points_lie_about_one_value_only() -> None:
    assert fit_curve(H100_SIZES, [5.0, 5.2, 4.9, 5.1, 5.0]).shape == "constant"
    wild = fit_curve(H100_SIZES, [2.1, 2.0, 1.4, 1.8, 3.5])
    assert wild.shape is None
    assert "about a constant curve" in wild.note


@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_a_quadratic_over_five_points_is_never_called_constant(noise: float) -> None:
    terms = (3.6e-3, 2.2e-6, 1e-10)
    shapes = [fit_curve(H100_SIZES, points(terms, H100_SIZES, noise, s)).shape for s in range(200)]
    assert "constant" not in shapes
    assert shapes.count("linear") <= 2
