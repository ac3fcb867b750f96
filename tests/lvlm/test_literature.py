"""FLOPs of a whole Mistral 7B decoder without its head, 400 text tokens, at three sizes."""

import pytest

from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell

SIZES = (9_000, 74_000, 1_000_000)
TFLOP = {
    "gated_xattn": ((8.7, 8.6), (20.8, 20.8), (194, 194)),
    "himix": ((8.9, 8.9), (32.4, 32.3), (366, 366)),
    "cross_lmm": ((10.4, 10.4), (52.2, 51.8), (2206, 2163)),
    "hyper_attn": ((6.5, 6.5), (12.6, 12.5), (99, 99)),
    "saisa": ((24.8, 24.7), (162.7, 162.7), (2128, 2128)),
}
"""System -> dense and causal TFLOP of a forward, at each size."""
HEAD = 2 * 400 * 4096 * 32768


@pytest.mark.parametrize("system", sorted(TFLOP))
def test_flops_of_a_whole_decoder(system):
    for num_visual, expected in zip(SIZES, TFLOP[system], strict=True):
        cell = make_cell(
            attention=system,
            scope="decoder",
            kernel="eager",
            num_visual=num_visual,
            num_text=400,
            logits="text",
        )
        metrics = predict(cell, "h100-80gb").metrics
        for name, tflop in zip(("flops", "flops_causal"), expected, strict=True):
            assert (metrics[name] - HEAD) / 1e12 == pytest.approx(tflop, rel=0.01)
