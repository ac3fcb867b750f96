"""What a measured cell achieved: FLOP/s and bytes/s, and how near its ceilings that is."""

from workbench.vocabulary.record import Ceiling

Metrics = dict[str, int | float | None]


def achieved(metrics: Metrics, skipped: int, ceiling: Ceiling | None) -> Metrics:
    """Rates of a record that has a time, its counted metrics and perhaps measured ceilings.

    ``skipped`` are FLOPs of pairs that a mask hides and the kernel skips, so did not do
    (``Trace.flops_skipped``).
    """
    flops, num_bytes, seconds = metrics["flops"], metrics["bytes_moved"], metrics["time_s"]
    if not flops or not num_bytes or not seconds:
        return {}
    work = flops - skipped
    ratios: Metrics = {
        "achieved_flops_s": work / seconds,
        "achieved_bytes_s": num_bytes / seconds,
        "arithmetic_intensity": work / num_bytes,
    }
    if ceiling is not None:
        ratios |= {
            "ceiling_flops_s": ceiling.flops_s,
            "ceiling_bytes_s": ceiling.bytes_s,
            "ceiling_fraction": work / seconds / ceiling.at(work / num_bytes),
        }
    return ratios
