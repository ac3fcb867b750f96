"""Whether a kernel computes the right thing on this device: its cell against eager in float64."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from workbench.lvlm.build import build
from workbench.lvlm.models import resolve
from workbench.lvlm.workload import Workload
from workbench.probe.machine.environment import device_name, environment
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import Unsupported
from workbench.vocabulary.record import Record, Status

LIMITS = {"float64": 1e-9, "float32": 1e-4, "float16": 1e-2, "bfloat16": 2e-2}
"""Relative norms up to which rounding alone may bring a cell of that data type."""
ROUNDING = {"gemma2": 2.5, "gemma3_text": 2.5}
"""Families whose layers make so many times more of rounding than others'.

Their norms after attention and MLP bring small outputs, rounded, back to size. transformers' own
eager layer on a CPU, rounded to bfloat16 at full width, is off from float64 by up to 3.7e-2 (Gemma
2) and 2.3e-2 (Gemma 3), where Mistral's is by 8.8e-3; in float16, whose steps are an eighth, by an
eighth of that (tests/probe/measuring/test_agreement.py).
"""


def limit_of(cell: Cell) -> float:
    """The relative norm up to which the cell agrees."""
    family = resolve(cell.model).family.model_type
    return LIMITS[cell.dtype] * ROUNDING.get(family, 1.0)


def agreement(cell: Cell, device: str) -> Record:
    """Relative norms of outputs, and of gradients where the pass has them.

    Both forms have the cell's weights and inputs, rounded to its data type. A record that is not
    ``ok`` says by how much it disagrees, or what went wrong; ``details`` has every norm.
    """
    facts: dict[str, Any] = {
        "cell": cell,
        "source": "measured",
        "device": device_name(device),
        "environment": environment(device),
    }
    try:
        norms = _norms(cell, device)
    except Unsupported as error:
        status, reason = Status.UNSUPPORTED, str(error)
        return Record(**facts, status=status, error=reason, flags=[f"{status}: {reason}"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        return Record(**facts, status=Status.ERROR, error=reason, flags=[f"error: {reason}"])
    limit = limit_of(cell)
    wrong = {name: norm for name, norm in norms.items() if not norm <= limit}
    flags = [f"disagrees: {name} by {norm:.2e}, over {limit:g}" for name, norm in wrong.items()]
    return Record(
        **facts,
        status=Status.ERROR if wrong else Status.OK,
        error=flags[0] if flags else None,
        flags=flags,
        details={"relative_error": norms},
    )


def _norms(cell: Cell, device: str) -> dict[str, float]:
    mine = build(cell, device)
    exact = build(cell.replace(kernel="eager", dtype="float64"), device)
    with torch.no_grad():
        for weight in _weights(mine):
            if not weight.any():  # A gate that is shut at the start hides what it weighs.
                weight.normal_()
        for ours, theirs in zip(_gradient_inputs(mine), _gradient_inputs(exact), strict=True):
            theirs.copy_(ours)
    outputs = [_run(workload) for workload in (mine, exact)]
    norms = {"outputs": relative(*outputs)}
    if cell.pass_ == "train":
        for name, tensors in (("inputs", _inputs), ("weights", _weights)):
            gradients = ([x.grad for x in tensors(workload)] for workload in (mine, exact))
            norms[f"gradients of {name}"] = relative(*gradients)
    return norms


def _weights(workload: Workload) -> list[Tensor]:
    return list(workload.module.parameters())


def _inputs(workload: Workload) -> list[Tensor]:
    return workload.inputs


def _gradient_inputs(workload: Workload) -> list[Tensor]:
    return [*_weights(workload), *workload.inputs, *workload.upstream]


def _run(workload: Workload) -> list[Tensor]:
    with workload.guard():
        outputs = workload.run_forward()
        if workload.cell.pass_ == "train":
            workload.run_backward(outputs)
    return [output.detach() for output in outputs]


def relative(values: Iterable[Tensor | None], exact: Iterable[Tensor | None]) -> float:
    """Norm of the difference over the norm, all tensors together; NaN where one is not finite."""
    wrong = whole = 0.0
    for ours, theirs in zip(values, exact, strict=True):
        if ours is not None and theirs is not None:
            wrong += float((ours.double() - theirs).square().sum())
            whole += float(theirs.square().sum())
    return float(torch.tensor(wrong / whole if whole else wrong).sqrt())
