"""DeepSpeed-Ulysses: ranks share one sequence (arXiv 2309.14509).

Outside attention a rank has S/N consecutive rows; inside, after an all-to-all, every row and H/N
heads. Real runs take deepspeed's ``UlyssesSPAttentionHF``; a prediction follows its operators on
shapes, without it.

Shapes: B batch, S tokens, H query heads, G key/value heads, K head size, N ranks.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from workbench.lvlm.kernels import KERNELS
from workbench.lvlm.models import Resolved, resolve
from workbench.lvlm.sharing import groups
from workbench.lvlm.sharing.ring_check import check_places
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import Faults


def check_ulysses(cell: Cell, model: Resolved) -> None:
    """Raise RequestError where a sequence or its heads cannot be shared by so many."""
    count, config = cell.ulysses, model.config
    if count == 1:
        return
    faults = Faults()
    if cell.attention != "s_attn":
        faults.add(f"ulysses {count}: {cell.attention} does not share a sequence; s_attn")
    if cell.scope != "decoder" or cell.pass_ != "train":
        faults.add(f"ulysses {count}: shares the sequence of a train pass at scope decoder")
    if cell.lora is not None:
        faults.add(f"ulysses {count}: trains a model whole, without lora")
    if KERNELS[cell.kernel].hf != "sdpa":
        faults.add(
            f"ulysses {count}: kernel {cell.kernel} has a mask of a rank's own rows; use sdpa"
        )
    heads, shared = config.num_attention_heads, config.num_key_value_heads
    if heads % count or (shared % count and count % shared):
        faults.add(
            f"ulysses {count}: does not divide the {heads} query heads and {shared} key/value "
            f"heads of {cell.model}"
        )
    tokens = cell.num_visual + cell.num_text
    if tokens % count:
        faults.add(
            f"ulysses {count}: {tokens} tokens are no {count} equal shares; give "
            f"{tokens // count * count} or {(tokens // count + 1) * count} in all"
        )
    types = {model.layer_type(i) for i in range(config.num_hidden_layers)}
    windows = [getattr(config, "sliding_window", None)] if len(types) == 1 else [0]
    # Of a ring the windows are looked at there.
    if cell.ring == 1 and any(w is not None and w < tokens for w in windows):
        faults.add(f"ulysses {count}: {cell.model} has a sliding window, which needs a mask")
    faults.raise_all()
    check_places(cell, model)


def over_heads(
    core: Callable[..., Any], cell: Cell, config: Any, traced: bool
) -> Callable[..., Any]:
    """transformers' attention over the rows of u ranks, each with H/u heads, around ``core``."""
    if traced:
        return Traced(core, cell.ulysses)
    from deepspeed.runtime.sequence_parallel.ulysses_sp import UlyssesSPAttentionHF

    group, _ = groups(cell.ulysses, cell.ring)
    return UlyssesSPAttentionHF(
        attn=core,
        batch_size=cell.batch,
        attn_head_count=config.num_attention_heads,
        attn_head_size=head_size(config),
        kv_head_count=config.num_key_value_heads,
        num_hidden_layers=config.num_hidden_layers,
        process_group=group,
        seq_length_is_variable=True,
    )


def head_size(config: Any) -> int:
    """K of a transformers configuration."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


class Traced:
    """The operators of ``UlyssesSPAttentionHF`` on shapes: its copies, exchanges and attention."""

    def __init__(self, core: Callable[..., Any], count: int) -> None:
        self.core, self.count = core, count

    def __call__(
        self, module: Any, q: Tensor, k: Tensor, v: Tensor, mask: None, **options: Any
    ) -> tuple[Tensor, None]:
        """[B, heads, S/N, K] each -> [B, S/N, H·K]."""
        q, k, v = (self._gather(x) for x in (q, k, v))
        module.num_key_value_groups = q.shape[1] // k.shape[1]
        out, _ = self.core(module, q, k, v, mask, **options)
        whole = out.transpose(0, 1).flatten(2)
        parts = whole.reshape(self.count, -1, *whole.shape[1:]).contiguous()
        back = _Exchange.apply(parts).permute(1, 2, 0, 3)
        return back.reshape(*back.shape[:2], -1).transpose(0, 1), None

    def _gather(self, x: Tensor) -> Tensor:
        rows = x.permute(2, 0, 1, 3)
        if rows.shape[2] < self.count:
            rows = rows.repeat_interleave(self.count // rows.shape[2], dim=2)
        split = rows.unflatten(2, (self.count, -1)).permute(2, 0, 1, 3, 4).contiguous()
        return _Exchange.apply(split).flatten(0, 1).permute(1, 2, 0, 3).contiguous()


class _Exchange(torch.autograd.Function):
    """An all-to-all over dimension 0: as much comes as goes, forward and back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return torch.empty_like(grad)


def all_to_all_bytes(cell: Cell, item: int) -> int | None:
    """Bytes that one rank sends to the others in an iteration: q, k, v and the output, both ways.

    Key and value heads are repeated where there are fewer than ranks. A checkpoint's recomputation
    sends the forward's once more. None where nobody shares a sequence.
    """
    count = cell.ulysses
    if count == 1:
        return None
    config = resolve(cell.model).config
    rows = cell.batch * (cell.num_visual + cell.num_text) // cell.sharing
    heads = 2 * config.num_attention_heads + 2 * max(config.num_key_value_heads, count)
    once = rows * heads * head_size(config) * item * (count - 1) // count
    passes = 3 if cell.checkpoint else 2
    return once * passes * config.num_hidden_layers * cell.accumulate
