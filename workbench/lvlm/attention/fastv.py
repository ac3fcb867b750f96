"""FastV (arXiv 2403.06764): before layer ``at``, all but a share of the visual tokens leave.

S-Attn whose round(keep·V) visual tokens with the largest attention from the last text row in layer
at − 1, mean over heads, stay; text stays whole, order and positions are kept. Layer at − 1 ranks
on its own input, by one row of its own q and all keys, whatever the kernel, and gathers its
output. O(V²) in ``at`` layers and O((keep·V)²) in the rest; no parameters. Gives up: the tokens
that leave; the exponent stays. It is a method for inference.
"""

from typing import TYPE_CHECKING

from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.attention.pruning import RANKS_LAST, Pruning, kept_of
from workbench.lvlm.layout import Layout
from workbench.lvlm.place import Place
from workbench.vocabulary.cell import Cell

if TYPE_CHECKING:
    from workbench.lvlm.models import Resolved


class FastV(Pruning):
    name = "fastv"

    def first_kept(self, num_visual: int) -> int:
        return round(self.share("keep") * num_visual)

    def places(self, model: "Resolved", cell: Cell, layout: Layout) -> tuple[Place, ...]:
        count, at = model.config.num_hidden_layers, int(self.settings["at"])
        self.require(f"at={at}", model, at < count)
        remaining = self.first_kept(layout.num_visual)
        if remaining == layout.num_visual:  # Nothing leaves, so nothing is ranked.
            return super().places(model, cell, layout)
        ranking = Place(at - 1, layout, RANKS_LAST)
        before = [Place(i, layout) for i in range(at - 1)]
        after = [Place(i, kept_of(layout, remaining)) for i in range(at, count)]
        return (*before, ranking, *after)


SYSTEMS.add("fastv", FastV())
