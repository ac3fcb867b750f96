"""What a record may state of an emulated ZeRO-3 rank: ballast has no kind, and maybe no time."""

from workbench.probe.predicting.emulation import RankPlan, left_out

Metrics = dict[str, int | float | None]
Samples = dict[str, list[float]]


def adapted(
    metrics: Metrics, samples: Samples, plan: RankPlan
) -> tuple[Metrics, Samples, list[str]]:
    """Metrics and samples of an emulation as a record may state them, and why some are None."""
    missing = left_out(plan, metrics)
    if not plan.whole:
        samples = {f"part_of_{name}": values for name, values in samples.items()}
    flags = [f"{name}: {reason}" for name, reason in missing.items()]
    return {**metrics, **dict.fromkeys(missing)}, samples, flags
