"""How often the reported 95 % intervals hold the true median, on synthetic timings.

At a fixed number of samples, and under the protocol's own rule, which looks at the interval to
decide when to stop and therefore stops more often where it happens to be narrow.
"""

import random

from workbench.probe.measuring.timing import MIN_TOTAL_S, half_width
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.stats import median_interval

TRIALS = 2000
ITERATION_S = 0.02
MOST = 2000
"""Samples after which a trial gives up, as ``--max-seconds`` would."""


def draw(chance: random.Random, noise: float) -> float:
    """One timing: log-normal around ITERATION_S, so that this is its median."""
    return ITERATION_S * chance.lognormvariate(0, noise)


def holds(samples: list[float]) -> bool:
    found = median_interval(samples)
    assert found.low is not None
    assert found.high is not None
    return found.low <= ITERATION_S <= found.high


def at_fixed(count: int, noise: float = 0.05, trials: int = TRIALS, seed: int = 1) -> float:
    """The share of trials of ``count`` samples whose interval holds the median."""
    chance = random.Random(seed)
    return sum(holds([draw(chance, noise) for _ in range(count)]) for _ in range(trials)) / trials


def under_the_rule(noise: float, trials: int = TRIALS, seed: int = 1) -> float:
    """The same where sampling stops by the default protocol's rule."""
    chance, protocol, hits = random.Random(seed), Protocol(), 0
    assert protocol.precision is not None
    for _ in range(trials):
        samples: list[float] = []
        while len(samples) < MOST:
            samples.append(draw(chance, noise))
            if len(samples) < protocol.min_samples or sum(samples) < MIN_TOTAL_S:
                continue
            width = half_width(samples)
            if width is not None and width <= protocol.precision:
                break
        hits += holds(samples)
    return hits / trials
