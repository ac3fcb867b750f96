"""Phi-4-multimodal's tower and projector: SigLIP over crops and the whole image, pooled 2 × 2.

Crops of an image are put together, what is padding alone is cut off, a learnt separator ends each
row and stands before the whole image, which comes last. The last layer, the last norm and the
pooling head feed no token: they are held, but neither run nor trained. So is the speech encoder,
for no sound is shown. Where images of one sample have different numbers of crops, those with
fewer get empty ones, which run as transformers runs them. Every patch sees its whole crop;
transformers' tower does under ``eager``, but under ``sdpa`` is causal where no crop has padding.
Pixels of files are those of its processor, which needs torchvision, without it.
"""

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.lvlm.reduce import TokenGrid
from workbench.lvlm.towers import ANOTHER, TOWERS, Grid, Serves, finish, implementation
from workbench.lvlm.towers.resizing import about_zero, pad, resize, tensor_of, tiles_of
from workbench.lvlm.towers.squares import Squares, depth_of
from workbench.visual.phi4_multimodal import Phi4Multimodal as FrontEnd

if TYPE_CHECKING:
    from PIL.Image import Image

    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved

KIND = "phi4_multimodal_vision"
MODULE = "transformers.models.phi4_multimodal.modeling_phi4_multimodal"
PREFIX = "embed_tokens_extend."


class Crops(nn.Module):
    """The hidden states of one layer; ``audio`` is held beside them.

    ``seen`` [N, side, side] says which patches are no padding; ``mask`` is the same for scores,
    None where all are.
    """

    def __init__(
        self, tower: Any, audio: nn.Module, depth: int, seen: Tensor, mask: Tensor | None
    ) -> None:
        super().__init__()
        self.tower, self.audio, self.seen, self.mask = tower, audio, seen, mask
        self.run = nn.ModuleList([*tower.encoder.layers][:depth])
        for module in (tower, audio):
            module.requires_grad_(False)
        for module in (tower.embeddings, self.run):
            module.requires_grad_(True)

    def forward(self, pixels: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, patches, width]."""
        hidden = self.tower.embeddings(pixels, patch_attention_mask=self.seen)
        for layer in self.run:
            # Without a mask the module's own flag, which says that it is causal, would decide.
            hidden = layer(hidden, self.mask, is_causal=False)
        return hidden


class Packer(nn.Module):
    """Features of all crops to the tokens of all images, by transformers' own modules."""

    def __init__(
        self, embedding: Any, tower: "Phi4Multimodal", grids: tuple[Grid, ...], most: int
    ) -> None:
        super().__init__()
        self.img_projection_up = embedding.img_projection_up
        self.img_projection_down = embedding.img_projection_down
        self.global_img_feature_extensor = embedding.global_img_feature_extensor
        self.sub_img_feature_extensor = embedding.sub_img_feature_extensor
        self.pool = embedding.image_token_compression
        self.pad = getattr(embedding, "img_processor_padding", nn.Identity())
        self.grids, self.most, self.patches = grids, most, tower.side
        self.side, self.kept = tower.eye.tokens_a_side, tower.eye.kept

    def forward(self, features: Tensor) -> Tensor:
        """[N, patches, width] -> [tokens, D]."""
        square = features.unflatten(1, (self.patches, self.patches)).permute(0, 3, 1, 2)
        pooled = self.pool(self.pad(square)).permute(0, 2, 3, 1)
        images = zip(pooled.split(self.most), self.grids, strict=True)
        return torch.cat([self.project(self.pack(views, grid)) for views, grid in images])

    def pack(self, views: Tensor, grid: Grid) -> Tensor:
        """One image, [most, side, side, width] -> [n, width]."""
        assert grid.tiles is not None, "crops"
        rows, columns = grid.tiles
        crops = views[1 : 1 + rows * columns].unflatten(0, (rows, columns)).transpose(1, 2)
        picture = crops.reshape(rows * self.side, columns * self.side, -1)
        picture = picture[: self.kept(grid.rows), : self.kept(grid.columns)]
        before = self.global_img_feature_extensor[0]
        return torch.cat((self.ended(picture), before, self.ended(views[0])))

    def ended(self, picture: Tensor) -> Tensor:
        """[rows, columns, width] -> [rows · (columns + 1), width]: a separator after each row."""
        ends = self.sub_img_feature_extensor[0].expand(picture.shape[0], -1, -1)
        return torch.cat((picture, ends), 1).flatten(0, 1)

    def project(self, rows: Tensor) -> Tensor:
        """[n, width] -> [n, D]."""
        up = nn.functional.gelu(self.img_projection_up(rows))
        projected: Tensor = self.img_projection_down(up)
        return projected


