"""Forecasts: the closed forms of very many kinds beside the traces of a few."""

import pytest

from tests.small import FAMILY_NAMES, small_model
from workbench.lvlm.attention import SYSTEMS
from workbench.probe.workers.estimate import Kind, _closed, _traced
from workbench.spec import Point, Protocol, make_cell

LENIENT = {"forward": 0.02, "decode": 0.02, "train": 0.15}
"""A backward is taken for two forwards: what needs no gradient, or is computed again, is off."""


def kind(model: str, **fields: object) -> Kind:
    cell = make_cell(model=model, num_visual=256, dtype="float32", kernel="eager", **fields)
    point = Point(cell=cell, source="measured", device="cpu", protocol=Protocol())
    return Kind(point, "cpu", [256, 512, 1024])


@pytest.mark.parametrize("pass_", LENIENT)
@pytest.mark.parametrize("scope", ["layer", "decoder"])
def test_closed_forms_are_close_to_traces(pass_: str, scope: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    models = {family: small_model(family, tmp_path) for family in FAMILY_NAMES}
    asked = [("mistral", system) for system in SYSTEMS] if scope == "layer" else []
    asked += [(family, "d_attn") for family in FAMILY_NAMES] if scope == "decoder" else []
    fields = {"scope": scope, "pass": pass_, "checkpoint": pass_ == "train" and scope != "layer"}
    kinds = [kind(models[family], attention=system, **fields) for family, system in asked]
    for one, by_trace, by_form in zip(kinds, _traced(kinds), _closed(kinds), strict=True):
        assert [known[0] for known in by_form.known] == [256, 512, 1024]
        for size in (256, 700, 1024):
            expected = by_trace.at(size)[0]
            assert by_form.at(size)[0] == pytest.approx(expected, rel=LENIENT[pass_]), one
