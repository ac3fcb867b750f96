"""Remembered outputs are those that torch's own rules give, call by call."""

from typing import Any

import pytest
import torch

from tests.small import FAMILY_NAMES, small_model
from workbench.probe.counting import outputs, tracker
from workbench.probe.counting.outputs import Outputs, tensors_in
from workbench.probe.counting.trace import trace
from workbench.vocabulary.cell import make_cell

CASES = [
    *[(family, {"attention": "d_attn", "kernel": "eager"}) for family in FAMILY_NAMES],
    ("mistral", {"attention": "d_attn", "kernel": "sdpa"}),
    ("mistral", {"attention": "s_attn", "kernel": "eager", "checkpoint": True}),
    ("gemma2", {"attention": "himix", "kernel": "eager", "logits": "text"}),
    ("qwen2", {"attention": "d_attn", "kernel": "flex", "checkpoint": True, "chunk": 8}),
    (
        "mistral",
        {"attention": "d_attn_cascade", "kernel": "eager", "offload": True, "checkpoint": True},
    ),
]


class Checked(Outputs):
    """Runs every operator, also where it remembers the outputs."""

    remembered = 0

    def of(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = super().of(func, args, kwargs)
        if func.is_view or func._schema.is_mutable:
            return out
        Checked.remembered += 1
        with torch.no_grad():
            real = func(*args, **kwargs)
        assert type(out) is type(real)
        for mine, theirs in zip(tensors_in(out), tensors_in(real), strict=True):
            for fact in ("shape", "dtype", "device"):
                assert getattr(mine, fact) == getattr(theirs, fact), (func, fact)
            assert mine.stride() == theirs.stride(), func
            assert mine.untyped_storage().nbytes() == theirs.untyped_storage().nbytes(), func
        return out


@pytest.mark.parametrize(("family", "fields"), CASES, ids=lambda c: str(c).replace("'", ""))
def test_remembered_outputs_are_torchs_own(family, fields, tmp_path, monkeypatch):
    monkeypatch.setattr(tracker, "OUTPUTS", Checked())
    monkeypatch.setattr(Checked, "remembered", 0)
    cell = make_cell(
        model=small_model(family, tmp_path),
        scope="decoder",
        num_visual=33,
        num_text=9,
        **{"pass": "train", **fields},
    )
    trace(cell)
    trace(cell.replace(num_visual=34, kernel="eager"))  # Remembers those of the first.
    assert Checked.remembered > 200


@pytest.mark.parametrize(("first", "second"), [(1, 1.0), (1, True), (0.0, 0)], ids=str)
def test_equal_arguments_of_other_types_are_not_mistaken(first, second):
    known, add = Outputs(), torch.ops.aten.add.Tensor
    given = torch.zeros(3, dtype=torch.bool, device="meta")
    kinds = [known.of(add, (given, value), {}).dtype for value in (first, second, first)]
    assert kinds == [add(given, value).dtype for value in (first, second, first)]
    assert kinds[0] != kinds[1]


def test_views_and_what_is_changed_in_place_keep_their_storage():
    tensor, known = torch.zeros(4, 6, device="meta"), Outputs()
    for _ in range(2):
        turned = known.of(torch.ops.aten.t.default, (tensor,), {})
        assert turned.untyped_storage()._cdata == tensor.untyped_storage()._cdata
        assert known.of(torch.ops.aten.add_.Tensor, (tensor, 1), {}) is tensor


def test_real_numbers_are_computed():
    known, multiply = Outputs(), torch.ops.aten.mul.Tensor
    for value in (1.0, 2.0):
        assert known.of(multiply, (torch.full((2,), value), 3.0), {}).tolist() == [3 * value] * 2


POINTWISE = [
    (torch.ops.aten.add.Tensor, [(3, 4), (3, 4)]),
    (torch.ops.aten.mul.Tensor, [(2, 1, 5), (4, 1)]),
    (torch.ops.aten.sub.Tensor, [(7,), ()]),
    (torch.ops.aten.div.Tensor, [(), ()]),
    (torch.ops.aten.div.Tensor, [(1,), ()]),
    (torch.ops.aten.maximum.default, [(0, 3), (1, 3)]),
    (torch.ops.aten.pow.Tensor_Tensor, [(5, 1), (1, 6)]),
    (torch.ops.aten.lt.Tensor, [(2, 3), (3,)]),
]


@pytest.mark.parametrize(("func", "shapes"), POINTWISE, ids=lambda c: str(c))
@pytest.mark.parametrize(
    "dtypes",
    [
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.int64, torch.float16),
        (torch.bfloat16, torch.float64),
        (torch.int32, torch.int64),
    ],
    ids=str,
)
@pytest.mark.parametrize("turned", [False, True])
def test_pointwise_operators_return_what_they_do_on_the_cpu(func, shapes, dtypes, turned):
    real = [torch.ones(shape, dtype=dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
    meta = [tensor.to("meta") for tensor in real]
    if turned:  # Not contiguous any more, where there are several dimensions.
        real, meta = (
            [t.mT.contiguous().mT if t.ndim > 1 else t for t in each] for each in (real, meta)
        )
    known = Outputs()
    for _ in range(2):
        out, expected = known.of(func, tuple(meta), {}), func(*real)
        assert (out.shape, out.stride(), out.dtype) == (
            expected.shape,
            expected.stride(),
            expected.dtype,
        )


def test_what_torch_refuses_is_refused():
    known, given = Outputs(), (torch.zeros(2, 3, device="meta"), torch.zeros(4, device="meta"))
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"must match|broadcast"):
            known.of(torch.ops.aten.add.Tensor, given, {})


def test_no_more_are_remembered_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr(outputs, "MOST", 3)
    known, add = Outputs(), torch.ops.aten.add.Tensor
    for size in (1, 2, 3, 4, 1):
        given = torch.zeros(size, device="meta")
        assert known.of(add, (given, given), {}).shape == (size,)
        assert len(known._known) <= 3
