"""The OOM threshold: both ends of the bracket hold, and what cannot be is explained."""

import pytest

from workbench.errors import RequestError
from workbench.probe.counting.states import Parameter, states
from workbench.probe.predicting.limit import bracket, predicted_limit
from workbench.probe.predicting.predict import predict
from workbench.record import Status
from workbench.spec import make_cell


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
        "cell", "source", "device", "max_visual", "fails_at", "capacity_bytes", "stopped_by",
    }  # fmt: skip


@pytest.mark.parametrize(
    "need",
    [
        lambda v: 1000 + 7 * v,
        lambda v: 10**6 + 3 * v * v + v,
        lambda v: 5 + v // 4096 * 4096 * 11 + v,
        lambda v: 10**9 + max(v * v // 1000, 50 * v),
    ],
)
@pytest.mark.parametrize("capacity", [10**6, 10**10, 8 * 10**10 + 7])
def test_brackets_of_known_curves(need, capacity):
    fits, fails = bracket(need, capacity)
    if need(0) > capacity:
        assert (fits, fails) == (None, 0)
        return
    assert need(fits) <= capacity
    if fails is not None:
        assert need(fails) > capacity
        assert fails - fits <= max(1, 0.01 * fits)


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
