"""FLOPs of a whole Mistral 7B decoder without its head, 400 text tokens, at three sizes."""

import pytest

from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell

SIZES = (9_000, 74_000, 1_000_000)
TFLOP = {
    "s_attn": ((177.5, 154.4), (3940.6, 2489.6), (538_672, 276_318)),
    "lightning": ((160.7, 157.3), (1589.1, 1403.4), (82_079, 49_226)),
    "biformer": ((134.6, 134.5), (1064.8, 1064.7), (14_324, 14_324)),
    "lsda": ((133.4, 133.4), (1056.0, 1056.0), (14_200, 14_200)),
    "d_attn": ((123.5, 123.5), (974.7, 974.6), (13_100, 13_100)),
    "gated_xattn": ((8.7, 8.6), (20.8, 20.8), (194, 194)),
    "himix": ((8.9, 8.9), (32.4, 32.3), (366, 366)),
    "cross_lmm": ((10.4, 10.4), (52.2, 51.8), (2206, 2163)),
    "hyper_attn": ((6.5, 6.5), (12.6, 12.5), (99, 99)),
    "saisa": ((24.8, 24.7), (162.7, 162.7), (2128, 2128)),
}
"""System -> dense and causal TFLOP of a forward, at each size; others have tests of their own."""
POOLED = {12: (42.4, 40.4), 101: (495.8, 388.8), 1_372: (41_785, 22_772)}
"""Images of 27 × 27 tokens under `pool`, of which 14 × 14 are left -> the same of S-Attn."""
HEAD = 2 * 400 * 4096 * 32768


def assert_costs(expected, **fields):
    cell = make_cell(scope="decoder", kernel="eager", num_text=400, logits="text", **fields)
    metrics = predict(cell, "h100-80gb").metrics
    for name, tflop in zip(("flops", "flops_causal"), expected, strict=True):
        assert (metrics[name] - HEAD) / 1e12 == pytest.approx(tflop, rel=0.01)


@pytest.mark.parametrize("system", sorted(TFLOP))
def test_flops_of_a_whole_decoder(system):
    for num_visual, expected in zip(SIZES, TFLOP[system], strict=True):
        assert_costs(expected, attention=system, num_visual=num_visual)


@pytest.mark.parametrize("images", sorted(POOLED))
def test_flops_behind_pooling(images):
    """At scope decoder, where |V| is one run, of as many tokens as whole images leave."""
    left = images * 14 * 14
    assert_costs(POOLED[images], attention="s_attn", reduce="pool", num_visual=4 * left)
