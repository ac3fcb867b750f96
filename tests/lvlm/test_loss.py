"""The loss over all rows: transformers' own of the same model, and what it costs."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.small import small_model
from workbench.lvlm.build import build
from workbench.lvlm.loss import IGNORED
from workbench.lvlm.scopes import decoder
from workbench.probe.counting.trace import trace
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.protocol import Protocol

STEP = {
    "scope": "decoder",
    "pass": "train",
    "num_visual": 21,
    "num_text": 9,
    "batch": 2,
    "dtype": "float32",
    "kernel": "eager",
    "loss_rows": "all",
}
FAMILIES = ("llama", "mistral", "qwen2", "gemma2", "gemma3")
"""Whose text model transformers has by itself, with a loss."""


def cell_of(family, folder, **fields):
    return make_cell(model=small_model(family, folder), **{**STEP, **fields})


def theirs(workload):
    """The model of transformers with the weights of a workload, which it shares."""
    config = workload.context.model.config
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        pairs = zip(model.parameters(), workload.module.parameters(), strict=True)
        for mine, ours in pairs:
            mine.copy_(ours)
    return model


@pytest.mark.parametrize(
    ("family", "layout"), [("mistral", "T,V,T"), *((family, "V,T") for family in FAMILIES)]
)
def test_loss_and_gradients_are_those_of_transformers(family, layout, tmp_path):
    workload = build(cell_of(family, tmp_path, layout=layout))
    model, places = theirs(workload), workload.context.layout
    visual, ids, labels = workload.inputs
    ids.clamp_(min=1)  # Their embedding of a padding token, which 0 may be, has no gradient.
    assert (labels == IGNORED).sum() == visual.shape[0] * visual.shape[1]
    image = visual.detach().clone().requires_grad_()
    sequence = places.join(image, model.get_input_embeddings()(ids))
    loss = model(inputs_embeds=sequence, labels=labels, use_cache=False).loss
    loss.backward()
    (ours,) = workload.run_forward()
    workload.run_backward((ours,))
    assert float(ours.detach()) == pytest.approx(float(loss.detach()), rel=1e-6)
    for mine, other in zip(model.parameters(), workload.module.parameters(), strict=True):
        assert torch.allclose(mine.grad, other.grad, rtol=1e-4, atol=1e-6)
    assert torch.allclose(image.grad, visual.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("attention", ["s_attn", "d_attn"])
def test_tiles_change_nothing(attention, tmp_path, monkeypatch):
    whole, tiled = (
        build(cell_of("mistral", tmp_path, attention=attention, tiled=tiled))
        for tiled in (False, True)
    )
    monkeypatch.setattr(decoder, "TILE", 8)
    for one, other in zip(tiled.module.parameters(), whole.module.parameters(), strict=True):
        one.data.copy_(other.data)
    found = []
    for workload in (whole, tiled):
        for one, other in zip(workload.inputs, whole.inputs, strict=True):
            one.data.copy_(other.data)
        (loss,) = workload.run_forward()
        workload.run_backward((loss,))
        found.append((float(loss.detach()), workload.module.lm_head.weight.grad))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("fields", "copies"),
    [
        ({"loss_rows": "all"}, 3),
        ({"loss_rows": "all", "dtype": "bfloat16"}, 3),
        ({"loss_rows": "text"}, 1),
    ],
)
def test_bytes_are_of_the_rows_that_it_runs_over(fields, copies, tmp_path):
    """Log-softmax, its gradient and that of the logits, float32 [S, W] each, are the peak."""
    words, tokens = 5000, 96
    model = small_model("mistral", tmp_path, vocab_size=words, tie_word_embeddings=True)
    cell = make_cell(
        model=model, **{**STEP, "batch": 1, "num_visual": 90, "num_text": 6, **fields}
    )
    measured = measure(cell, "cpu", Protocol(min_samples=1, precision=None))
    predicted = predict(cell, "cpu")
    assert measured.metrics["flops"] == predicted.metrics["flops"]
    assert measured.metrics["peak_bytes"] == pytest.approx(
        predicted.metrics["peak_bytes"], rel=0.01
    )
    logits = predicted.details["memory_by_kind"]["logits"]
    if fields["loss_rows"] == "all":
        assert logits == pytest.approx(copies * 4 * words * tokens, rel=0.01)
    else:
        assert logits < 2.2 * 4 * words * tokens


def test_the_head_computes_the_same_whatever_the_loss_runs_over(tmp_path):
    traces = [trace(cell_of("qwen2", tmp_path, loss_rows=rows)) for rows in ("text", "all")]
    assert traces[0].flops == traces[1].flops
    assert traces[0].bytes_moved < traces[1].bytes_moved


def test_a_loss_of_text_rows_under_all_logits_says_so(tmp_path):
    cell = cell_of("mistral", tmp_path, loss_rows="text")
    (said,) = (f for f in predict(cell, "cpu").flags if f.startswith("loss_rows: "))
    assert "of the text rows alone" in said
    assert "--loss-rows all" in said
    once = Protocol(min_samples=1, precision=None)
    assert said in measure(cell, "cpu", once).flags
    for fields in ({"loss_rows": "all"}, {"logits": "text"}, {"num_visual": 0}, {"tiled": True}):
        flags = predict(cell.replace(**fields), "cpu").flags
        assert not any(flag.startswith("loss_rows") for flag in flags), fields


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"logits": "text"}, "loss_rows all: needs logits 'all'"),
        ({"attention": "himix", "logits": None}, "loss_rows all: needs logits 'all'"),
        ({"pass": "forward"}, "loss_rows all: only a train pass"),
        ({"scope": "layer"}, "loss_rows all: only a train pass"),
        ({"loss_rows": "some"}, "loss_rows 'some'"),
        ({"num_visual": 0, "num_text": 1}, "only text token of layout V,T begins the sequence"),
        ({"num_text": 1, "layout": "T,V,T"}, "only text token of layout T,V,T begins"),
    ],
)
def test_what_cannot_be_is_one_line(fields, words, tmp_path):
    with pytest.raises(RequestError, match=words):
        build(cell_of("mistral", tmp_path, **fields), "meta")


def test_the_default_leaves_keys_alone():
    plain = make_cell(scope="decoder", num_visual=64, **{"pass": "train"})
    assert plain.key == plain.replace(loss_rows="text").key != plain.replace(loss_rows="all").key
