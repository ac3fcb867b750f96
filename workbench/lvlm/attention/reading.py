"""Shared by systems in which some layers read the images and the others run on text alone."""

from typing import TYPE_CHECKING

from torch import Tensor

from workbench.lvlm.attention import System
from workbench.lvlm.attention.costs import Cached, Pairs, token_flops
from workbench.lvlm.attention.decomposed import DecomposedLayer
from workbench.lvlm.attention.pairs import text_pairs
from workbench.lvlm.attention.row_inputs import RowInputs
from workbench.lvlm.place import Place
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from workbench.lvlm.models import Resolved
    from workbench.lvlm.parts import LayerParts


class TextLayer(DecomposedLayer):
    """A layer of the model's own: text attends to text, at its places in the whole sequence."""

    def streams(self, visual: Tensor, text: Tensor, more: RowInputs) -> tuple[Tensor, Tensor]:
        return visual, self.text_stream(text, None, None, more) if text.shape[1] else text


class TextCosts(System):
    """Costs of a ``TextLayer``; a subclass adds those of the layers that read the images."""

    options: tuple[str, ...] = ()
    shared_states = 1
    stacks = False

    def chosen(self, model: "Resolved", cell: Cell) -> range:
        """The layers that its settings ``first`` and ``every`` name; raises RequestError."""
        first, every = int(self.settings["first"]), int(self.settings["every"])
        count = model.config.num_hidden_layers
        if first >= count:
            raise RequestError(f"first={first}: {cell.model} has {count} layers, 0 to {count - 1}")
        return range(first, count, every)

    def pairs(self, place: Place, window: int | None) -> Pairs:
        return Pairs(place.layout.num_text**2, text_pairs(place.layout, window))

    def linear_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        return cell.batch * place.layout.num_text * token_flops(parts)

    def cached(self, place: Place, window: int | None) -> Cached:
        return Cached(0, place.layout.num_last(False, window))

    def hidden(self, place: Place, window: int | None) -> Cached:
        return Cached(0, place.layout.num_hidden(False, window))
