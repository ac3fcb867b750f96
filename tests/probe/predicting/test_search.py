"""The search for a threshold: few failures, both ends tried, whatever the guess was."""

import random

import pytest

from workbench.probe.predicting.search import MAX_FAILURES, PASSING_ITERATIONS, middle, search
from workbench.vocabulary.fields import MAX_TOKENS


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
    assert (found.passes, PASSING_ITERATIONS) in tried
    assert (found.fails, 1) in tried
    assert all(visual % unit == 0 for visual, _ in tried)
    assert found.failures <= MAX_FAILURES
    assert len(tried) <= (4 if abs(error) < 0.005 else 7 if abs(error) < 0.1 else 17)


def test_a_prediction_a_quarter_off_takes_13_trials_at_most():
    chance = random.Random(7)
    counts = []
    for _ in range(500):
        threshold = int(10 ** chance.uniform(2, 7))
        found, tried = trials_of(threshold, int(threshold * chance.uniform(0.8, 1.25)))
        assert found.closed(1)
        counts.append(len(tried))
    assert max(counts) <= 13
    assert sum(counts) / len(counts) < 10


def test_any_threshold_and_any_guess():
    chance = random.Random(5)
    for _ in range(300):
        threshold = int(10 ** chance.uniform(0, 8))
        found, tried = trials_of(threshold, int(10 ** chance.uniform(0, 8)))
        assert found.passes <= threshold < found.fails
        assert found.closed(1) or found.failures == MAX_FAILURES
        assert found.failures <= MAX_FAILURES
        assert len(tried) <= 21


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
    assert found.trials[-1] == (found.passes, PASSING_ITERATIONS, True)


def test_failures_are_never_more_than_allowed_even_if_the_bracket_stays_wide():
    for seed in range(50):
        chance = random.Random(seed)
        # Each |V| has a fate of its own: no threshold at all, as on a card that others use.
        found = search(lambda visual, _, c=chance: visual == 0 or c.random() < 0.5, 10**6)
        assert found.failures <= MAX_FAILURES
        assert found.failures == MAX_FAILURES or found.trials[-1][1:] == (PASSING_ITERATIONS, True)


def test_the_middle_is_strictly_between_and_by_ratio_where_the_ends_are_far_apart():
    assert middle(1000, 1100, 1) == 1050
    assert middle(100, 10_000, 1) == 1000
    assert middle(729, 3 * 729, 729) == 2 * 729
    assert middle(0, 2, 1) == 1
