"""CMAI (arXiv 2411.15453): text loses the visual tokens that the text it attends to ignores.

S-Attn with a mask: with A the attention map of a layer, mean over heads, F = A_TT·A_TV says how
much of each visual token reaches a text row through text; in the next layer that row loses the
⌊inhibit·V⌋ visual tokens with the least F (those after it have none). The first layer loses
nothing, the last makes no F; the choice has no gradient. 2T²V FLOPs more in every layer but the
last: it saves nothing, order O(V²) as S-Attn, with explicit scores, so ``eager`` alone. A decode
step holds A_TV of the earlier text rows beside keys and values, T·V elements in every layer but
the last. No parameters. Gives up: visual tokens that text ignores. The paper's layers and shares
could not be read: these are ours. Under ``--reduce vmtc`` it is the pair that the paper proposes.
"""

from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.attention.costs import Cached, Pairs
from workbench.lvlm.attention.s_attn import SAttn, SAttnDecode, SAttnLayer
from workbench.lvlm.context import Context
from workbench.lvlm.layout import Layout, word_of
from workbench.lvlm.parts.marks import region, unmasked
from workbench.lvlm.place import Place
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import Unsupported

if TYPE_CHECKING:
    from workbench.lvlm.models import Resolved
    from workbench.lvlm.parts import LayerParts

PLAIN, MAPS, BOTH, INHIBITS = "", "maps", "inhibits and maps", "inhibits"
"""Roles: the first layer, those between, and the last; all are plain where nothing is lost."""


class Maps:
    """The attention map of a layer's last forward, mean over heads."""

    def __init__(self, parts: "LayerParts") -> None:
        self.found: Tensor | None = None
        parts.attention.register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _inputs: object, output: tuple[Tensor, Tensor]) -> None:
        self.found = output[1].detach()

    def take(self) -> Tensor:
        """[B, H, rows, keys]."""
        assert self.found is not None, "the eager kernel gives its weights"
        hidden, self.found = self.found, None
        return hidden


def choosing() -> AbstractContextManager[object]:
    """What is computed inside chooses: no gradient, no pairs of a mask."""
    stack = ExitStack()
    for block in (torch.no_grad(), region("ranking"), unmasked()):
        stack.enter_context(block)
    return stack


def least(reach: Tensor, count: int) -> Tensor:
    """Whether each of [B, rows, V] is one of the ``count`` of its row with the least."""
    last = reach.argsort(dim=2, stable=True)[..., :count]
    return torch.zeros_like(reach, dtype=torch.bool).scatter(2, last, True)


class InhibitedLayer(SAttnLayer):
    """The untouched layer under a mask of every sample's own."""

    def __init__(self, parts: "LayerParts", context: Context, place: Place, lost: int) -> None:
        super().__init__(parts, context, place)
        self.layout, self.lost = place.layout, lost
        self.maps = Maps(parts) if place.role in (MAPS, BOTH) else None
        rows, columns = (place.layout.positions(visual) for visual in (False, True))
        self.after = context.constant("cmai: after", lambda: rows[:, None] < columns)

    def forward(self, sequence: Tensor, reach: Tensor | None = None) -> tuple[Tensor, ...]:
        """[B, S, D] -> the same, and F [B, T, V] of this layer, given that of the last one."""
        arguments = self.arguments()
        if reach is not None:
            arguments["attention_mask"] = self.seen(reach)
        sequence = self.layer(sequence, **arguments)
        return (sequence,) if self.maps is None else (sequence, self.reach(self.maps.take()))

    def reach(self, weights: Tensor) -> Tensor:
        """F [B, T, V] of weights [B, H, S, S]."""
        with choosing():
            _, text = self.layout.split(weights.transpose(1, 2))
            to_visual, to_text = self.layout.split(text.mean(2).transpose(1, 2))
            return torch.matmul(to_text.transpose(1, 2), to_visual.transpose(1, 2))

    def seen(self, reach: Tensor) -> Tensor:
        """The additive mask [B, 1, S, S] without what each text row loses."""
        with choosing():
            # What stands after a row, which it cannot see, is the first that it loses.
            hidden = least(reach.masked_fill(self.after, -1.0), self.lost).transpose(1, 2)
            batch, visual, text = hidden.shape
            columns = self.layout.join(hidden, hidden.new_zeros(batch, text, text))
            padded = hidden.new_zeros(batch, visual, visual + text)
            rows = self.layout.join(padded, columns.transpose(1, 2))
            lowest = torch.finfo(self.mask.dtype).min
            return self.mask.masked_fill(rows[:, None], lowest)


