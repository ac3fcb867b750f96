"""A cell measured on this CPU beside its prediction."""

import pytest

from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Status


def assert_measured(cell, within, metrics=("flops",)):
    """Both records, measured and predicted: these metrics equal, the peak by so small a share."""
    measured = measure(cell, "cpu", Protocol(min_samples=1, precision=None))
    predicted = predict(cell, "cpu")
    assert measured.status == predicted.status == Status.OK
    for metric in metrics:
        assert measured.metrics[metric] == predicted.metrics[metric]
    ratio = predicted.metrics["peak_bytes"] / measured.metrics["peak_bytes"]
    assert ratio == pytest.approx(1, abs=within)
    return measured, predicted
