"""PyramidDrop (arXiv 2410.17247): visual tokens leave after each stage of the decoder.

S-Attn in ``stages`` runs of ⌊L/stages⌋ layers, the last one longer where they do not divide;
stage j, from 0, has ⌊V·keep^j⌋ visual tokens. The first layer of a stage ranks its input by its
own norm, q, k, RoPE and softmax of the last row, mean over heads, and gathers it before it
attends. All visual tokens compete, whatever their segment; order and positions are kept. O(V²),
with a smaller factor from stage to stage; no parameters. Gives up: the tokens that leave; the
exponent stays. The release ranks in training by the rows before each answer and numbers what
stays anew; here it is always the last row, and positions are kept, as FastV does.
"""

from math import floor
from typing import TYPE_CHECKING

from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.attention.pruning import RANKS_FIRST, Pruning, kept_of
from workbench.lvlm.layout import Layout
from workbench.lvlm.place import Place
from workbench.vocabulary.cell import Cell

if TYPE_CHECKING:
    from workbench.lvlm.models import Resolved


class PyramidDrop(Pruning):
    name = "pyramid_drop"

    def places(self, model: "Resolved", cell: Cell, layout: Layout) -> tuple[Place, ...]:
        count, stages = model.config.num_hidden_layers, int(self.settings["stages"])
        self.require(f"stages={stages}", model, stages <= count)
        places: list[Place] = []
        for stage in range(stages):
            first = stage * (count // stages)
            end = count if stage == stages - 1 else first + count // stages
            remaining, role = floor(layout.num_visual * self.share("keep") ** stage), ""
            shorter = places[-1].layout if places else layout
            if remaining < shorter.num_visual:  # Else nothing leaves, so nothing is ranked.
                shorter, role = kept_of(shorter, remaining), RANKS_FIRST
            places += [Place(i, shorter, role if i == first else "") for i in range(first, end)]
        return tuple(places)


SYSTEMS.add("pyramid_drop", PyramidDrop())
