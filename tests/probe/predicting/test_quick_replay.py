"""The quick replay says of every program what the plain one does."""

import random

import pytest

from workbench.probe.predicting.quick_replay import outcome
from workbench.probe.predicting.replay import MAX_ITERATIONS, Program, replay

MIB = 2**20
SIZES = (
    lambda r: r.choice([0, 1, MIB, 2 * MIB, 10 * MIB, 10 * MIB - 1]),
    lambda r: r.randint(1, 5000),
    lambda r: r.randint(1, MIB + 600),
    lambda r: r.randint(MIB, 16 * MIB),
    lambda r: r.randint(10 * MIB, 128 * MIB),
)


def requests(r, blocks, keep):
    """Blocks taken in order and released at random; the rest stays where ``keep``."""
    made, alive = [], []
    for block in blocks:
        made.append(block)
        alive.append(block)
        while alive and r.random() < 0.45:
            made.append(~alive.pop(r.randrange(len(alive))))
    r.shuffle(alive)
    return made + ([] if keep else [~block for block in alive])


def program(r):
    """A set-up and two iterations over blocks of all sizes that the allocator tells apart."""
    count = r.randint(5, 200)
    sizes = [r.choice(SIZES)(r) for _ in range(count)]
    setup, loop = range(count // 3), range(count // 3, count)
    first, later = requests(r, loop, keep=False), requests(r, loop, keep=False)
    return Program(sizes, requests(r, setup, keep=True), first, later)


@pytest.mark.parametrize("iterations", [2, 3, MAX_ITERATIONS])
def test_it_says_what_the_plain_replay_says(iterations):
    answers = []
    for seed in range(60):
        made = program(random.Random(seed))
        roomy = replay(made, "default", None, iterations)
        assert outcome(made, "default", None, iterations) == roomy
        for share in (0.7, 0.9, 0.95, 0.98, 0.99, 1.0):
            capacity = int(share * roomy.reserved_bytes)
            plain = replay(made, "default", capacity, iterations)
            assert outcome(made, "default", capacity, iterations) == plain
            answers.append(plain.fits)
    assert min(answers.count(True), answers.count(False)) > 50, "both are tried"


def test_what_it_does_not_replay_itself_is_replayed_plainly():
    made = program(random.Random(0))
    roomy = replay(made, "expandable_segments", None)
    assert outcome(made, "expandable_segments", None) == roomy
    half = roomy.reserved_bytes // 2
    assert outcome(made, "expandable_segments", half).refused
    large = Program([2**40, 2**41], [0], [1, ~1], [1, ~1])
    assert outcome(large, "default", None) == replay(large, "default", None)
    assert outcome(large, "default", 2**41) == replay(large, "default", 2**41)
