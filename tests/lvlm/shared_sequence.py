"""What a rank of tests/lvlm/test_ring.py runs: a sequence on several ranks and on one.

``torchrun … -m tests.lvlm.shared_sequence CELLS.json OUT.json``
"""

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

from workbench.lvlm.build import build
from workbench.lvlm.loss import shifted
from workbench.lvlm.sharing import meeting
from workbench.lvlm.workload import Workload
from workbench.probe.counting.flops import operator_flops
from workbench.probe.counting.tracker import storage_bytes
from workbench.probe.ranks.engine import cpu_rise, join
from workbench.vocabulary.cell import Cell, make_cell


def copy_rows(alone: Workload, workload: Workload) -> torch.Tensor:
    """Give a rank its rows of the inputs of one process; which visual tokens they are, [V]."""
    whole, own = alone.context.layout, workload.context.layout
    streams = [whole.positions(True), whole.positions(False)]
    # Where this rank's tokens stand in the streams of the whole sequence.
    visual, text = (
        torch.searchsorted(stream, own.positions(kind))
        for stream, kind in zip(streams, (True, False), strict=True)
    )
    chosen, wanted = [visual, text, text], [*alone.inputs]
    if workload.cell.loss_rows == "all":
        wanted[2], chosen[2] = shifted(alone.cell, wanted[2]), own.sequence
        assert (workload.inputs[2] < 0).equal(wanted[2][:, chosen[2]] < 0), "rows without a label"
    for mine, other, rows in zip(workload.inputs, wanted, chosen, strict=True):
        assert mine.shape[1] == len(rows)
        mine.data.copy_(other.data[:, rows])
    return visual


class Sent:
    """Bytes that leave this rank around its ring."""

    def __init__(self) -> None:
        self.bytes = 0

    def __enter__(self) -> "Sent":
        self.calls = dist.batch_isend_irecv, dist.all_gather_into_tensor, dist.all_reduce
        p2p, gather, reduce = self.calls

        def pass_on(operations: list[Any]) -> Any:
            self.bytes += sum(o.tensor.nbytes for o in operations if o.op is dist.isend)
            return p2p(operations)

        def gathered(found: Any, mine: Any, **more: Any) -> Any:
            self.bytes += found.nbytes - mine.nbytes
            return gather(found, mine, **more)

        def summed(tensor: Any, **more: Any) -> Any:
            count = dist.get_world_size(more.get("group"))
            self.bytes += -(-2 * (count - 1) * tensor.nbytes // count)
            return reduce(tensor, **more)

        dist.batch_isend_irecv, dist.all_gather_into_tensor = pass_on, gathered
        dist.all_reduce = summed
        return self

    def __exit__(self, *_: object) -> None:
        dist.batch_isend_irecv, dist.all_gather_into_tensor, dist.all_reduce = self.calls


def made(cell: Cell) -> Workload:
    torch.manual_seed(0)
    return build(cell)


def compare(fields: dict[str, Any]) -> dict[str, Any]:
    """How far loss and gradients of the ranks together are from those of one process."""
    cell = make_cell(**fields)
    alone = made(cell.replace(ulysses=1, ring=1, ring_order="zigzag", world_size=1, zero=0))
    alone.run_backward(alone.run_forward())
    workload = made(cell)
    visual = copy_rows(alone, workload)
    with workload.guard(), Sent() as sent:
        (loss,) = workload.run_forward()
        workload.run_backward((loss,))
    group = meeting(cell.sharing).get_sequence_parallel_group()
    total = loss.detach().clone()
    dist.all_reduce(total, group=group)
    worst = 0.0
    for mine, other in zip(workload.module.parameters(), alone.module.parameters(), strict=True):
        if not other.requires_grad:
            continue
        grad = torch.zeros_like(mine) if mine.grad is None else mine.grad.clone()
        dist.all_reduce(grad, group=group)
        assert other.grad is not None
        worst = max(worst, float((grad - other.grad).norm() / other.grad.norm()))
    expected = alone.inputs[0].grad
    if expected is not None and len(visual):
        grad = workload.inputs[0].grad
        assert grad is not None
        off = (grad - expected[:, visual]).norm() / expected.norm()
        worst = max(worst, float(off))
    (single,) = alone.forward()
    return {
        "worst": worst,
        "loss": abs(float(total) - float(single)),
        "sent": sent.bytes,
        **ran(workload),
    }


class Counted(TorchDispatchMode):
    """FLOPs of what runs."""

    flops = 0

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = operator(*args, **(kwargs or {}))
        self.flops += operator_flops(operator.overloadpacket, args, kwargs or {}, out)
        return out


def ran(workload: Workload) -> dict[str, int]:
    """FLOPs of one iteration of this rank, and the most bytes that live in another one."""
    with workload.guard(), Counted() as counted:
        workload.step()
    workload.clear()
    gc.collect()
    held = storage_bytes(workload.held())
    with workload.guard():
        return {"flops": counted.flops, "peak": held + cpu_rise(workload.step)}


def main() -> None:
    asked, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    join("cpu")
    gc.freeze()  # Each cell collects garbage, and what is imported is none.
    found = {}
    for name, fields in asked.items():
        ranks: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(ranks, compare(fields))
        found[name] = ranks
    if os.environ["RANK"] == "0":
        out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
