"""LoRA adapters: the definition, peft's layers against those of a prediction, bytes and FLOPs."""

import pytest
import torch
from torch import nn

from tests.small import small_lvlm, small_model
from workbench.lvlm import build as building
from workbench.lvlm.build import build
from workbench.lvlm.weights.lora import Adapted
from workbench.probe.counting.allocator import CARD
from workbench.probe.counting.trace import WITHOUT_RECOMPUTATION, trace
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError, Unsupported
from workbench.vocabulary.lora import lora_of
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Status

STEP = {"scope": "decoder", "pass": "train", "num_visual": 37, "num_text": 11, "kernel": "eager"}
LORA = "r=3,alpha=6"
ONCE = Protocol(min_samples=1, precision=None)
WIDE = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "vocab_size": 997,
    "num_hidden_layers": 5,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_model("mistral", tmp_path_factory.mktemp("model"), **WIDE)


def test_what_a_cell_keeps():
    cell = make_cell(**STEP, lora="targets=v_proj+q_proj,r=16")
    assert cell.lora == "alpha=8,r=16,targets=q_proj+v_proj"
    assert cell.key == make_cell(**STEP, lora=["r=16", "targets=q_proj+v_proj"]).key
    assert cell.lora_adapters.scaling == 0.5
    assert make_cell(**STEP, lora="r=2,dtype=fp32").lora == (
        "alpha=8,dtype=float32,r=2,targets=all-linear"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lora": "r=0"}, "r=0: a whole number from 1 to 65,536"),
        ({"lora": "r=²"}, "a whole number"),
        ({"lora": "alpha=3"}, "r is missing"),
        ({"lora": "r=2,r=3"}, "r is given twice"),
        ({"lora": "r=2,alpha=nan"}, "alpha=nan: a number above 0"),
        ({"lora": "r=2,rank=3"}, "rank: lora has r, alpha, targets, dtype"),
        ({"lora": "r=2,targets=all-linear+q_proj"}, "leaves nothing to name beside it"),
        ({"lora": "r=2,targets=../x"}, r"names of layers with \+ between"),
        ({"lora": "r=2,dtype=int8"}, "dtype=int8: one of"),
        ({"lora": "r=2", "pass": "forward"}, "only a train pass"),
        ({"lora": "r=2", "scope": "lvlm", "frozen": "tower"}, "frozen tower: lora freezes all"),
        ({"lora": "r=2,dropout=1"}, "dropout=1: a share from 0 to below 1"),
        ({"lora": "r=2", "fold": True, "attention": "d_attn"}, "fold: sums the output"),
        ({"lora": "r=2,dtype=fp32", "zero": 2, "world_size": 2}, "deepspeed holds every weight"),
    ],
)
def test_what_cannot_be(fields, message):
    with pytest.raises(RequestError, match=message):
        make_cell(**{**STEP, **fields})


def test_targets_that_the_decoder_lacks(model):
    with pytest.raises(RequestError, match="targets=c_attn: the decoder's linear layers are down"):
        build(make_cell(**STEP, model=model, lora="r=2,targets=c_attn"))


@pytest.mark.parametrize("fields", [{"attention": "himix"}, {"reduce": "resampler"}])
def test_what_has_to_be_trained_whole(fields, model):
    with pytest.raises(Unsupported, match=r"lora: .*has parameters"):
        build(make_cell(**STEP, **fields, model=model, lora=LORA))


