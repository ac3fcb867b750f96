"""Scope ``lvlm``: the paper's model. SigLIP so400m/14 at 384 pixels, an MLP adapter, the decoder.

The tower is transformers' own; its pooling head belongs to the checkpoint and feeds no token, so
it is held and not run. What the paper leaves open, and what holds here: the adapter norms the
tower's features before its two layers (GELU between), and visual positions are one vector a visual
token.
"""

from typing import Any

import torch
from torch import Tensor, nn

from workbench.errors import RequestError
from workbench.lvlm.attention import System
from workbench.lvlm.build import SCOPES, VISUAL_UNITS, Workload, random_tensor
from workbench.lvlm.context import Context
from workbench.lvlm.marks import part
from workbench.lvlm.scopes.decoder import Decoder, decoder_workload
from workbench.lvlm.weights import randomise
from workbench.spec import Cell

SIGLIP = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
}
"""vision_config of config.json of google/siglip-so400m-patch14-384."""
TOKENS = (SIGLIP["image_size"] // SIGLIP["patch_size"]) ** 2
"""Visual tokens of one image: 729."""


class Adapter(nn.Module):
    """RMSNorm, then two layers from the tower's width to the decoder's."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.up = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.down = nn.Linear(hidden, hidden)

    def forward(self, features: Tensor) -> Tensor:
        """[B, V, W] -> [B, V, D]."""
        return self.down(self.act(self.up(self.norm(features))))


class LVLM(nn.Module):
    """Pixels and text ids to logits or loss. HiMix has no adapter: it keeps the tower's width."""

    def __init__(self, cell: Cell, system: System, context: Context) -> None:
        super().__init__()
        self.cell, hidden = cell, context.model.config.hidden_size
        self.decoder = Decoder(cell, system, context)
        self.layers = self.decoder.layers
        self.tower = make_tower(context)
        width = SIGLIP["hidden_size"]
        self.adapter: nn.Module | None = None
        if not system.text_only:
            self.adapter = context.create(lambda: Adapter(width, hidden))
            randomise(self.adapter)
        self.positions: nn.Parameter | None = None
        if cell.visual_positions:
            shape = (cell.num_visual, width if system.text_only else hidden)
            self.positions = nn.Parameter(0.02 * context.random(shape))

    def forward(self, pixels: Tensor | None, ids: Tensor, targets: Tensor | None = None) -> Tensor:
        """Pixels [B·images, 3, 384, 384], None in a decode step -> as the decoder's forward."""
        return self.decoder(None if pixels is None else self.embed(pixels), ids, targets)

    def embed(self, pixels: Tensor) -> Tensor:
        """Visual embeddings [B, V, W] in the order of the images."""
        with part("tower"):
            features = self.tower(pixels)[0].reshape(self.cell.batch, self.cell.num_visual, -1)
        with part("adapter"):
            visual = features if self.adapter is None else self.adapter(features)
            return visual if self.positions is None else visual + self.positions


def make_tower(context: Context) -> Any:
    """SigLIP's vision tower with random weights, on the context's device and in its dtype."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(**SIGLIP)
    config._attn_implementation = "eager" if context.kernel.hf == "eager" else "sdpa"
    tower = context.create(lambda: SiglipVisionModel(config))
    tower.use_head = False
    # The one buffer of the tower: not a parameter, so ``create`` left it without values.
    tower.embeddings.position_ids = torch.arange(TOKENS, device=context.device)[None]
    randomise(tower)
    if context.cell.checkpoint:
        # Releases of transformers differ in the name.
        old = "gradient_checkpointing_enable"
        enable = getattr(tower, "activation_checkpointing_enable", None) or getattr(tower, old)
        enable({"use_reentrant": False, "preserve_rng_state": False})
    return tower.train(context.cell.pass_ == "train")


def patch_flops(cell: Cell) -> int:
    """Matmul FLOPs of the patch embedding, whose input, the pixels, needs no gradient."""
    width, side = SIGLIP["hidden_size"], SIGLIP["patch_size"]
    return 2 * cell.batch * cell.num_visual * width * 3 * side**2


def tower_flops(cell: Cell) -> int:
    """Closed form of the tower's forward: each token sees the 729 of its image."""
    width, mlp = SIGLIP["hidden_size"], SIGLIP["intermediate_size"]
    token = 2 * (4 * width**2 + 2 * width * mlp) + 4 * TOKENS * width
    return patch_flops(cell) + cell.batch * cell.num_visual * SIGLIP["num_hidden_layers"] * token


def adapter_flops(cell: Cell, hidden: int) -> int:
    """Closed form of the adapter's forward."""
    return 2 * cell.batch * cell.num_visual * hidden * (SIGLIP["hidden_size"] + hidden)


def check_images(cell: Cell) -> None:
    """Raise RequestError where |V| is no whole number of images."""
    if cell.num_visual % TOKENS:
        below = cell.num_visual // TOKENS * TOKENS
        raise RequestError(
            f"num_visual {cell.num_visual}: scope lvlm makes {TOKENS} tokens an image; the "
            f"nearest are {below} and {below + TOKENS}"
        )


def _lvlm_scope(cell: Cell, system: System, context: Context) -> Workload:
    check_images(cell)
    model, train = LVLM(cell, system, context), cell.pass_ == "train"
    workload = decoder_workload(cell, system, context, model.decoder)
    workload.module = model
    hidden = context.model.config.hidden_size
    workload.modules = {"tower": model.tower, "decoder": model.decoder}
    if model.adapter is not None:
        workload.modules["adapter"] = model.adapter
    if cell.pass_ == "decode" or cell.num_visual == 0:
        return workload
    side, images = SIGLIP["image_size"], cell.batch * cell.num_visual // TOKENS
    pixels = random_tensor((images, 3, side, side), context)
    _, ids, *targets = workload.inputs
    workload.inputs = [pixels, ids, *targets]
    workload.forward = lambda: (model(pixels, ids, *(targets if train else [])),)
    # The first matmul whose input needs no gradient: the patches', or the adapter's.
    workload.leaf_flops = patch_flops(cell)
    if "tower" in cell.frozen_parts:
        workload.leaf_flops = 2 * cell.batch * cell.num_visual * hidden * SIGLIP["hidden_size"]
    workload.outside_flops = {"tower": tower_flops(cell)}
    if model.adapter is not None:
        workload.outside_flops["adapter"] = adapter_flops(cell, hidden)
    return workload


SCOPES.add("lvlm", _lvlm_scope)
VISUAL_UNITS["lvlm"] = TOKENS
