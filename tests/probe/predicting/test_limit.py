"""The OOM threshold: both ends of the bracket hold, and what cannot be is explained."""

from dataclasses import replace

import pytest

from tests.small import small_model
from workbench.probe.counting.allocator import allocator_of
from workbench.probe.counting.states import Parameter, states
from workbench.probe.predicting import threshold
from workbench.probe.predicting.family import Family
from workbench.probe.predicting.limit import predicted_limit
from workbench.probe.predicting.predict import predict
from workbench.probe.predicting.size_model import size_model
from workbench.probe.predicting.threshold import find_threshold
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.devices import DEVICES
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.record import Status


@pytest.mark.parametrize("attention", ["s_attn", "d_attn"])
@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_both_ends_of_a_predicted_limit(attention, kernel):
    cell = make_cell(attention=attention, kernel=kernel, num_visual=0, **{"pass": "train"})
    found = predicted_limit(cell, "a100-40gb")
    assert found.fails_at - found.max_visual <= max(1, 0.01 * found.max_visual)
    for visual, status in ((found.max_visual, Status.OK), (found.fails_at, Status.OOM)):
        assert predict(cell.replace(num_visual=visual), "a100-40gb").status == status
    assert found.capacity_bytes < 40 * 10**9 * 1.08
    assert set(found.document()) >= {
        "cell",
        "source",
        "device",
        "max_visual",
        "fails_at",
        "capacity_bytes",
        "stopped_by",
    }


TRAIN = {"scope": "decoder", "num_text": 20, "logits": "text", "pass": "train"}


