"""Kernels against eager in float64: on the CPU what rounding alone does, on a card everything."""

from itertools import product
from pathlib import Path

import pytest
import torch

from tests.lvlm.definitions import settings_of
from tests.small import LAYER_SYSTEMS, small_model
from workbench.probe.measuring.agreement import LIMITS, agreement, limit_of
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.record import Record

TRAIN = {"pass": "train"}
WIDE = {
    "mistral": {"head_dim": 128},
    "gemma2": {"head_dim": 256, "query_pre_attn_scalar": 256, "attn_logit_softcapping": 50.0},
    "gemma3": {"head_dim": 256, "query_pre_attn_scalar": 256},
    "qwen2_5_vl": {
        "hidden_size": 512,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [16, 24, 24],
        },
    },
}
"""Heads as wide as the models' own, which is what a kernel is chosen and tiled by."""
KERNELS = ("eager", "sdpa", "flash", "cudnn", "efficient", "math", "flex")
COMPILED = tuple(product(("mistral", "gemma2"), ("s_attn", "d_attn"), (63,)))
"""FlexAttention takes ten seconds to compile and train: all others are slow tests."""


def wide_model(family: str, folder: Path) -> str:
    shared = {"hidden_size": 256, "intermediate_size": 512}
    return small_model(family, folder, **{**shared, **WIDE[family]})


def narrow_model(family: str, folder: Path) -> str:
    """Heads of 64, and scores as large as the models' own: Gemma states their scale apart."""
    scale = {} if family == "mistral" else {"query_pre_attn_scalar": 64}
    return small_model(
        family, folder, hidden_size=256, head_dim=64, intermediate_size=512, **scale
    )


def checked(model: str, device: str = "cpu", **fields: object) -> Record:
    torch.manual_seed(0)
    return agreement(make_cell(model=model, **TRAIN, **fields), device)


@pytest.mark.parametrize("attention", ["s_attn", "d_attn"])
@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3"])
def test_the_oracle_in_sixteen_bits_is_off_by_its_rounding_alone(tmp_path, family, attention):
    """The same layer, rounded: its error goes with the data type's step, 8 to 1, and to nothing.

    A wrong kernel would be off by the same in all of them.
    """
    model = narrow_model(family, tmp_path)
    records = {
        dtype: checked(
            model, kernel="eager", attention=attention, num_visual=150, num_text=63, dtype=dtype
        )
        for dtype in ("bfloat16", "float16", "float32")
    }
    assert {record.status for record in records.values()} == {"ok"}
    errors = {dtype: record.details["relative_error"] for dtype, record in records.items()}
    for name, error in errors["bfloat16"].items():
        assert error / errors["float16"][name] == pytest.approx(8, rel=0.3), name
        assert errors["float32"][name] < 1e-5
    if family != "mistral":
        plain = limit_of(records["bfloat16"].cell) / LIMITS["bfloat16"]
        assert plain == 2.5


@pytest.mark.slow
def test_gemma_2_at_full_width_is_off_by_more_than_others_may_be():
    record = checked("gemma-2-9b", kernel="eager", attention="d_attn", num_visual=150, num_text=63)
    worst = max(record.details["relative_error"].values())
    assert LIMITS["bfloat16"] < worst < limit_of(record.cell)
    assert record.status == "ok"


def test_a_wrong_result_is_an_error_that_says_by_how_much(tmp_path, monkeypatch):
    from workbench.probe.measuring import agreement as module

    model = small_model("mistral", tmp_path)
    real = module._run

    def bent(workload):
        outputs = real(workload)
        return [out * 1.05 for out in outputs] if workload.cell.dtype != "float64" else outputs

    monkeypatch.setattr(module, "_run", bent)
    record = checked(model, kernel="sdpa", num_visual=20, num_text=9)
    assert record.status == "error"
    assert record.error.startswith("disagrees: outputs by 5.0")
    assert record.error.endswith("over 0.02")


def cells_on_a_card():
    for family, attention, kernel, num_text in product(WIDE, LAYER_SYSTEMS, KERNELS, (63, 400)):
        quick = kernel != "flex" or (family, attention, num_text) in COMPILED
        marks = [] if quick else [pytest.mark.slow]
        yield pytest.param(family, attention, kernel, num_text, marks=marks)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize(("family", "attention", "kernel", "num_text"), list(cells_on_a_card()))
def test_every_kernel_agrees_on_a_card(tmp_path, family, attention, kernel, num_text):
    torch.compiler.reset()
    record = checked(
        wide_model(family, tmp_path),
        "cuda",
        attention=attention,
        kernel=kernel,
        num_visual=1531,
        num_text=num_text,
        settings=settings_of(attention),
    )
    if record.status == "unsupported":
        # Soft-capping and windows are what fused kernels lack: never the plain ones' excuse.
        assert kernel not in ("eager", "flex"), record.error
        assert family != "mistral", record.error
        assert kernel in record.error
        return
    assert record.status == "ok", record.error
    assert max(record.details["relative_error"].values()) > 0


@pytest.mark.parametrize("family", WIDE)
def test_the_models_of_the_card_s_tests_can_be_built(tmp_path, family):
    record = checked(wide_model(family, tmp_path), kernel="eager", num_visual=40, num_text=9)
    assert record.status == "ok", record.error
