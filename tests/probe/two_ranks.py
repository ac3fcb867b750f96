"""One of two ranks: trains small models under every ZeRO stage; rank 0 writes what all found.

The file of cells has ``steps``, whose losses and states are wanted, and ``records`` to measure.

``torchrun --nproc-per-node 2 -m tests.probe.two_ranks CELLS.json OUT.json``
"""

import gc
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.lvlm.shared_sequence import copy_rows
from workbench.lvlm.attention import s_attn
from workbench.lvlm.build import build
from workbench.lvlm.scopes import decoder
from workbench.lvlm.workload import Workload
from workbench.probe.machine.launch import launched
from workbench.probe.ranks.engine import Rank, events_of, join, own_samples
from workbench.probe.ranks.ranks import measure_on_ranks
from workbench.vocabulary.cell import Cell, make_cell
from workbench.vocabulary.pictures import make_pictures
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Record
from workbench.vocabulary.sweep import Point


class Counted(TorchDispatchMode):
    """Bytes that ZeRO's collectives make each rank of a ring of two send.

    That is half of what they gather or scatter, and an all-reduce is both.
    """

    KINDS: ClassVar = {
        "allreduce_": ("all_reduce", 1),
        "_allgather_base_": ("all_gather", 3),
        "_reduce_scatter_base_": ("reduce_scatter", 3),
    }
    """And how many times its operator's buffers, what goes in and comes out, are what is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: dict[str, float] = {}

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if (name := operator.overloadpacket.__name__) in self.KINDS:
            kind, parts = self.KINDS[name]
            buffers = [x for x in tree_leaves(args) if isinstance(x, torch.Tensor)]
            size = sum(x.numel() * x.element_size() for x in buffers)
            self.sent[kind] = self.sent.get(kind, 0) + size / parts
        return operator(*args, **(kwargs or {}))


def stepping(rank: Rank) -> int:
    """How far live bytes rise while the optimizer steps, before weights are gathered again."""
    loss = rank.engine(*rank.workload.inputs)
    rank.engine.backward(loss)
    del loss
    gc.collect()
    gather = getattr(rank.optimizer, "_post_step", None)
    if gather is not None:
        rank.optimizer._post_step = lambda *args: marked(gather, *args)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        rank.engine.step()
    events = sorted(events_of(profiler), key=lambda event: event.start_ns())
    live = best = 0
    for event in events:
        if event.name() == GATHERING or "allgather" in event.name():
            break
        live += event.nbytes() if event.name() == "[memory]" else 0
        best = max(best, live)
    return best


GATHERING = "gathering"


def marked(call: Callable[..., Any], *args: Any) -> Any:
    with torch.profiler.record_function(GATHERING):
        return call(*args)


def plain(cell: Cell) -> bool:
    """Whether its step is looked into: one of each kind is enough, and each takes a second."""
    odd = cell.tiled or cell.chunk or cell.frozen or cell.attention != "s_attn"
    return not odd and cell.accumulate == cell.sharing == 1


def found(fields: dict[str, Any]) -> dict[str, Any]:
    """Losses of three steps, the bytes of each rank's states and of what the third sends."""
    torch.manual_seed(0)
    workload = build(make_cell(**fields))
    own_samples(workload, dist.get_rank())
    rank = Rank(workload)
    with workload.guard():
        rank.step()
        mine: dict[str, Any] = rank.held()
        with Counted() as counted:
            rank.step()
        losses = [*rank.losses]
        if plain(workload.cell):
            mine["stepping"] = stepping(rank)
    ranks: list[Any] = [None] * dist.get_world_size()
    mine |= {"losses": losses, "sent": counted.sent}
    dist.all_gather_object(ranks, mine)
    rank.engine.destroy()
    return {"ranks": ranks}


def shared(fields: dict[str, Any]) -> dict[str, Any]:
    """A sequence on two ranks and on one: loss, gradients of all weights and of the rows."""
    cell = make_cell(**fields)
    alone = sequence_of(cell.replace(ulysses=1, ring=1, world_size=1, zero=0))
    alone.run_backward(alone.run_forward())
    workload = sequence_of(cell)
    visual, rows = copy_rows(alone, workload), workload.context.layout
    rank = Rank(workload)
    with workload.guard():
        loss = rank.engine(*workload.inputs)
        rank.engine.backward(loss)
    total = loss.detach().clone()
    dist.all_reduce(total)
    grads = [p.grad for p in workload.module.parameters()]
    expected = [p.grad for p in alone.module.parameters()]
    pairs = [*zip(grads, expected, strict=True)]
    pairs.append((workload.inputs[0].grad, alone.inputs[0].grad[:, visual]))
    worst = max(float((a - b).norm() / b.norm()) for a, b in pairs if b.numel())
    ranks: list[Any] = [None] * 2
    dist.all_gather_object(ranks, {"worst": worst, "rows": [rows.num_visual, rows.num_text]})
    rank.engine.destroy()
    return {"ranks": ranks, "loss": float(total), "alone": float(alone.forward()[0].detach())}


def compares(fields: dict[str, Any]) -> bool:
    """Whether its ranks share a sequence, which is held against one process."""
    return ("ulysses" in fields or "ring" in fields) and "zero" not in fields


def sequence_of(cell: Cell) -> Workload:
    torch.manual_seed(0)
    return build(cell)


def recorded(fields: dict[str, Any]) -> dict[str, Any] | None:
    """What rank 0 prints of a cell, whose ``pictures`` are files to show."""
    files = fields.pop("pictures", None)
    records: list[Record] = []
    launch = launched()
    assert launch is not None, "torchrun"
    point = Point(
        cell=make_cell(**fields),
        source="measured",
        device="cpu",
        protocol=Protocol(min_samples=3, precision=None),
        pictures=None if files is None else make_pictures(**files),
    )
    measure_on_ranks(point, launch, records.append, None)
    return records[0].document() if records else None


def answer(cells: dict[str, Any], find: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """What is found of each cell, of whose objects alone later collections of garbage look.

    Those of all that is imported are hundreds of thousands, and each cell collects twice.
    """
    results = {}
    for name, fields in cells.items():
        gc.collect()
        gc.freeze()
        results[name] = find(fields)
    return results


def main() -> None:
    asked, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    join("cpu")
    decoder.TILE = s_attn.TILE = 16  # Small enough for tiles in sequences of a test.
    results = answer(asked["steps"], lambda f: shared(f) if compares(f) else found(f))
    results |= answer(asked["records"], recorded)
    if os.environ["RANK"] == "0":
        out.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
