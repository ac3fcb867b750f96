"""What a measured cell achieved: FLOP/s and bytes/s, and how near its ceilings that is."""

from workbench.lvlm.kernels import KERNELS
from workbench.record import Ceiling
from workbench.spec import Cell

Metrics = dict[str, int | float | None]


def achieved(cell: Cell, metrics: Metrics, ceiling: Ceiling | None) -> Metrics:
    """Rates of a record that has a time, its counted metrics and perhaps measured ceilings.

    A fused kernel skips the pairs that the mask hides, so that they are no FLOPs that it did.
    """
    counted = metrics["flops" if KERNELS[cell.kernel].every_pair else "flops_causal"]
    moved, seconds = metrics["bytes_moved"], metrics["time_s"]
    if not counted or not moved or not seconds:
        return {}
    found: Metrics = {
        "achieved_flops_s": counted / seconds,
        "achieved_bytes_s": moved / seconds,
        "arithmetic_intensity": counted / moved,
    }
    if ceiling is not None:
        found |= {
            "ceiling_flops_s": ceiling.flops_s,
            "ceiling_bytes_s": ceiling.bytes_s,
            "ceiling_fraction": counted / seconds / ceiling.at(counted / moved),
        }
    return found
