"""Optimizers: bytes and temporaries by arithmetic, held against the real classes; refusals."""

import pytest
import torch
from torch import nn

from tests.small import small_model
from workbench.lvlm.build import build
from workbench.lvlm.optimizers import OPTIMIZERS, Stepped
from workbench.lvlm.optimizers.mixed_precision import layer_matrices
from workbench.lvlm.optimizers.settings import MISTRAL
from workbench.probe.counting.tracker import Timeline, Tracker, storage_bytes
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Status

ONCE = Protocol(min_samples=1, precision=None)
TRAIN = {
    "scope": "decoder",
    "pass": "train",
    "num_visual": 9,
    "num_text": 7,
    "dtype": "float32",
    "kernel": "eager",
}
WIDE = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "vocab_size": 997,
    "num_hidden_layers": 4,
}
MATRICES = [(128, 128), (64, 128), (64, 128), (128, 128), (256, 128), (256, 128), (128, 256)]
SHAPES = [((96, 64), True), ((64, 96), True), ((300, 65), False), ((5000,), False), ((7,), False)]
STACK = ((3, 40, 50), False)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_model("mistral", tmp_path_factory.mktemp("model"), **WIDE)


def made(name, shape, matrix, dtype, device="cpu"):
    # Small enough that a step of 1e-3 is no rounding error of bfloat16.
    parameter = nn.Parameter(torch.randn(shape, dtype=dtype, device=device) * 0.01)
    parameter.grad = torch.randn_like(parameter)
    return parameter, OPTIMIZERS[name].make(parameter, matrix, 1e-3, MISTRAL)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "matrix"), [*SHAPES, STACK])
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
@pytest.mark.filterwarnings("ignore:Paged optimizers")
def test_states_are_those_of_the_real_one(name, shape, matrix, dtype):
    """Before a step and after it, byte for byte."""
    parameter, optimizer = made(name, shape, matrix, DTYPES[dtype])
    rule, of = OPTIMIZERS[name], Stepped(shape, parameter.element_size(), matrix)
    for _ in range(2):
        state = optimizer.state[parameter]
        held = [v for k, v in state.items() if isinstance(v, torch.Tensor) and k != "step"]
        assert storage_bytes(held) == sum(rule.states(of)) + rule.shared(of)
        before = parameter.detach().clone()
        optimizer.step()
        assert not torch.equal(parameter, before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "matrix"), [*SHAPES, STACK])
@pytest.mark.parametrize("name", ["adamw", "adafactor", "muon"])
def test_temporaries_are_those_of_the_real_step(name, shape, matrix, dtype):
    """The step of the real class, followed on shapes: single numbers are left out."""
    tracker = Tracker()
    with tracker:
        parameter, optimizer = made(name, shape, matrix, DTYPES[dtype], "meta")
        if "step" in optimizer.state[parameter] and name == "adamw":
            optimizer.state[parameter]["step"] = torch.tensor(1.0, device="cpu")
        tracker.begin()
        tracker.hold({"held": [parameter, parameter.grad]})
        tracker.hold(
            {"held": [v for v in optimizer.state[parameter].values() if hasattr(v, "shape")]}
        )
        before = sum(b.bytes for b in tracker.blocks)
        optimizer.step()
    peak, _ = Timeline(tracker.blocks, tracker.calls, -1).peak()
    of = Stepped(shape, DTYPES[dtype].itemsize, matrix)
    expected = OPTIMIZERS[name].temporaries(of, card=True).peak
    assert expected <= peak - before <= expected + 64
    assert sum(call.operator.flops for call in tracker.calls) == OPTIMIZERS[name].flops(of)


def test_what_is_taken_is_given_back():
    for name, rule in OPTIMIZERS.items():
        for shape, matrix in [*SHAPES, STACK]:
            for item in (2, 4):
                for card in (False, True):
                    sizes, requests = rule.temporaries(Stepped(shape, item, matrix), card)
                    numbers = range(len(sizes))
                    assert sorted(requests) == sorted([*numbers, *(~n for n in numbers)]), name


def test_embeddings_and_the_head_are_no_matrices_of_layers(model):
    module = build(make_cell(**TRAIN, model=model)).module
    chosen = layer_matrices(module)
    names = {name for name, p in module.named_parameters() if id(p) in chosen}
    assert len(names) == 7 * 4
    assert not any("embed" in name or "lm_head" in name or "norm" in name for name in names)


