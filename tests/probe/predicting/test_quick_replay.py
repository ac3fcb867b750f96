"""The quick replay says of every program what the plain one does."""

import random

import pytest

from workbench.probe.predicting.quick_replay import fits
from workbench.probe.predicting.replay import Program, replay

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


@pytest.mark.parametrize("iterations", [2, 3])
def test_it_says_what_the_plain_replay_says(iterations):
    answers = []
    for seed in range(60):
        made = program(random.Random(seed))
        roomy = replay(made, "default", None, iterations).reserved_bytes
        for share in (0.7, 0.9, 0.95, 0.98, 0.99, 1.0):
            capacity = int(share * roomy)
            plain = replay(made, "default", capacity, iterations).fits
            assert fits(made, "default", capacity, iterations) == plain
            answers.append(plain)
    assert min(answers.count(True), answers.count(False)) > 50, "both are tried"


def test_other_settings_are_replayed_plainly():
    made = program(random.Random(0))
    roomy = replay(made, "expandable_segments", None).reserved_bytes
    assert fits(made, "expandable_segments", roomy, 2)
    assert not fits(made, "expandable_segments", roomy // 2, 2)
