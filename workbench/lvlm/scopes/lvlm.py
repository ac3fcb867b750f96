"""Scope ``lvlm``: vision tower, adapter and decoder, from pixels and text ids to logits or loss.

Tower and adapter are what the model's config says; a text model takes the paper's: SigLIP
so400m/14 at 384 pixels and an MLP adapter. Learnable visual positions are one vector a visual
token, which the paper leaves open.
"""

from torch import Tensor, nn

from workbench.errors import RequestError
from workbench.lvlm.attention import System
from workbench.lvlm.build import SCOPES, VISUAL_UNITS, Workload, random_tensor
from workbench.lvlm.context import Context
from workbench.lvlm.kernels.modelled import tracing
from workbench.lvlm.marks import part
from workbench.lvlm.models import resolve
from workbench.lvlm.pictures import look
from workbench.lvlm.pictures import pixels as read_pixels
from workbench.lvlm.scopes.decoder import Decoder, decoder_workload
from workbench.lvlm.towers import Grid, Tower, tower_of
from workbench.spec import Cell


class LVLM(nn.Module):
    """Pixels and text ids to logits or loss. HiMix has no adapter: it keeps the tower's width."""

    def __init__(
        self, cell: Cell, system: System, context: Context, tower: Tower, grids: tuple[Grid, ...]
    ) -> None:
        super().__init__()
        self.cell = cell
        self.decoder = Decoder(cell, system, context)
        self.layers = self.decoder.layers
        self.tower, self.adapter = tower.build(context, grids, system.adapter)
        self.positions: nn.Parameter | None = None
        if cell.visual_positions:
            shape = (cell.num_visual, system.visual_width(self.decoder.parts[0]))
            self.positions = nn.Parameter(0.02 * context.random(shape))

    def forward(self, pixels: Tensor | None, ids: Tensor, targets: Tensor | None = None) -> Tensor:
        """Pixels as the tower takes them, None in a decode step -> as the decoder's forward."""
        return self.decoder(None if pixels is None else self.embed(pixels), ids, targets)

    def embed(self, pixels: Tensor) -> Tensor:
        """Visual embeddings [B, V, W] in the order of the images."""
        with part("tower"):
            visual = self.tower(pixels)
        with part("adapter"):
            if self.adapter is not None:
                visual = self.adapter(visual)
            visual = visual.reshape(self.cell.batch, self.cell.num_visual, -1)
            return visual if self.positions is None else visual + self.positions


def _lvlm_scope(cell: Cell, system: System, context: Context) -> Workload:
    limits = None if context.pictures is None else context.pictures.limits
    tower = tower_of(context.model, cell.tower, limits)
    scene = None if context.pictures is None else look(tower, context.pictures)
    grids = tower.grids(cell.num_visual) if scene is None else scene.grids
    if sum(map(tower.tokens, grids)) != cell.num_visual:
        raise RequestError(
            f"num_visual {cell.num_visual}: the files make {sum(map(tower.tokens, grids))} tokens"
        )
    context.positions = tower.positions(context.layout, grids)
    model, train = LVLM(cell, system, context, tower, grids), cell.pass_ == "train"
    workload = decoder_workload(cell, system, context, model.decoder)
    workload.module = model
    workload.modules = {"tower": model.tower, "decoder": model.decoder}
    if model.adapter is not None:
        workload.modules["adapter"] = model.adapter
    if cell.pass_ == "decode" or cell.num_visual == 0:
        return workload
    pixels = random_tensor(tower.pixels(cell.batch, grids), context)
    if scene is not None and context.pictures is not None and not tracing(context.device):
        read = read_pixels(tower, context.pictures, scene)
        pixels.view(cell.batch, *read.shape).copy_(read)
    _, ids, *targets = workload.inputs
    workload.inputs = [pixels, ids, *targets]
    workload.forward = lambda: (model(pixels, ids, *(targets if train else [])),)
    workload.outside_flops = {"tower": cell.batch * tower.tower_flops(grids)}
    if system.adapter:
        workload.outside_flops["adapter"] = cell.batch * tower.adapter_flops(grids)
    workload.leaf_flops = cell.batch * tower.patch_flops(grids)
    if "tower" in cell.frozen_parts:
        whole = "adapter" in cell.frozen_parts
        entry = cell.batch * tower.entry_flops(grids) if system.adapter else 0
        workload.leaf_flops = workload.outside_flops.get("adapter", 0) if whole else entry
    return workload


SCOPES.add("lvlm", _lvlm_scope)
VISUAL_UNITS["lvlm"] = lambda cell: tower_of(resolve(cell.model), cell.tower).tokens_each
