"""The replayed allocator: its segments by torch's rules, and what always holds of its chunks."""

import random
from itertools import pairwise

import pytest

from workbench.lvlm.optimizers import Stepped
from workbench.lvlm.optimizers.adamw import AdamW
from workbench.probe.counting.tracker import Block, Timeline
from workbench.probe.predicting.caching import (
    MIB,
    SETTINGS,
    CachingAllocator,
    ExpandableAllocator,
    OutOfMemory,
)
from workbench.probe.predicting.replay import make_program, replay


def timeline(*blocks):
    """Of (bytes, born, died) and perhaps a kind."""
    return Timeline([Block(*block) for block in blocks], [], -1)


@pytest.mark.parametrize(
    ("blocks", "segments"),
    [
        # Small ones share 2 MiB; 1 to 10 MiB share 20 MiB; larger ones are rounded to 2 MiB.
        ([(1, 1, 9), (1000, 1, 9), (MIB, 1, 9)], 2 * MIB),
        ([(MIB, 1, 9), (MIB, 1, 9), (MIB, 1, 9)], 4 * MIB),
        ([(MIB + 1, 1, 9), (9 * MIB, 1, 9)], 20 * MIB),
        ([(33 * MIB, 1, 9)], 34 * MIB),
        # What is freed serves again, the best fit first; neighbours are merged.
        ([(40 * MIB, 1, 2), (30 * MIB, 1, 2), (29 * MIB, 2, 3), (39 * MIB, 2, 3)], 70 * MIB),
        ([(4 * MIB, 1, 2), (4 * MIB, 1, 2), (4 * MIB, 1, 9), (8 * MIB, 2, 9)], 20 * MIB),
        ([(40 * MIB, 1, 2), (20 * MIB, 2, 9), (20 * MIB, 2, 9)], 40 * MIB),
        # A hole too small for the next request: fragmentation.
        ([(12 * MIB, 1, 2), (12 * MIB, 1, 9), (14 * MIB, 2, 9)], 38 * MIB),
    ],
)
def test_segments_of_the_default_setting(blocks, segments):
    assert replay(make_program(timeline(*blocks)), "default", None).reserved_bytes == segments


def test_a_rest_of_up_to_a_mebibyte_counts_as_allocated():
    cache = CachingAllocator()
    cache.give(cache.take(40 * MIB))
    cache.take(39 * MIB)
    assert (cache.allocated, cache.reserved) == (40 * MIB, 40 * MIB)
    other = CachingAllocator()
    other.give(other.take(40 * MIB))
    other.take(38 * MIB)
    assert (other.allocated, other.reserved) == (38 * MIB, 40 * MIB)


def test_cached_segments_are_returned_before_the_card_is_full():
    cache = CachingAllocator(100 * MIB)
    cache.give(cache.take(60 * MIB))
    cache.take(80 * MIB)
    assert (cache.retries, cache.reserved) == (1, 80 * MIB)
    with pytest.raises(OutOfMemory, match="22,020,096 bytes"):
        cache.take(21 * MIB)


def test_a_segment_that_is_half_in_use_cannot_be_returned():
    cache = CachingAllocator(100 * MIB)
    first, second = cache.take(60 * MIB), cache.take(30 * MIB)
    cache.give(first)
    kept = cache.take(40 * MIB)  # Splits the 60.
    cache.give(second)
    with pytest.raises(OutOfMemory):
        cache.take(62 * MIB)
    assert cache.reserved == 60 * MIB
    cache.give(kept)
    assert cache.take(62 * MIB).size == 62 * MIB


def test_expandable_segments_have_no_holes_that_a_larger_request_cannot_use():
    """What fragments the default setting: a free piece next to the end simply grows."""
    blocks = [(40 * MIB, 1, 9), (40 * MIB, 2, 4), (20 * MIB, 3, 9), (60 * MIB, 5, 9)]
    program = make_program(timeline(*blocks[:2], blocks[3]))
    assert replay(program, "default", None).reserved_bytes == 140 * MIB
    assert replay(program, "expandable_segments", None).reserved_bytes == 100 * MIB
    # A piece between two others is returned page by page.
    program = make_program(timeline(*blocks))
    assert not replay(program, "expandable_segments", 100 * MIB).fits
    found = replay(program, "expandable_segments", 120 * MIB, iterations=1)
    assert (found.fits, found.retries) == (True, 1)


@pytest.mark.parametrize("kind", [CachingAllocator, ExpandableAllocator])
@pytest.mark.parametrize("capacity", [None, 300 * MIB, 1000 * MIB])
def test_chunks_neither_overlap_nor_get_lost(kind, capacity):
    for seed in range(12):
        rnd, cache, live, refused = random.Random(seed), kind(capacity), [], 0
        for _ in range(250):
            if live and rnd.random() < 0.5:
                cache.give(live.pop(rnd.randrange(len(live))))
                continue
            most = rnd.choice([MIB, 12 * MIB, 120 * MIB])
            request = rnd.randint(1, most)
            try:
                live.append(cache.take(request))
            except OutOfMemory:
                refused += 1
            else:
                assert request <= live[-1].size
            assert cache.allocated == sum(chunk.size for chunk in live)
            assert cache.allocated <= cache.reserved
            assert capacity is None or cache.reserved <= capacity
        places = sorted((chunk.address, chunk.address + chunk.size) for chunk in live)
        assert all(end <= start for (_, end), (start, _) in pairwise(places))
        for chunk in live:
            cache.give(chunk)
        assert cache.allocated == 0
        cache._return_cached()
        assert cache.reserved == 0, "nothing is left of it on the card"
        assert capacity is not None or not refused


def test_the_second_iteration_differs_and_is_replayed_too():
    """Gradients live into the next iteration's beginning; what is cached then fits worse."""
    held = (30 * MIB, 0, None, "weights")
    gradient = (30 * MIB, 5, None, "gradients")
    program = make_program(timeline(held, (50 * MIB, 1, 4), gradient), [10 * MIB])
    assert program.sizes[~program.later[0]] == 30 * MIB, "the gradient goes first"
    assert replay(program, "default", 200 * MIB).fits
    assert not replay(program, "default", 80 * MIB).fits


def test_a_step_takes_its_temporaries_one_parameter_at_a_time():
    program = make_program(
        timeline((2 * MIB, 0, None)),
        [],
        [AdamW().temporaries(Stepped((30 * MIB // 4,), 4), card=True)] * 4,
    )
    assert replay(program, "default", None).reserved_bytes == (20 + 60) * MIB


def test_every_setting_of_a_cell_can_be_replayed():
    from typing import get_args

    from workbench.vocabulary.fields import AllocatorSetting

    assert set(get_args(AllocatorSetting)) < set(SETTINGS)
