"""The search for a threshold: few failures, both ends tried, whatever the guess was."""

import random

import pytest

from workbench.probe.predicting.search import MAX_FAILURES, PROOF, divide, edges, search
from workbench.spec import MAX_TOKENS


def trials_of(threshold, guess, unit=1, lowest=0):
    """Search for a known threshold: the largest |V| that passes."""
    tried = []

    def fits(visual, iterations):
        tried.append((visual, iterations))
        return visual <= threshold

    return search(fits, guess, unit, lowest), tried


@pytest.mark.parametrize("unit", [1, 729])
@pytest.mark.parametrize("error", [0.0, 0.004, -0.004, 0.03, -0.03, 0.3, -0.3, 0.9, -0.9])
def test_brackets_and_counts(unit, error):
    threshold = 130_001
    found, tried = trials_of(threshold, int(threshold * (1 + error)), unit)
    assert found.passes <= threshold < found.fails
    assert found.fails - found.passes <= max(unit, 0.01 * found.passes)
    assert (found.passes, PROOF) in tried
    assert (found.fails, 1) in tried
    assert all(visual % unit == 0 for visual, _ in tried)
    assert found.failures <= MAX_FAILURES
    assert len(tried) <= (6 if abs(error) < 0.005 else 9 if abs(error) < 0.1 else 40)


def test_any_threshold_and_any_guess():
    chance = random.Random(5)
    for _ in range(300):
        threshold = int(10 ** chance.uniform(0, 8))
        found, tried = trials_of(threshold, int(10 ** chance.uniform(0, 8)))
        assert found.passes <= threshold < found.fails
        assert found.closed(1) or tried[0][0] > 2 * threshold
        assert found.failures < MAX_FAILURES
        assert len(tried) < 200


def test_nothing_fits_and_everything_fits():
    nothing, tried = trials_of(-1, 1000)
    assert (nothing.passes, nothing.fails) == (None, 0)
    assert nothing.closed(1)
    assert tried[-1] == (0, 1)
    everything, _ = trials_of(MAX_TOKENS, 1000)
    assert (everything.passes, everything.fails) == (MAX_TOKENS, None)


def test_a_proof_that_fails_moves_the_bracket():
    def fits(visual, iterations):
        return visual <= (1000 if iterations == 1 else 990)

    found = search(fits, 1000)
    assert found.passes <= 990
    assert found.closed(1)
    assert found.trials[-1] == (found.passes, PROOF, True)


def test_failures_are_never_more_than_allowed_even_if_the_bracket_stays_wide():
    for seed in range(50):
        chance = random.Random(seed)
        # Each |V| has a fate of its own: no threshold at all, as on a card that others use.
        found = search(lambda visual, _, c=chance: visual == 0 or c.random() < 0.5, 10**6)
        assert found.failures <= MAX_FAILURES
        assert found.failures == MAX_FAILURES or found.trials[-1][1:] == (PROOF, True)


def test_dividing_with_one_failure_left_goes_step_by_step():
    points = edges(1000, 1100, 1)
    assert points[0] == 1010
    assert divide(points, 1) == points[0]
    assert divide(points, 6) == points[len(points) // 2]
