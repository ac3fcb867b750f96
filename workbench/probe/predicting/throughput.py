"""Tokens and samples a second of all ranks together."""

from workbench.vocabulary.cell import Cell


def throughput(cell: Cell, seconds: float | int | None) -> dict[str, int | float | None]:
    """``samples_per_s`` and ``tokens_per_s``, visual and text; None without a time.

    Ranks that share a sequence work on the same samples.
    """
    if not seconds:
        return {"samples_per_s": None, "tokens_per_s": None}
    samples = cell.batch * cell.accumulate * cell.world_size // cell.sharing
    rate = samples / seconds
    return {"samples_per_s": rate, "tokens_per_s": rate * (cell.num_visual + cell.num_text)}
