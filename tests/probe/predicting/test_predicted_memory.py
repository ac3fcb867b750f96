"""Predicted peak memory against the CPU allocator's events, on layers and small whole models."""

from statistics import median

import pytest

from tests.lvlm.definitions import definition, settings_of
from tests.small import FAMILY_NAMES, small_model
from workbench.lvlm.attention import SYSTEMS
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Status

ONCE = Protocol(min_samples=1, precision=None)
WIDE = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "vocab_size": 997,
}
QUARTER = {
    "hidden_size": 1024,
    "intermediate_size": 3584,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 128,
}


def error(cell):
    measured, predicted = measure(cell, "cpu", ONCE), predict(cell, "cpu")
    assert measured.status == predicted.status == Status.OK
    assert measured.metrics["flops"] == predicted.metrics["flops"]
    return abs(predicted.metrics["peak_bytes"] / measured.metrics["peak_bytes"] - 1)


@pytest.mark.parametrize("pass_", ["forward", "train"])
@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("attention", ["s_attn", "d_attn"])
def test_a_mistral_layer_of_a_quarter_of_its_width(attention, kernel, pass_, tmp_path):
    """A fifth of its bytes are activations, a twentieth at full width: that much sharper."""
    cell = make_cell(
        model=small_model("mistral", tmp_path, **QUARTER),
        attention=attention,
        kernel=kernel,
        num_visual=96,
        dtype="float32",
        **{"pass": pass_},
    )
    assert error(cell) <= 0.02


def test_a_full_width_mistral_layer():
    cell = make_cell(attention="d_attn", num_visual=96, dtype="float32", **{"pass": "train"})
    assert error(cell) <= 0.02


def whole_model(family, attention, folder):
    """A training step of a small model; the data type and checkpointing alternate over cells."""
    i, j = FAMILY_NAMES.index(family), sorted(SYSTEMS).index(attention)
    return make_cell(
        model=small_model(family, folder, **WIDE),
        attention=attention,
        settings=settings_of(attention),
        kernel="eager",
        scope="decoder",
        num_visual=200,
        num_text=33,
        dtype="float32" if i % 2 else "bfloat16",
        checkpoint=bool(j % 2),
        **{"pass": "train"},
    )


def test_small_whole_models_of_every_family_and_system(tmp_path):
    """Each system with one family, each family at least once; bench has every pair."""
    errors = {}
    times = dict.fromkeys(FAMILY_NAMES, 0)
    for attention in sorted(SYSTEMS):
        refused = getattr(definition(attention), "REFUSED", ())
        served = [family for family in FAMILY_NAMES if family not in refused]
        family = min(reversed(served), key=lambda name: times[name])
        times[family] += 1
        errors[family, attention] = error(whole_model(family, attention, tmp_path))
    assert {family for family, _ in errors} == set(FAMILY_NAMES)
    assert max(errors.values()) <= 0.05, errors
    assert median(errors.values()) <= 0.02, errors


@pytest.mark.parametrize("accumulate", [1, 2, 3])
@pytest.mark.parametrize("visual", [32, 128])
def test_a_micro_batch_meets_the_gradients_of_inputs_that_another_left(
    accumulate, visual, tmp_path
):
    """A slice of those of all rows, which it holds: its own are added to them and go."""
    cell = make_cell(
        model=small_model("mistral", tmp_path),
        scope="decoder",
        kernel="eager",
        num_visual=visual,
        num_text=16,
        dtype="float32",
        accumulate=accumulate,
        **{"pass": "train"},
    )
    measured, predicted = measure(cell, "cpu", ONCE), predict(cell, "cpu")
    # Scalars that the step makes.
    assert 0 <= measured.metrics["peak_bytes"] - predicted.metrics["peak_bytes"] <= 128
    card = predict(cell, "h100-80gb")
    held = card.details["memory_by_kind"]
    least = predicted.details["memory_by_kind"].get("input gradients", 0)
    assert held.get("input gradients", 0) >= least
    assert card.metrics["peak_bytes"] == card.details["allocator"]["allocated_bytes"]
