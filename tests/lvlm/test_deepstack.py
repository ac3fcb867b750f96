"""Deepstack: features of the tower that the decoder adds between its first layers."""

import pytest
import torch

from tests.lvlm.definitions import settings_of
from tests.small import small_lvlm
from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.build import build
from workbench.lvlm.places import places_of
from workbench.probe.counting.trace import trace
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import Unsupported


def cell_of(folder, system="s_attn", layers=3, **fields):
    return make_cell(
        model=small_lvlm("qwen3_vl", folder, num_hidden_layers=layers),
        attention=system,
        settings=settings_of(system),
        **{
            "scope": "lvlm",
            "kernel": "eager",
            "dtype": "float64",
            "num_visual": 64,
            "num_text": 5,
            **fields,
        },
    )


@pytest.mark.parametrize("system", sorted(SYSTEMS))
def test_every_system_takes_them_or_is_refused_by_name(system, tmp_path):
    """What is added is trained: its mergers get gradients."""
    cell = cell_of(tmp_path, system, **{"pass": "train"})
    if not SYSTEMS[system].stacks:
        with pytest.raises(Unsupported, match=rf"{system}: the tower of qwen3-vl adds features"):
            build(cell)
        return
    if system == "lightning":  # Its linear layers know no normed queries.
        with pytest.raises(Unsupported, match="normed queries"):
            build(cell)
        return
    workload = build(cell)
    workload.step()
    named = dict(workload.module.named_parameters())
    mergers = [name for name in named if "deepstack" in name]
    assert len(mergers) == 2 * 6
    assert all(torch.isfinite(named[name].grad).all() for name in mergers)


@pytest.mark.parametrize("system", ["s_attn", "d_attn"])
def test_they_are_added_to_visual_rows_alone(system, tmp_path):
    """By hand: the layers one by one, the features to the rows of images after the first two."""
    workload = build(cell_of(tmp_path, system, layout="T,V,T"))
    pixels, ids = workload.inputs
    lvlm, decoder = workload.module, workload.module.decoder
    with torch.no_grad():
        (found,) = workload.run_forward()
        visual, *stacked = (x[None] for x in lvlm.adapter(lvlm.tower(pixels)))
        layout = workload.context.layout
        sequence = layout.join(visual, decoder.embed_tokens(ids))
        rows = layout.positions(visual=True)
        for number, layer in enumerate(decoder.layers):
            texts = sequence[:, layout.positions(visual=False)]
            state = (sequence,) if system == "s_attn" else (sequence[:, rows], texts)
            state = layer(*state)
            sequence = state[0] if system == "s_attn" else layout.join(*state)
            if number < 2:
                sequence = sequence.clone()
                sequence[:, rows] += stacked[number]
        wanted = decoder.lm_head(decoder.norm(sequence))
    assert torch.equal(found, wanted)


def test_the_layers_that_take_them_are_of_their_own_kind(tmp_path):
    cell = cell_of(tmp_path, layers=9)
    assert [place.stacked for place in places_of(cell)] == [True] * 2 + [False] * 7
    assert not any(place.stacked for place in places_of(cell.replace(scope="decoder")))
    assert not any(place.stacked for place in places_of(cell.replace(**{"pass": "decode"})))
    composed, whole = trace(cell), trace(cell, compose=False)
    assert composed.operators == whole.operators
    assert composed.flops == whole.flops == whole.model_flops


@pytest.mark.parametrize("frozen", [None, "tower", "tower,adapter", "decoder"])
def test_closed_form_is_the_count_whatever_is_frozen(frozen, tmp_path):
    cell = cell_of(tmp_path, frozen=frozen, **{"pass": "train"})
    found = trace(cell)
    assert found.flops == found.model_flops


def test_a_checkpoint_of_several_layers_has_no_place_for_them(tmp_path):
    cell = cell_of(tmp_path, checkpoint=True, checkpoint_every=2, **{"pass": "train"})
    with pytest.raises(Unsupported, match=r"checkpoint_every 2: the tower of qwen3-vl adds"):
        build(cell)


def test_scope_decoder_says_that_nothing_is_added(tmp_path):
    cell = cell_of(tmp_path)
    said = [predict(c, "h100-80gb").flags for c in (cell, cell.replace(scope="decoder"))]
    assert [any(f.startswith("deepstack: ") for f in flags) for flags in said] == [False, True]
