"""How ranks of a ring reach each other: tensors sent on, gathered, added up.

In a prediction nothing is sent: a link on shapes alone makes what would arrive.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from workbench.lvlm.sharing import groups
from workbench.vocabulary.cell import Cell

KEYS, GRADIENTS = 0, 1
"""Tags of messages between two ranks: both kinds may be under way at once."""


class Link:
    """The ranks of one ring, on shapes alone: what a prediction is made with."""

    def __init__(self, number: int, count: int) -> None:
        self.number, self.count = number, count

    def send_on(self, tensor: Tensor, tag: int) -> "Arriving":
        """Send a tensor to the next rank; another of its shape comes from the one before."""
        return Arriving(torch.empty_like(tensor), [])

    def gather(self, tensor: Tensor) -> Tensor:
        """That tensor of every rank: [...] -> [N, ...]."""
        return tensor.new_empty((self.count, *tensor.shape))

    def add_up(self, tensor: Tensor) -> None:
        """The sum over all ranks, in place."""


@dataclass
class Arriving:
    """A tensor that is on its way here."""

    tensor: Tensor
    works: list[Any]

    def wait(self) -> Tensor:
        """The tensor, once it is here and what was sent has left."""
        for work in self.works:
            work.wait()
        return self.tensor


class GroupLink(Link):
    """The same between processes: gloo on the CPU, NCCL between cards."""

    def __init__(self, group: Any) -> None:
        ranks = dist.get_process_group_ranks(group)
        super().__init__(dist.get_rank(group), len(ranks))
        self.group = group
        self.next = ranks[(self.number + 1) % self.count]
        self.before = ranks[(self.number - 1) % self.count]

    def send_on(self, tensor: Tensor, tag: int) -> Arriving:
        coming = torch.empty_like(tensor)
        send = dist.P2POp(dist.isend, tensor, self.next, self.group, tag)
        receive = dist.P2POp(dist.irecv, coming, self.before, self.group, tag)
        return Arriving(coming, dist.batch_isend_irecv([send, receive]))

    def gather(self, tensor: Tensor) -> Tensor:
        gathered = super().gather(tensor)
        dist.all_gather_into_tensor(gathered.flatten(0, 1), tensor, group=self.group)
        return gathered

    def add_up(self, tensor: Tensor) -> None:
        dist.all_reduce(tensor, group=self.group)


def link_of(cell: Cell, number: int, traced: bool) -> Link:
    """The ring of a cell, seen from one of its ranks."""
    if traced:
        return Link(number, cell.ring)
    return GroupLink(groups(cell.ulysses, cell.ring)[1])
