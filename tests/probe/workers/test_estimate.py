"""Forecasts: the closed forms of very many kinds beside the traces of a few."""

import numpy as np
import pytest

from tests.lvlm.definitions import settings_of
from tests.small import FAMILY_NAMES, LAYER_SYSTEMS, small_model
from workbench.probe.workers.estimate import Kind, _closed, _traced, estimate
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.sweep import Point

SIZES = np.array([256.0, 700.0, 1024.0])
LENIENT = {"forward": 0.02, "decode": 0.02, "train": 0.15}
"""A backward is taken for two forwards: what needs no gradient, or is computed again, is off."""


def kind(model: str, **fields: object) -> Kind:
    settings = settings_of(str(fields.get("attention")))
    cell = make_cell(
        model=model, num_visual=256, dtype="float32", kernel="eager", settings=settings, **fields
    )
    point = Point(cell=cell, source="measured", device="cpu", protocol=Protocol())
    return Kind(point, "cpu", [256, 512, 1024])


@pytest.mark.parametrize("pass_", LENIENT)
@pytest.mark.parametrize("scope", ["layer", "decoder"])
def test_closed_forms_are_close_to_traces(pass_: str, scope: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    models = {family: small_model(family, tmp_path) for family in FAMILY_NAMES}
    asked = [("mistral", system) for system in LAYER_SYSTEMS] if scope == "layer" else []
    asked += [(family, "d_attn") for family in FAMILY_NAMES] if scope == "decoder" else []
    fields = {"scope": scope, "pass": pass_, "checkpoint": pass_ == "train" and scope != "layer"}
    kinds = [kind(models[family], attention=system, **fields) for family, system in asked]
    for one, by_trace, by_form in zip(kinds, _traced(kinds), _closed(kinds), strict=True):
        assert [known[0] for known in by_form.known] == [256, 512, 1024]
        expected, _ = by_trace.at(SIZES)
        flops, _ = by_form.at(SIZES)
        assert flops == pytest.approx(expected, rel=LENIENT[pass_]), one


def test_a_cell_that_cannot_fit_takes_half_an_iteration(tmp_path) -> None:  # type: ignore[no-untyped-def]
    point = kind(small_model("mistral", tmp_path)).point
    twice = Protocol(min_samples=2, memory_limit=2**20)
    point = point.model_copy(update={"protocol": twice})
    small, large, again = estimate([Kind(point, "cpu", [16, 65_536, 16])])[0]
    assert small == again < large
    roomy = Kind(point.model_copy(update={"protocol": Protocol(min_samples=2)}), "cpu", [65_536])
    assert estimate([roomy])[0][0] > 4 * large