CASES = [
    {"optimizer": "adafactor"},
    {"optimizer": "adamw8bit", "dtype": "bfloat16"},
    {"optimizer": "adafactor", "dtype": "bfloat16", "master_weights": "bfloat16"},
    {"optimizer": "muon", "dtype": "bfloat16", "master_weights": "bfloat16"},
    {"optimizer": "paged_adamw8bit", "lora": "r=4", "weights_dtype": "int4"},
    {"optimizer": "muon", "lora": "r=4", "accumulate": 2},
]


@pytest.mark.parametrize("fields", CASES)
@pytest.mark.filterwarnings("ignore:Paged optimizers")
def test_predicted_is_measured(fields, model):
    cell = make_cell(**{**TRAIN, "model": model, **fields})
    measured, predicted = measure(cell, "cpu", ONCE), predict(cell, "cpu")
    assert measured.status == predicted.status == Status.OK
    states = [found.metrics["optimizer_bytes"] for found in (measured, predicted)]
    steps = 4 * 200 if cell.optimizer in ("adamw", "muon") else 0  # AdamW's count of steps.
    assert 0 <= states[0] - states[1] <= steps
    peaks = [found.metrics["peak_bytes"] for found in (predicted, measured)]
    assert peaks[0] == pytest.approx(peaks[1], rel=0.02)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimizer": "adamw9bit"}, "optimizer 'adamw9bit'.*adamw8bit"),
        ({"optimizer": "muon", "pass": "forward"}, "optimizer muon: only a train pass"),
        ({"optimizer": "muon", "scope": "layer"}, "optimizer muon: only a train pass"),
        (
            {"optimizer": "adafactor", "zero": 3, "world_size": 2},
            "optimizer adafactor: under deep",
        ),
        ({"optimizer": "adamw8bit", "dtype": "float64"}, "takes float32, bfloat16, float16, not"),
        ({"master_weights": "bfloat16"}, "master_weights bfloat16: says that bfloat16 weights"),
        ({"master_weights": "float16", "dtype": "bfloat16"}, "master_weights 'float16'"),
        (
            {"master_weights": "bfloat16", "dtype": "bfloat16", "world_size": 2},
            "master_weights bfloat16: under deepspeed",
        ),
    ],
)
def test_what_cannot_be(fields, message, model):
    with pytest.raises(RequestError, match=message):
        predict(make_cell(**{**TRAIN, "model": model, **fields}), "h100-80gb")


def test_keys_of_old_cells_stay():
    cell = make_cell(**TRAIN)
    assert make_cell(**TRAIN, optimizer="adamw", master_weights="float32").key == cell.key
    assert make_cell(**TRAIN, optimizer="muon").key != cell.key


def test_pages_are_beside_what_the_card_s_allocator_has(model):
    fields = {**TRAIN, "model": model, "dtype": "bfloat16"}
    plain, paged = (
        predict(make_cell(**fields, optimizer=name), "h100-80gb", "none")
        for name in ("adamw8bit", "paged_adamw8bit")
    )
    assert plain.metrics["optimizer_bytes"] == paged.metrics["optimizer_bytes"]
    large = 2 * 2 * 997 * 128  # Two codes for each element of embedding and head.
    assert f"paged: {large:,} bytes" in "\n".join(paged.flags)
    kinds = [found.details["memory_by_kind"]["optimizer"] for found in (plain, paged)]
    assert kinds[0] - kinds[1] == large


def test_flops_of_a_step_are_in_no_other_count(model):
    fields = {**TRAIN, "model": model}
    adamw, muon = (
        predict(make_cell(**fields, optimizer=name), "h100-80gb", "none")
        for name in ("adamw", "muon")
    )
    of = [Stepped(shape, 4, True) for shape in MATRICES]
    assert muon.metrics["optimizer_flops"] == 4 * sum(map(OPTIMIZERS["muon"].flops, of))
    assert "optimizer_flops" not in adamw.metrics
    assert muon.metrics["flops"] == adamw.metrics["flops"]
    assert muon.metrics["model_flops"] == adamw.metrics["model_flops"]
    assert muon.details["time"]["optimizer_s"] > 0
