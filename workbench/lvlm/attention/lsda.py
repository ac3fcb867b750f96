"""CrossFormer's long-short distance attention (arXiv 2108.00154) in V2V: groups in turn.

Even layers group runs of ``width`` consecutive tokens of a visual segment of n tokens, odd layers
tokens that stand ⌈n/width⌉ apart; each row sees its group. O(V·width); no parameters. Gives up:
V2V beyond a group, which further layers bring together. The original's cross-scale embedding and
position bias belong to a vision backbone and are left out.
"""

from typing import TYPE_CHECKING

from torch import Tensor, cat

from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.attention.grouped import Grouped, GroupedLayer
from workbench.lvlm.context import Context
from workbench.lvlm.place import Place

if TYPE_CHECKING:
    from workbench.lvlm.parts import LayerParts

SHORT, LONG = "short", "long"


class LongShortLayer(GroupedLayer):
    """Groups become the batch of one attention call, those of another size of a second."""

    def __init__(
        self, system: "LongShort", parts: "LayerParts", context: Context, place: Place
    ) -> None:
        super().__init__(system, parts, context, place)
        self.width, self.long = system.width, place.role == LONG

    def segment(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self._strided(q, k, v) if self.long else self._runs(q, k, v)

    def _runs(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        whole = q.shape[2] // self.width * self.width
        outputs = []
        if whole:
            grouped = (_batched(x[:, :, :whole].unflatten(2, (-1, self.width))) for x in (q, k, v))
            out = self.attend(*grouped)
            outputs.append(out.unflatten(0, (q.shape[0], -1)).transpose(1, 2).flatten(2, 3))
        if whole < q.shape[2]:
            outputs.append(self.attend(*(x[:, :, whole:] for x in (q, k, v))))
        return outputs[0] if len(outputs) == 1 else cat(outputs, 2)

    def _strided(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Token j is number j // stride of group j mod stride; the first groups have one more."""
        tokens = q.shape[2]
        stride = -(-tokens // self.width)
        rounds, more = divmod(tokens, stride)
        longer, shorter = [], []
        for x in (q, k, v):
            table = x[:, :, : rounds * stride].unflatten(2, (rounds, stride)).transpose(2, 3)
            shorter.append(_batched(table[:, :, more:]))
            if more:
                last = x[:, :, rounds * stride :].unsqueeze(3)
                longer.append(_batched(cat((table[:, :, :more], last), 3)))
        batch = q.shape[0]
        out = self.attend(*shorter).unflatten(0, (batch, -1)).transpose(1, 2)
        if not more:
            return out.transpose(2, 3).flatten(2, 3)
        first = self.attend(*longer).unflatten(0, (batch, -1)).transpose(1, 2)
        both = cat((first[:, :, :, :rounds], out), 2).transpose(2, 3).flatten(2, 3)
        return cat((both, first[:, :, :, rounds]), 2)


def _batched(x: Tensor) -> Tensor:
    """[B, heads, groups, w, K] -> [B·groups, heads, w, K]."""
    return x.transpose(1, 2).flatten(0, 1)


class LongShort(Grouped):
    name = "lsda"
    layer_class = LongShortLayer

    @property
    def width(self) -> int:
        return int(self.settings["width"])

    def role(self, index: int) -> str:
        return LONG if index % 2 else SHORT

    def visual_pairs(self, tokens: int, place: Place) -> int:
        if not tokens:
            return 0
        if place.role == LONG:
            stride = -(-tokens // self.width)
            rounds, more = divmod(tokens, stride)
            return more * (rounds + 1) ** 2 + (stride - more) * rounds**2
        groups, rest = divmod(tokens, self.width)
        return groups * self.width**2 + rest**2


SYSTEMS.add("lsda", LongShort())