@pytest.mark.parametrize("setting", ["default", "expandable_segments"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"chunk": 512, "attention": "d_attn", "checkpoint": True},
        {"kernel": "eager", "num_text": 64},
    ],
)
def test_sizes_that_follow_from_members_are_those_of_a_trace(tmp_path, setting, fields):
    """Block by block, also far beyond what was traced."""
    cell = make_cell(
        model=small_model("mistral", tmp_path),
        **{"num_visual": 0, "allocator": setting, **TRAIN, **fields},
    )
    allocator = allocator_of(DEVICES["h100-80gb"])
    family = Family(lambda count: cell.replace(num_visual=count), allocator, 10**9)
    model = size_model(family, 4096 * 64, 10**9)
    for number in (4096 * 20, 4096 * 64, 4096 * 90):
        traced = family.footprint(number).program
        assert traced.is_like(model.program)
        rounded = [-(-size // 512) * 512 for size in traced.sizes]
        assert model.sizes_of(number).tolist() == rounded


@pytest.mark.parametrize(
    ("fields", "number"),
    [
        ({"attention": "d_attn", "kernel": "sdpa", "checkpoint": False}, 3993),
        # The last chunk is shorter than the others.
        ({"attention": "d_attn", "kernel": "sdpa", "chunk": 96, "checkpoint": True}, 3993),
        # A member that has two chunks more.
        ({"attention": "d_attn", "kernel": "sdpa", "chunk": 96, "checkpoint": True}, 4170),
    ],
    ids=lambda fields: " ".join(map(str, fields.values())) if isinstance(fields, dict) else "",
)
def test_a_told_member_has_the_footprint_of_its_trace(tmp_path, fields, number):
    """Peak, kinds and requests, where the sizes of a neighbour come out to the byte."""
    cell = make_cell(
        model=small_model("mistral", tmp_path), num_visual=0, **TRAIN | {"num_text": 128} | fields
    )
    allocator = allocator_of(DEVICES["h100-80gb"])
    family = Family(lambda count: cell.replace(num_visual=count), allocator, 10**9)
    model = size_model(family, 3072, 10**9)
    neighbour = 3971
    near = family.trace(neighbour)
    told = model.trace_beside(number, neighbour, near)
    assert told is not None
    traced = family.footprint(number)
    family.add(number, told)
    assert family.footprint(number).peak == traced.peak
    assert family.footprint(number).outcome == traced.outcome
    # One byte more in a block is not told.
    last = near.timeline.blocks[-1]
    block = replace(last, bytes=last.bytes + 1)
    timeline = near.timeline._replace(blocks=[*near.timeline.blocks[:-1], block])
    assert model.trace_beside(number, neighbour, replace(near, timeline=timeline)) is None


def test_what_a_kernel_allocates_in_steps_is_not_told(tmp_path):
    """A fused backward sums in rows of 128: the neighbour may stand right on a step."""
    cell = make_cell(
        model=small_model("mistral", tmp_path), num_visual=0, **TRAIN | {"num_text": 128}
    )
    allocator = allocator_of(DEVICES["h100-80gb"])
    family = Family(lambda count: cell.replace(num_visual=count, kernel="sdpa"), allocator, 10**9)
    model = size_model(family, 3072, 10**9)
    assert model.trace_beside(3993, 3968, family.trace(3968)) is None


@pytest.mark.parametrize(
    "fits",
    [
        lambda n: n <= 12_345,
        lambda n: n <= 40 or 41 <= n < 43,
        # A size is refused, a larger one is served: up to the threshold everything must fit.
        lambda n: n <= 95_000 or 96_500 <= n <= 99_000,
    ],
)
def test_the_lowest_failure_is_told(fits):
    low, high = threshold._lowest_failure(fits, 131_072)
    assert high - low <= max(1, 0.01 * low)
    assert fits(low)
    assert not fits(high)
    assert low <= 95_000


def test_a_threshold_of_cells_that_allocate_in_other_ways_at_each_size(tmp_path):
    """Where no three members are alike, each that is tried is traced."""
    cell = make_cell(model=small_model("mistral", tmp_path), num_visual=0, **TRAIN)
    allocator = allocator_of(DEVICES["h100-80gb"])

    def member(count):
        return cell.replace(num_visual=count, checkpoint=count.bit_length() % 2 == 0)

    family = Family(member, allocator, 90 * 10**6)
    assert size_model(family, 4096, 10**6) is None
    fits, fails = find_threshold(family, 4096, 10**6)
    assert family.footprint(fits).fits
    assert not family.footprint(fails).fits
    assert fails - fits <= max(1, 0.01 * fits)


def test_a_setting_of_cuda_is_refused_where_there_is_none():
    with pytest.raises(RequestError, match="expandable_segments: a setting of CUDA"):
        predict(make_cell(num_visual=8, allocator="expandable_segments"), "cpu")


def test_a_prediction_that_its_allocator_refuses_is_out_of_memory():
    cell = make_cell(
        attention="d_attn",
        kernel="flash",
        num_visual=141_000,
        scope="decoder",
        num_text=400,
        checkpoint=True,
        zero=3,
        world_size=32,
        logits="text",
        **{"pass": "train"},
    )
    found = predict(cell, "h100-80gb")
    assert found.status == Status.OOM
    assert found.metrics["peak_bytes"] < found.details["capacity_bytes"]
    assert found.details["allocator"]["iteration"] >= 1
    assert "finds no memory" in found.error
    roomy = predict(cell.replace(allocator="expandable_segments"), "h100-80gb")
    assert roomy.status == Status.OK


def test_nothing_fits_a_tiny_cap():
    cell = make_cell(num_visual=0, memory_cap=1000)
    found = predicted_limit(cell, "h100-80gb")
    assert (found.max_visual, found.fails_at, found.stopped_by) == (None, 0, "weights")


ONE = [Parameter("decoder", 10**9)]


def test_zero_shards_as_it_says():
    cell = make_cell(num_visual=8, scope="decoder", world_size=4, **{"pass": "train"})
    whole = states(cell, ONE)
    # Several ranks reduce their gradients in buckets of 5e8 elements.
    assert whole.total - whole.buffers == 16 * 10**9
    assert whole.buffers == 10**9
    assert states(cell.replace(zero=1), ONE).optimizer == 3 * 10**9
    # A stage-2 rank keeps the gradients of every parameter that its part touches.
    assert states(cell.replace(zero=2), ONE).gradients == 2 * 10**9
    four = [Parameter("decoder", 25 * 10**7)] * 4
    assert states(cell.replace(zero=2), four).gradients == 5 * 10**8
    assert states(cell.replace(zero=3), ONE).weights == 5 * 10**8
    assert states(cell.replace(zero=3, dtype="float32"), ONE).optimizer == 3 * 10**9


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"zero": 3, "scope": "decoder", "pass": "train"}, "world_size 1"),
        ({"zero": 2, "world_size": 8}, "only a train pass"),
    ],
)
def test_sharding_that_cannot_be_is_explained(fields, words):
    with pytest.raises(RequestError, match=words):
        predict(make_cell(num_visual=8, **fields), "h100-80gb")


def test_the_cpu_has_no_capacity_of_its_own():
    with pytest.raises(RequestError, match="memory-cap"):
        predicted_limit(make_cell(num_visual=0), "cpu")


def test_a_limit_of_whole_images_and_one_without_text():
    cell = make_cell(model="qwen2-0.5b", scope="lvlm", num_visual=0)
    found = predicted_limit(cell, "rtx-4090-24gb")
    assert found.max_visual % 729 == found.fails_at % 729 == 0
    assert found.fails_at - found.max_visual <= max(729, 0.01 * found.max_visual)
    alone = make_cell(model="qwen2-0.5b", num_visual=1, num_text=0, memory_cap=10**9)
    found = predicted_limit(alone, "h100-80gb")
    assert 0 < found.max_visual < found.fails_at
