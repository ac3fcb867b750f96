"""How a device hands out memory, as far as a prediction needs to know it.

A CUDA card's figures are those of torch's caching allocator (c10/core/AllocatorConfig.h).
"""

from dataclasses import dataclass

from workbench.devices import Device

MIN_BLOCK = 512
"""Bytes to which a request is rounded up (kMinBlockSize)."""


@dataclass(frozen=True)
class Allocator:
    """The memory of one device."""

    granule: int = 1
    """Bytes to which each allocation is rounded up."""
    card: bool = False
    """Whether it is a card's: its kernels differ from the CPU's, and the host is another place."""

    def rounded(self, size: int) -> int:
        """What a request of ``size`` bytes takes."""
        return -(-size // self.granule) * self.granule


HOST = Allocator()
CARD = Allocator(MIN_BLOCK, card=True)


def allocator_of(target: Device) -> Allocator:
    """The allocator of a device entry; only a card has a capacity of its own."""
    return HOST if target.capacity_bytes is None else CARD
