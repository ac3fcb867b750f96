"""A prefill that keeps its cache: what is held, and that nothing else changes."""

import pytest
import torch

from tests.lvlm.definitions import settings_of
from tests.small import small_model
from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.build import build
from workbench.probe.counting.trace import trace
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.protocol import Protocol

KEEPING = sorted(name for name, system in SYSTEMS.items() if system.keeps_cache)
ONCE = Protocol(min_samples=1, precision=None)
WIDE = {"num_hidden_layers": 5, "hidden_size": 64}


def cell_of(attention, model, **fields):
    return make_cell(
        **{
            "model": model,
            "attention": attention,
            "kernel": "eager",
            "settings": settings_of(attention),
            "scope": "decoder",
            "cache": True,
            "num_visual": 48,
            "num_text": 21,
            "dtype": "float32",
            **fields,
        }
    )


def held(workload):
    return [t for kept in workload.context.caches for t in kept.tensors]


@pytest.mark.parametrize("layout", ["V,T", "T,V,T", "V,T,V,T"])
@pytest.mark.parametrize("attention", KEEPING)
def test_what_is_kept_is_what_a_decode_step_reads(attention, layout, tmp_path):
    cell = cell_of(attention, small_model("mistral", tmp_path, **WIDE), layout=layout)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        workload = build(cell)
        torch.manual_seed(3)
        plain = build(cell.replace(cache=False))
    outputs = workload.run_forward()
    size = sum(
        t.untyped_storage().nbytes() for t in {t.data_ptr(): t for t in held(workload)}.values()
    )
    assert size == workload.kv_cache_bytes == predict(cell, "cpu").metrics["kv_cache_bytes"]
    torch.testing.assert_close(outputs, plain.run_forward())
    workload.clear()
    assert held(workload) == []


@pytest.mark.parametrize(("family", "last"), [("gemma2", 15), ("llama4", 11)])
@pytest.mark.parametrize("attention", ["s_attn", "d_attn"])
def test_a_window_keeps_its_last_tokens(attention, family, last, tmp_path):
    """transformers' sliding cache is a view of all keys, one token short of the window."""
    model = small_model(family, tmp_path)
    workload = build(cell_of(attention, model, num_text=40, scope="layer", layer=0))
    workload.run_forward()
    rows = {t.shape[2] for t in held(workload)}
    assert rows == ({last} if attention == "s_attn" else {last, 48})


def test_a_window_of_one_token_keeps_no_text(tmp_path):
    model = small_model("gemma2", tmp_path, sliding_window=1)
    workload = build(cell_of("d_attn", model, scope="layer", layer=0))
    workload.run_forward()
    assert {t.shape[2] for t in held(workload)} == {0, 48}
    assert workload.kv_cache_bytes == 2 * 48 * 2 * 16 * 4


@pytest.mark.parametrize("fields", [{}, {"kernel": "sdpa", "scope": "layer"}])
@pytest.mark.parametrize("attention", KEEPING)
def test_predicted_is_measured_and_composed_is_whole(attention, fields, tmp_path):
    if not SYSTEMS[attention].lone_layer:
        fields = {}
    cell = cell_of(attention, small_model("mistral", tmp_path, **WIDE), **fields, num_visual=300)
    measured, predicted = measure(cell, "cpu", ONCE), predict(cell, "cpu")
    assert measured.metrics["flops"] == predicted.metrics["flops"]
    peaks = [found.metrics["peak_bytes"] for found in (predicted, measured)]
    assert peaks[0] == pytest.approx(peaks[1], rel=0.01)
    if cell.scope == "decoder":
        composed, whole = trace(cell), trace(cell, compose=False)
        assert composed.timeline.peak()[0] == whole.timeline.peak()[0]
        assert composed.bytes_moved == whole.bytes_moved
        assert composed.timeline.of_kind("keys and values") >= composed.kv_cache_bytes


def test_the_cache_of_long_video_is_in_the_peak():
    fields = {"scope": "decoder", "num_visual": 74_000, "num_text": 400, "logits": "text"}
    kept, plain = (
        predict(make_cell(**fields, cache=cache), "h100-80gb").metrics for cache in (True, False)
    )
    assert kept["kv_cache_bytes"] == 2 * 2 * 32 * 8 * 128 * 74_400
    added = kept["peak_bytes"] - plain["peak_bytes"]
    # In the last layer what is kept of it is there without a cache, too.
    assert 31 / 32 * kept["kv_cache_bytes"] <= added <= 33 / 32 * kept["kv_cache_bytes"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pass": "train"}, "cache: a forward pass keeps keys and values, not train"),
        ({"pass": "decode"}, "not decode"),
        ({"attention": "moh"}, "what a prefill of moh keeps is not modelled"),
    ],
)
def test_what_cannot_be(fields, message):
    with pytest.raises(RequestError, match=message):
        build(make_cell(num_visual=8, cache=True, scope="decoder", **fields))
