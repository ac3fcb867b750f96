"""A smaller card, emulated on a larger one."""

from contextlib import AbstractContextManager

import torch

from workbench.probe.predicting.capacity import cap_bytes
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import RequestError


def cap_flags(cell: Cell) -> list[str]:
    """What a record of a capped cell has to say."""
    if cell.memory_cap is None:
        return []
    return [f"memory_cap: {cap_bytes(cell.memory_cap):,} bytes ({cell.memory_cap}) are emulated"]


class Cap(AbstractContextManager[list[str]]):
    """A smaller card emulated on this one; on the CPU the worker limits its own address space."""

    def __init__(self, cell: Cell, place: str) -> None:
        self.flags = cap_flags(cell)
        self.cell, self.place = cell, torch.device(place)

    def __enter__(self) -> list[str]:
        if self.cell.memory_cap is not None and self.place.type == "cuda":
            cap = cap_bytes(self.cell.memory_cap)
            card = torch.cuda.get_device_properties(self.place).total_memory
            if cap > card:
                raise RequestError(
                    f"memory_cap {self.cell.memory_cap}: {cap:,} bytes, but the card has {card:,}"
                )
            torch.cuda.set_per_process_memory_fraction(cap / card, self.place)
        return self.flags

    def __exit__(self, *_: object) -> None:
        if self.cell.memory_cap is not None and self.place.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0, self.place)
