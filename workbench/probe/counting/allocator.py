"""How a device hands out memory, as far as a prediction needs to know it.

A CUDA card's figures are those of torch's caching allocator (c10/core/AllocatorConfig.h).
"""

from dataclasses import dataclass, replace

from workbench.lvlm.kernels import KERNELS
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.devices import Device

MIN_BLOCK = 512
"""Bytes to which a request is rounded up (kMinBlockSize)."""


@dataclass(frozen=True)
class Allocator:
    """The memory of one device."""

    granule: int = 1
    """Bytes to which each allocation is rounded up."""
    card: bool = False
    """Whether it is a card's: its kernels differ from the CPU's, and the host is another place."""

    workspace: int = 0
    """Bytes that the matrix library gets for good, once for each thread that calls it."""

    def rounded(self, size: int) -> int:
        """What a request of ``size`` bytes takes."""
        return -(-size // self.granule) * self.granule


HOST = Allocator()
CARD = Allocator(MIN_BLOCK, card=True)


def assumptions(target: Device, cell: Cell) -> dict[str, str]:
    """What a prediction for a card takes for granted about its memory, in sentences."""
    if target.capacity_bytes is None:
        return {}
    context = target.context_bytes or 0
    workspace, threads = target.blas_workspace_bytes, threads_of(cell)
    kernel = KERNELS[cell.kernel]
    return {
        "blocks": "peak_bytes, reserved_bytes and whether it fits are those of torch's caching "
        f"allocator, replayed on one stream under its setting {cell.allocator!r}",
        "workspace": f"not included: {target.sources['blas_workspace_bytes']}"
        if workspace is None
        else f"cuBLAS holds {workspace:,} bytes for each of {threads} threads that multiply",
        "context": f"{context:,} bytes of CUDA context stand outside peak and capacity",
        "temporaries": kernel.temporaries_from or "none: every tensor of this kernel is traced",
    }


def threads_of(cell: Cell) -> int:
    """Threads that multiply: autograd has one of its own for each card."""
    return 2 if cell.pass_ == "train" else 1


def allocator_of(target: Device) -> Allocator:
    """The allocator of a device entry; only a card has a capacity of its own."""
    if target.capacity_bytes is None:
        return HOST
    return replace(CARD, workspace=target.blas_workspace_bytes or 0)
