"""A cache in fewer bits: its bytes, what a step reads of it, predicted and measured; refusals."""

import pytest
import torch

from tests.small import small_model
from workbench.lvlm.build import build
from workbench.lvlm.caches.narrow import CODES, Narrow
from workbench.probe.counting.trace import trace
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.protocol import Protocol

ONCE = Protocol(min_samples=1, precision=None)
WIDE = {"num_hidden_layers": 5, "hidden_size": 64}
PASSES = [{"pass": "decode"}, {"pass": "forward"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_model("mistral", tmp_path_factory.mktemp("model"), **WIDE)


def cell_of(model, **fields):
    return make_cell(
        **{
            "model": model,
            "kernel": "eager",
            "scope": "decoder",
            "num_visual": 300,
            "num_text": 21,
            "dtype": "float32",
            **fields,
        }
    )


@pytest.mark.parametrize("scheme", CODES)
def test_a_cache_is_widened_beside_the_new_token(scheme):
    torch.manual_seed(0)
    x, token = torch.randn(2, 3, 17, 8), torch.randn(2, 3, 1, 8)
    wide = Narrow.of(x, scheme).widened(token)
    assert wide.shape == (2, 3, 18, 8)
    assert torch.equal(wide[:, :, -1:], token)
    largest = x.abs().amax(-1, keepdim=True)
    error = {"bfloat16": largest / 256, "fp8": x.abs() / 16 + 2**-9, "int8": largest / 254 + 1e-6}
    assert ((wide[:, :, :-1] - x).abs() <= error[scheme]).all()


@pytest.mark.parametrize("fields", PASSES)
@pytest.mark.parametrize("scheme", CODES)
def test_bytes_are_those_that_are_held(scheme, fields, model):
    cell = cell_of(model, cache_dtype=scheme, **fields)
    workload = build(cell)
    workload.run_forward()
    held = [t for kept in workload.context.caches for t in kept.tensors]
    if cell.pass_ == "decode":
        held = list(workload.module.buffers())
    size = sum(t.untyped_storage().nbytes() for t in held)
    elements, tokens = 2 * 5 * 321 * 2 * 8, 2 * 5 * 321 * 2
    scales = {"bfloat16": 0, "fp8": 4 * 2 * 5, "int8": 4 * tokens}[scheme]
    assert size == elements * CODES[scheme].itemsize + scales
    assert size == workload.kv_cache_bytes == predict(cell, "cpu").metrics["kv_cache_bytes"]


@pytest.mark.parametrize("fields", PASSES)
@pytest.mark.parametrize("scheme", ["fp8", "int8"])
def test_predicted_is_measured_and_composed_is_whole(scheme, fields, model):
    cell = cell_of(model, cache_dtype=scheme, **fields)
    measured, predicted = measure(cell, "cpu", ONCE), predict(cell, "cpu")
    assert measured.metrics["flops"] == predicted.metrics["flops"]
    peaks = [found.metrics["peak_bytes"] for found in (predicted, measured)]
    assert peaks[0] == pytest.approx(peaks[1], rel=0.03)
    assert any(flag.startswith(f"cache_dtype {scheme}") for flag in predicted.flags)
    assert any(flag.startswith(f"cache_dtype {scheme}") for flag in measured.flags)
    composed, whole = trace(cell), trace(cell, compose=False)
    for name in ("flops", "bytes_moved", "kv_cache_bytes"):
        assert getattr(composed, name) == getattr(whole, name), name
    assert composed.timeline.peak()[0] == whole.timeline.peak()[0]


@pytest.mark.parametrize("attention", ["s_attn", "fastv"])
def test_a_step_reads_fewer_bytes(attention):
    fields = {"scope": "decoder", "pass": "decode", "num_visual": 7000, "attention": attention}
    cell = make_cell(model="llama-3.2-1b", **fields)
    plain, narrow = (
        predict(cell.replace(cache_dtype=dtype), "h100-80gb", "none").metrics
        for dtype in (None, "fp8")
    )
    assert plain["kv_cache_bytes"] == 2 * (narrow["kv_cache_bytes"] - 8 * 16)
    saved = plain["bytes_moved"] - narrow["bytes_moved"]
    assert saved == pytest.approx(plain["kv_cache_bytes"] / 2, rel=1e-4)
    assert narrow["time_s"] < plain["time_s"]
    assert narrow["peak_bytes"] < plain["peak_bytes"] - saved * 0.9


def test_a_window_keeps_codes_of_its_last_tokens(tmp_path):
    model = small_model("gemma2", tmp_path)
    fields = {"scope": "layer", "layer": 0, "num_visual": 48, "cache_dtype": "int8"}
    workload = build(cell_of(model, **fields))
    workload.run_forward()
    (kept,) = workload.context.caches
    assert {t.shape[2] for t in kept.tensors} == {15}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cache_dtype": "int4"}, "cache_dtype 'int4'"),
        ({"pass": "train"}, "cache_dtype int8: training keeps no cache"),
        ({"attention": "d_attn"}, "no kernel here reads such a cache of d_attn"),
        ({"attention": "streaming", "pass": "decode"}, "such a cache of streaming"),
        ({"dtype": "float64", "pass": "decode"}, "not float64"),
    ],
)
def test_what_cannot_be(fields, message, model):
    with pytest.raises(RequestError, match=message):
        build(cell_of(model, **{"cache_dtype": "int8", **fields}))


def test_the_cell_s_own_dtype_is_no_other():
    plain = make_cell(num_visual=9, **{"pass": "decode"})
    same = make_cell(num_visual=9, dtype="bf16", cache_dtype="bfloat16", **{"pass": "decode"})
    assert same.key == plain.key
    assert make_cell(num_visual=9, cache_dtype="fp8").cache, "in a prefill it is kept"
