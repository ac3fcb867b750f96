"""Which cells can be shared by rows: what a ring asks of system, kernel, sizes and model."""

from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.attention.pairs import text_prefixes
from workbench.lvlm.kernels import KERNELS
from workbench.lvlm.kernels.fused import Fused
from workbench.lvlm.layout import Chunk, Layout, word_of
from workbench.lvlm.models import Resolved
from workbench.lvlm.sharing import shard
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import Faults, RequestError, Unsupported


def check_ring(cell: Cell, model: Resolved) -> None:
    """Raise RequestError where no model could share its rows so, Unsupported where this cannot."""
    count, system = cell.ring, SYSTEMS[cell.attention]
    if count == 1:
        return
    lead, faults = f"ring {count}: ", Faults()
    if not system.ring:
        able = ", ".join(name for name in sorted(SYSTEMS) if SYSTEMS[name].ring)
        raise RequestError(
            f"{lead}{cell.attention} does not share a sequence by rows; use one of {able}"
        )
    if cell.scope != "decoder" or cell.pass_ != "train":
        faults.add(
            f"{lead}shares the sequence of a train pass at scope decoder, not pass {cell.pass_} "
            f"at scope {cell.scope}"
        )
    if cell.lora is not None:
        faults.add(f"{lead}trains a model whole, without lora")
    if cell.compile:
        faults.add(f"{lead}its exchange between ranks is not compiled; leave out compile")
    if not isinstance(KERNELS[cell.kernel], Fused):
        able = ", ".join(name for name in sorted(KERNELS) if isinstance(KERNELS[name], Fused))
        faults.add(
            f"{lead}kernel {cell.kernel} returns no log-sum-exp to merge by; use one of {able}"
        )
    rows = cell.num_visual + cell.num_text
    if system.ring == "text":
        with faults:
            _check_visual(cell)
    elif rows % (2 * cell.sharing):
        unit, product = 2 * cell.sharing, "2·ring" if cell.ulysses == 1 else "2·ulysses·ring"
        faults.add(
            f"{lead}{rows} tokens are no multiple of {product} = {unit}; give "
            f"{rows // unit * unit} or {(rows // unit + 1) * unit} in all"
        )
    faults.raise_all()
    check_places(cell, model)
    window = _narrowest_window(model)
    if window is not None and window < rows:
        raise Unsupported(
            f"{lead}{cell.attention} on {cell.model}: its {word_of(window)} of {window:,} hides "
            f"some of {rows:,} tokens, and a ring has no {word_of(window)}s"
        )
    if getattr(model.config, "attn_logit_softcapping", None) is not None:
        raise Unsupported(
            f"{lead}{cell.attention} on {cell.model}: no fused kernel has its soft-cap of scores"
        )


def check_places(cell: Cell, model: Resolved) -> None:
    """Raise Unsupported where a rank's layers would take the places among its rows for those in
    the sequence: they scale queries by them, and are given no positions.
    """
    config, family = model.config, model.family
    scaled = (family.scales_queries(config, i) for i in range(config.num_hidden_layers))
    if cell.attention == "s_attn" and not family.scaled_queries and any(scaled):
        raise Unsupported(
            f"{cell.attention} on {cell.model}: its layers scale queries by their places among "
            "the rows that they are given, which of ranks that share a sequence are not its own"
        )


def _check_visual(cell: Cell) -> None:
    """Of a system that shares visual tokens alone."""
    faults = Faults()
    lead = f"ring {cell.ring}: {cell.attention} shares its visual tokens, "
    if cell.ulysses > 1:
        faults.add(f"{lead}which ulysses {cell.ulysses} does not; use ring alone")
    if cell.ring_order != "zigzag":
        faults.add(f"{lead}to whose order its text is blind; leave out ring_order")
    if cell.loss_rows == "all":
        faults.add(f"{lead}and its loss is of the text, which every rank has; use text")
    smallest = min((s.length for s in Layout.of(cell).visual_segments), default=0)
    if smallest < cell.ring:
        faults.add(
            f"{lead}of which every rank needs one in each segment of the layout; one has "
            f"{smallest}"
        )
    faults.raise_all()
    assert {text_rows(shard(cell, r)) for r in range(cell.ring)} == {text_rows(shard(cell, 0))}


def text_rows(layout: Layout) -> tuple[tuple[int, int], ...]:
    """The text rows that see visual tokens."""
    return tuple((p.start, p.stop) for p in text_prefixes(layout))


def _narrowest_window(model: Resolved) -> int | None:
    """The sliding window of a model's layers; None where none has one."""
    config = model.config
    kinds = {model.layer_type(i) for i in range(config.num_hidden_layers)}
    if "chunked_attention" in kinds:
        return Chunk(config.attention_chunk_size)
    window = getattr(config, "sliding_window", None)
    # A model of one kind of layer has its window in all of them, or none.
    return window if len(kinds) == 1 or "sliding_attention" in kinds else None