def test_an_adapted_layer_is_its_definition():
    torch.manual_seed(0)
    base = nn.Linear(7, 5, dtype=torch.float64).requires_grad_(False)
    layer = Adapted(base, lora_of("alpha=6,r=3"), torch.device("cpu"), torch.float64)
    x = torch.randn(2, 4, 7, dtype=torch.float64, requires_grad=True)
    a, b = layer.lora_A.weight, layer.lora_B.weight
    dense = base.weight + 2 * (b @ a)
    wanted = torch.einsum("oi,bni->bno", dense, x) + base.bias
    out = layer(x)
    torch.testing.assert_close(out, wanted, rtol=1e-12, atol=1e-12)
    upstream = torch.randn_like(out)
    found = torch.autograd.grad(out, (x, a, b), upstream)
    torch.testing.assert_close(
        found, torch.autograd.grad(wanted, (x, a, b), upstream), rtol=1e-11, atol=1e-11
    )
    assert base.weight.grad is None


OPTIONS = [
    {"attention": "s_attn", "dtype": "float32"},
    {"attention": "s_attn", "kernel": "sdpa", "checkpoint": True, "tiled": True},
    {"attention": "d_attn", "chunk": 64, "checkpoint": True, "checkpoint_every": 2},
    {"attention": "d_attn", "lora": "r=3,targets=q_proj+down_proj,dtype=float32"},
    {"attention": "fastv"},
    {"attention": "s_attn", "dtype": "float32", "lora": "r=4,dropout=0.1"},
]


@pytest.mark.parametrize("fields", OPTIONS)
def test_a_prediction_traces_what_peft_runs(fields, model, monkeypatch):
    cell = make_cell(**{**STEP, "lora": LORA, **fields, "model": model})
    light = trace(cell)
    monkeypatch.setattr(building, "tracing", lambda _device: False)
    peft = trace(cell)
    assert light.operators == peft.operators
    assert light.parameters == peft.parameters
    assert iteration(light) == iteration(peft)


def iteration(found):
    """The blocks of an iteration, in moments since it began."""
    start = found.timeline.start
    return [
        (b.bytes, b.kind, b.born - start, b.died and b.died - start)
        for b in found.timeline.blocks
        if b.born > start
    ]


@pytest.mark.parametrize("fields", OPTIONS)
def test_composed_is_whole(fields, model):
    cell = make_cell(**{**STEP, "lora": LORA, **fields, "model": model})
    composed, whole = trace(cell), trace(cell, compose=False)
    for name in (
        "flops",
        "flops_causal",
        "model_flops",
        "model_flops_causal",
        "params",
        "parameters",
        "bytes_moved",
    ):
        assert getattr(composed, name) == getattr(whole, name), name
    assert composed.timeline.peak()[0] == whole.timeline.peak()[0]


@pytest.mark.parametrize("fields", OPTIONS)
def test_predicted_is_measured(fields, model):
    cell = make_cell(**{**STEP, "num_visual": 200, "lora": LORA, **fields, "model": model})
    measured, predicted = measure(cell, "cpu", ONCE), predict(cell, "cpu")
    assert measured.status == predicted.status == Status.OK
    for name in ("flops", "model_flops", "params", "gradient_bytes"):
        assert measured.metrics[name] == predicted.metrics[name], name
    # torch's AdamW has a number of steps beside each parameter.
    held = [found.metrics["optimizer_bytes"] for found in (predicted, measured)]
    assert 0 <= held[1] - held[0] <= 4 * 5 * 14
    peaks = [found.metrics["peak_bytes"] for found in (predicted, measured)]
    # In bfloat16 the CPU widens logits for the loss, with adapters or without.
    assert peaks[0] == pytest.approx(peaks[1], rel=1e-3 if cell.dtype == "float32" else 0.07)


def test_a_card_keeps_a_mask_of_bools_where_adapters_drop(model):
    cell = make_cell(**{**STEP, "model": model, "attention": "s_attn", "lora": "r=4"})
    plain, drops = (trace(cell.replace(lora=text), CARD) for text in ("r=4", "r=4,dropout=0.1"))
    assert plain.flops == drops.flops
    names = {op.name for op in drops.operators}
    assert {"native_dropout", "native_dropout_backward"} <= names
    assert cell.replace(lora="r=4,dropout=0").key == cell.key