class Phi4Multimodal(Squares):
    """A grid has the patches of an image without padding, and the crops that they lie in."""

    serves: ClassVar[Serves] = {"phi4_multimodal": (KIND,)}
    unlisted = (MODULE, "Phi4MultimodalVisionModel")
    front_end = "phi-4-multimodal"
    without_adapter = ANOTHER
    merges = True

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        self.read_config()
        self.family = model.family
        layer, layers = self.config.feature_layer, self.config.num_hidden_layers
        self.depth = depth_of(model.name, self.front_end, layer, layers)

    @property
    def flags(self) -> list[str]:
        unused = self.config.num_hidden_layers - self.depth
        idle = (
            f"the last {unused} of its layers and the pooling head"
            if unused
            else "the pooling head"
        )
        return [
            f"tower: {idle} feed no token and are held, not run; transformers runs them",
            "tower: the speech encoder is held and counted with it, not run: no sound is shown",
        ]

    @property
    def eye(self) -> FrontEnd:
        """The front end with its sizes."""
        assert isinstance(self.front, FrontEnd)
        return self.front

    @cached_property
    def image(self) -> Grid:  # type: ignore[override]
        """One crop, all of it image."""
        return self.of_image(self.eye.image_size, self.eye.image_size)[0]

    def of_image(self, width: int, height: int) -> tuple[Grid, ...]:
        columns, rows = self.eye.crops(width, height)
        return (Grid(1, *self.eye.patches(width, height), None, (rows, columns)),)

    def tokens(self, grid: Grid) -> int:
        rows, columns = self.eye.kept(grid.rows), self.eye.kept(grid.columns)
        side = self.eye.tokens_a_side
        return rows * (columns + 1) + 1 + side * (side + 1)

    def token_grids(self, grids: Iterable[Grid]) -> tuple[TokenGrid, ...]:
        # With its separators and the whole image an image has no rows.
        return tuple(TokenGrid(self.tokens(grid)) for grid in grids)

    def squares(self, grid: Grid) -> int:
        assert grid.tiles is not None, "crops"
        return 1 + grid.tiles[0] * grid.tiles[1]

    def _squares(self, grids: Iterable[Grid]) -> int:
        counts = [self.squares(grid) for grid in grids]
        return len(counts) * max(counts, default=0)

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        self.config._attn_implementation = implementation(context)
        both = self.family.from_transformers("Phi4MultimodalFeatureEmbedding")
        features = context.create(lambda: both(self.whole))
        for (
            module
        ) in features.modules():  # Not parameters, so ``create`` left them without values.
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, torch.zeros_like(buffer, device=context.device))
        images, audio = features.image_embed, features.audio_embed
        prefix = f"{PREFIX}image_embed."
        context.weigh_component("tower", images.img_processor, f"{prefix}img_processor.", KIND)
        context.weigh_component("speech encoder", audio, f"{PREFIX}audio_embed.", KIND)
        finish(images.img_processor, context)
        every = grids * context.cell.batch
        most = max(map(self.squares, grids), default=0)
        mask = torch.cat([torch.ones(0, self.side, self.side).bool(), *self._masks(every, most)])
        mask = context.keep(mask.to(context.device))
        crops = Crops(
            images.img_processor, audio, self.depth, mask, self._mask(context, every, mask)
        )
        packer = Packer(images, self, every, most)
        context.weigh_component("adapter", packer, prefix, KIND)
        return crops, packer

    def _masks(self, grids: tuple[Grid, ...], most: int) -> Iterable[Tensor]:
        """Of each image, the patches of the whole and of its crops that are no padding.

        bool [most, side, side], as its processor says it; empty crops are seen whole.
        """
        for grid in grids:
            assert grid.tiles is not None, "crops"
            (rows, columns), side = grid.tiles, self.side
            inside = torch.zeros(rows * side, columns * side, dtype=torch.bool)
            inside[: grid.rows, : grid.columns] = True
            crops = inside.unflatten(0, (rows, side)).unflatten(2, (columns, side))
            mask = torch.ones(most, side, side, dtype=torch.bool)
            mask[1 : 1 + rows * columns] = crops.transpose(1, 2).flatten(0, 1)
            yield mask

    def _mask(self, context: "Context", grids: tuple[Grid, ...], seen: Tensor) -> Tensor | None:
        """What scores get, [N, 1, 1, patches], in the form that transformers' attention takes."""
        side = self.side
        if all(grid[1:3] == tuple(side * n for n in grid.tiles or ()) for grid in grids):
            return None
        if self.config._attn_implementation != "eager":
            return context.keep(seen.flatten(1)[:, None, None])
        lowest = torch.finfo(context.dtype).min
        mask = torch.zeros(seen.shape, dtype=context.dtype, device=context.device)
        return context.keep(mask.masked_fill_(~seen, lowest).flatten(1)[:, None, None])

    def preprocess(self, images: "Iterable[Image]", num_frames: int) -> Tensor:
        views = [self._crops(tensor_of(image)) for image in images]
        most = max(map(len, views))
        empty = [crops.new_zeros(most - len(crops), *crops.shape[1:]) for crops in views]
        return torch.cat([both for pair in zip(views, empty, strict=True) for both in pair])

    def _crops(self, picture: Tensor) -> Tensor:
        """uint8 [3, H, W] -> the whole of it and its crops, about 0, on white."""
        height, width = picture.shape[1:]
        side, (columns, rows) = self.eye.image_size, self.eye.crops(width, height)
        across, down = self.eye.scaled(width, height)
        canvas = pad(resize(picture, down, across), rows * side, columns * side, value=255)
        canvas = about_zero(canvas)
        whole = canvas
        if whole.shape[1:] != (side, side):
            size = (side, side)
            whole = F.interpolate(canvas[None], size, mode="bicubic", align_corners=False)[0]
        return torch.cat((whole[None], tiles_of(canvas, side)))

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        tokens = sum(map(self.tokens, grids))
        return 2 * tokens * self.hidden * (self.config.hidden_size + self.hidden)


TOWERS.add("phi4_multimodal", Phi4Multimodal)
