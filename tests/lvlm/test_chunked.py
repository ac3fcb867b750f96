"""Chunks that are recomputed one by one: the peak of their backward, whatever the last one has."""

import pytest

from tests.small import small_model
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.protocol import Protocol


@pytest.mark.parametrize("visual", [32, 33, 48, 49, 64, 65, 79, 81, 161])
@pytest.mark.parametrize("system", ["d_attn", "himix", "saisa"])
def test_the_peak_is_that_of_a_whole_chunk_behind_two_others(system, visual, tmp_path):
    """From the third on a chunk meets gradients of the one before beside the sums of all."""
    cell = make_cell(
        model=small_model("mistral", tmp_path),
        attention=system,
        kernel="eager",
        dtype="float32",
        num_visual=visual,
        num_text=5,
        chunk=16,
        **{"pass": "train"},
    )
    predicted = predict(cell, "cpu").metrics
    measured = measure(cell, "cpu", Protocol(min_samples=1, precision=None)).metrics
    assert predicted["flops"] == measured["flops"]
    assert predicted["peak_bytes"] == pytest.approx(measured["peak_bytes"], rel=1e-3)