def test_flops_in_closed_form(model):
    """A backward is one forward for the base, without the first layer's q, k and v, and two for
    the adapters, of whose input there only the first layer's q, k and v need no gradient."""
    cell = make_cell(**{**STEP, "model": model, "lora": LORA, "logits": "text"})
    plain = trace(cell.replace(**{"lora": None, "pass": "forward"}))
    rows, r, (d, f, h, g) = 48, 3, (128, 256, 128, 64)
    shapes = {
        "q": (d, h),
        "k": (d, g),
        "v": (d, g),
        "o": (h, d),
        "gate": (d, f),
        "up": (d, f),
        "down": (f, d),
    }
    first = ("q", "k", "v")
    layers = 5
    adapters = layers * sum(2 * rows * r * (i + o) for i, o in shapes.values())
    pairs = layers * 4 * rows * rows * h
    leaf = sum(2 * rows * i * o for i, o in (shapes[name] for name in first))
    leaf += sum(2 * rows * r * shapes[name][0] for name in first)
    linear = plain.flops - pairs
    wanted = 2 * linear + 3 * pairs + 3 * adapters - leaf
    assert trace(cell).flops == trace(cell).model_flops == wanted


def test_bytes_are_of_the_adapters_alone(model):
    plain = predict(make_cell(**STEP, model=model), "h100-80gb").metrics
    found = predict(make_cell(**STEP, model=model, lora=LORA), "h100-80gb").metrics
    added = 5 * 3 * (2 * (128 + 64) + (128 + 128) * 2 + 3 * (128 + 256))
    assert found["params"] - plain["params"] == added
    assert found["gradient_bytes"] == 2 * added
    assert found["optimizer_bytes"] == 12 * added
    assert found["weight_bytes"] == plain["weight_bytes"] + 2 * added


@pytest.mark.parametrize("kernel", ["eager", "sdpa", "flex"])
@pytest.mark.parametrize(
    "fields",
    [
        {"attention": "s_attn"},
        {"attention": "d_attn", "checkpoint_every": 2},
        {"attention": "d_attn", "offload": True, "lora": "r=3,targets=v_proj,dropout=0.1"},
        {"attention": "s_attn", "weights_dtype": "int8", "accumulate": 2},
        {"attention": "d_attn", "weights_dtype": "int4", "lora": "r=3,dtype=float32"},
        {"attention": "d_attn", "tiled": True, "chunk": 16},
        {"attention": "s_attn", "tiled": True},
        {"attention": "fastv", "weights_dtype": "int8"},
    ],
    ids=str,
)
def test_model_flops_are_the_flops_of_a_trace_that_computes_nothing_twice(fields, kernel, model):
    given = {**STEP, "kernel": kernel, "lora": LORA, "model": model, **fields}
    cell = make_cell(**given, checkpoint=True)
    plain = trace(cell.replace(**WITHOUT_RECOMPUTATION), CARD, regions=True)
    assert plain.flops == plain.model_flops
    twice = trace(cell, CARD, regions=True)
    assert twice.flops > plain.flops
    assert twice.model_flops == plain.flops
    assert twice.model_flops_causal == plain.flops_causal


def test_a_whole_vision_language_model(tmp_path):
    """The tower's layers are called as the decoder's are, and stay as they are."""
    name = small_lvlm("mistral", tmp_path)
    cell = make_cell(
        **{
            **STEP,
            "scope": "lvlm",
            "model": name,
            "num_visual": 32,
            "dtype": "float32",
            "lora": "r=2,targets=q_proj",
        }
    )
    measured, predicted = measure(cell, "cpu", ONCE), predict(cell, "cpu")
    assert measured.metrics["flops"] == predicted.metrics["flops"]
    parameters = build(cell).module.named_parameters()
    trained = [n for n, p in parameters if p.requires_grad]
    assert trained
    assert all(".lora_" in n and "decoder" in n for n in trained)
