"""What surrounds the layers of one workload: layout, kernel, masks and rotary tables.

Masks and tables are inputs: they are made once, before anything is counted or timed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from workbench.lvlm.kernels import Kernel, Scores
from workbench.lvlm.layout import Layout
from workbench.lvlm.models import Resolved
from workbench.lvlm.parts import LayerParts
from workbench.lvlm.weights import Made, create
from workbench.spec import Cell

TILE = 4096
"""Tokens a tile of the MLP and the logits under ``--tiled``."""


@dataclass
class Context:
    """Shared by all layers of a workload."""

    cell: Cell
    layout: Layout
    kernel: Kernel
    model: Resolved
    device: torch.device
    dtype: torch.dtype
    last: int = 0
    """Index of the last layer."""
    positions: Tensor | None = None
    """Positions other than sequence indices (M-RoPE), int64 [S] or [3, S]."""
    _rotary: nn.Module | None = None
    _tables: dict[tuple[str, str], tuple[Tensor, Tensor]] = field(default_factory=dict)
    _masks: dict[int | None, Tensor | None] = field(default_factory=dict)
    _indices: dict[bool, Tensor] = field(default_factory=dict)
    _kept: list[Tensor] = field(default_factory=list)

    def rope(self, index: int, stream: str) -> tuple[Tensor, Tensor]:
        """cos and sin [1, n, K] for ``stream`` (sequence, visual or text) at that layer."""
        layer_type = self.model.layer_type(index)
        if (layer_type, stream) not in self._tables:
            if self._rotary is None:
                self._rotary = self.model.family.rotary(self.model.config).to(self.device)
            places = (
                torch.arange(self.layout.length)
                if stream == "sequence"
                else (self.layout.positions(visual=stream == "visual"))
            )
            if self.positions is not None:
                places = self.positions[..., places]
            like = torch.empty(0, dtype=self.dtype, device=self.device)
            self._tables[layer_type, stream] = self.model.family.cos_sin(
                self._rotary, like, places.to(self.device), layer_type
            )
        return self._tables[layer_type, stream]

    def mask(self, window: int | None) -> Tensor | None:
        """The mask that transformers' layer needs with this kernel: [1, 1, S, S], or None.

        Additive in the model's dtype for eager, as transformers makes it, boolean for SDPA. None
        is causal for every kernel but eager.
        """
        n = self.layout.length
        window = None if window is None or window >= n else window
        if not self.kernel.dense_mask and window is None:
            return None
        if window not in self._masks:
            seen = torch.ones(n, n, dtype=torch.bool, device=self.device).tril_()
            if window is not None:
                seen = seen.triu_(1 - window)
            if self.kernel.dense_mask:
                low = torch.finfo(self.dtype).min
                mask = torch.zeros(n, n, dtype=self.dtype, device=self.device)
                seen = mask.masked_fill_(~seen, low)
            self._masks[window] = seen[None, None]
        return self._masks[window]

    def scores(self, parts: LayerParts, text_rows: bool, window_on_other: bool) -> Scores:
        """How the two branches of a decomposed layer form their scores."""
        window = parts.window
        if window is not None and window >= self.layout.length:
            window = None
        if window is None:
            return Scores(parts.scale, parts.softcap)
        return Scores(
            parts.scale,
            parts.softcap,
            window,
            rows=self._places(not text_rows),
            other=self._places(text_rows) if window_on_other else None,
        )

    def tensors(self) -> list[Tensor]:
        """Every mask, table and index made so far."""
        tables = [t for pair in self._tables.values() for t in pair]
        masks = [m for m in self._masks.values() if m is not None]
        return [*tables, *masks, *self._indices.values(), *self._kept]

    def create(self, make: Callable[[], Made]) -> Made:
        """A further module of the workload, uninitialised, on its device and in its dtype."""
        return create(make, self.device, self.dtype)

    def keep(self, tensor: Tensor) -> Tensor:
        """Count a system's own constant among the inputs; returns it."""
        self._kept.append(tensor)
        return tensor

    def _places(self, visual: bool) -> Tensor:
        if visual not in self._indices:
            self._indices[visual] = self.layout.positions(visual).to(self.device)
        return self._indices[visual]