class InhibitedDecode(SAttnDecode):
    """One token, over a cache that also has A_TV [B, T, V] of the text before it."""

    to_visual: Tensor

    def __init__(self, parts: "LayerParts", context: Context, place: Place, lost: int) -> None:
        super().__init__(parts, context, place)
        self.layout, self.lost = place.layout, lost
        self.maps = Maps(parts) if place.role in (MAPS, BOTH) else None
        if self.maps is not None:
            shape = context.cell.batch, place.layout.num_text, place.layout.num_visual
            self.register_buffer("to_visual", context.random(shape), persistent=False)

    def forward(self, token: Tensor, reach: Tensor | None = None) -> tuple[Tensor, ...]:
        """[B, 1, D] -> the same, and F [B, 1, V] of this layer, given that of the last one."""
        arguments: dict[str, Any] = self.arguments()
        if reach is not None:
            arguments["attention_mask"] = self.seen(reach, token)
        token = self.layer(token, **arguments)
        return (token,) if self.maps is None else (token, self.reach(self.maps.take()))

    def reach(self, weights: Tensor) -> Tensor:
        """F [B, 1, V] of weights [B, H, 1, S + 1], whose last key is the token's own."""
        with choosing():
            mean = weights.mean(1)[:, 0]
            visual, text = self.layout.split(mean[:, :-1])
            through = torch.matmul(text[:, None], self.to_visual)
            return through + (mean[:, -1:] * visual)[:, None]

    def seen(self, reach: Tensor, like: Tensor) -> Tensor:
        """The additive mask [B, 1, 1, S + 1] without what the token loses."""
        with choosing():
            hidden = least(reach, self.lost)[:, 0]
            text = hidden.new_zeros(hidden.shape[0], self.layout.num_text)
            row = torch.cat((self.layout.join(hidden, text), hidden.new_zeros(len(hidden), 1)), 1)
            mask = torch.zeros_like(row, dtype=like.dtype)
            return mask.masked_fill(row, torch.finfo(like.dtype).min)[:, None, None]


class CMAI(SAttn):
    name = "cmai"
    lacks = "beside the map that its layers hand on it has no form of what these do"
    keeps_cache = False
    lone_layer = False

    def lost(self, layout: Layout) -> int:
        """Visual tokens that a text row loses."""
        return int(self.share("inhibit") * layout.num_visual)

    def places(self, model: "Resolved", cell: Cell, layout: Layout) -> tuple[Place, ...]:
        count = model.config.num_hidden_layers
        roles = [MAPS, *[BOTH] * (count - 2), INHIBITS]
        if count < 2 or not self.lost(layout) or not layout.num_text:
            roles = [PLAIN] * count
        return tuple(Place(i, layout, roles[i]) for i in range(count))

    def refuse(self, parts: "LayerParts", place: Place, window_bites: bool) -> None:
        if window_bites:
            raise Unsupported(
                f"{self.name} hides visual tokens by what text reads, and so does the "
                f"{word_of(parts.window)} of {parts.attention.config.model_type} "
                f"({parts.window} tokens)"
            )

    def layer(self, parts: "LayerParts", context: Context, place: Place) -> nn.Module:
        if context.kernel.name != "eager":
            raise Unsupported(
                f"{self.name} needs explicit scores, which kernel {context.kernel.name!r} does "
                "not give; use eager"
            )
        context.flag(
            f"{self.name}: the paper's layers and shares could not be read; these are this "
            "workbench's"
        )
        if place.role == PLAIN:
            return super().layer(parts, context, place)
        kind = InhibitedDecode if context.cell.pass_ == "decode" else InhibitedLayer
        return kind(parts, context, place, self.lost(place.layout))

    def window_bites(self, place: Place, window: int | None) -> bool:
        return super().pairs(place, window).allowed < super().pairs(place, None).allowed

    def pairs(self, place: Place, window: int | None) -> Pairs:
        pairs = super().pairs(place, window)
        if place.role not in (BOTH, INHIBITS) or self.window_bites(place, window):
            return pairs
        layout = place.layout
        lost, total = self.lost(layout), layout.num_visual
        # What stands after a row is lost first.
        gone = sum(
            s.length * max(0, lost - (total - s.visual_before)) for s in layout.text_segments
        )
        return Pairs(pairs.dense, pairs.allowed - gone)

    def linear_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        return super().linear_flops(parts, place, cell) + self.choice_flops(parts, place, cell)

    def choice_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        if place.role not in (MAPS, BOTH):
            return 0
        return cell.batch * 2 * place.layout.num_text**2 * place.layout.num_visual

    def token_flops(self, parts: "LayerParts", place: Place, cached: Cached) -> int:
        through = 2 * cached.text * cached.visual if place.role in (MAPS, BOTH) else 0
        return super().token_flops(parts, place, cached) + through

    def cache_elements(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        layout, maps = place.layout, place.role in (MAPS, BOTH)
        mixed = cell.batch * layout.num_text * layout.num_visual * maps
        return super().cache_elements(parts, place, cell) + mixed


SYSTEMS.add("cmai", CMAI())
