"""Forecasts: the closed forms of very many kinds beside the traces of a few."""

from pathlib import Path

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
        **{"model": model, "dtype": "float32", "kernel": "eager", "settings": settings, **fields},
        num_visual=256,
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


@pytest.mark.parametrize(
    ("attention", "share"),
    [("s_attn", {"ulysses": 2}), ("s_attn", {"ring": 2}), ("d_attn", {"ring": 2})],
)
def test_a_rank_that_shares_a_sequence_computes_its_own_rows(
    attention: str, share: dict[str, int], tmp_path: Path
) -> None:
    model = small_model("llama", tmp_path)
    ranks = {"zero": 1, "world_size": 2, "pass": "train", "scope": "decoder", "num_text": 64}
    fields = {**ranks, "attention": attention, "kernel": "sdpa", "dtype": "bfloat16", **share}
    asked = kind(model, **fields)
    whole = kind(model, **{**fields, **dict.fromkeys(share, 1)})
    (by_trace,), (by_form,), (alone,) = _traced([asked]), _closed([asked]), _closed([whole])
    expected, _ = by_trace.at(SIZES)
    flops, _ = by_form.at(SIZES)
    assert flops == pytest.approx(expected, rel=LENIENT["train"])
    assert (flops < 0.8 * alone.at(SIZES)[0]).all()


def test_a_cell_that_cannot_fit_takes_half_an_iteration(tmp_path) -> None:  # type: ignore[no-untyped-def]
    point = kind(small_model("mistral", tmp_path)).point
    twice = Protocol(min_samples=2, memory_limit=2**20)
    point = point.model_copy(update={"protocol": twice})
    small, large, again = estimate([Kind(point, "cpu", [16, 65_536, 16])])[0]
    assert small == again < large
    roomy = Kind(point.model_copy(update={"protocol": Protocol(min_samples=2)}), "cpu", [65_536])
    assert estimate([roomy])[0][0] > 4 * large
