"""How many bytes a cell may allocate on a device: the card's own, or a smaller card's."""

from workbench.vocabulary.cell import Cell
from workbench.vocabulary.devices import DEVICES, Device
from workbench.vocabulary.errors import RequestError, unknown_name


def capacity_of(cell: Cell, target: Device) -> int | None:
    """Bytes that the cell may allocate; None where nothing bounds it."""
    if cell.memory_cap is None:
        return target.capacity_bytes
    cap = cap_bytes(cell.memory_cap)
    return cap if target.capacity_bytes is None else min(cap, target.capacity_bytes)


def fixed_capacity(cell: Cell, target: Device) -> int:
    """Bytes that the cell may allocate; RequestError for a device that does not fix them."""
    capacity = capacity_of(cell, target)
    if capacity is None:
        raise RequestError(
            f"device {target.name!r}: has no fixed capacity; give --memory-cap BYTES"
        )
    return capacity


def cap_bytes(cap: int | str) -> int:
    """A memory cap in bytes: a number, or the capacity of a device entry."""
    if isinstance(cap, int):
        return cap
    if cap not in DEVICES:
        raise unknown_name("memory_cap", cap, [*DEVICES, "BYTES"])
    capacity = DEVICES[cap].capacity_bytes
    if capacity is None:
        raise RequestError(f"memory_cap {cap!r}: this device has no fixed capacity; give bytes")
    return capacity
