"""Kimi K2.5's tower and projector: images of any size, the mean of four frames of a video.

Every patch of an image, or of up to four frames, sees all others of it. Behind the last layer the
frames are averaged, and 2 × 2 patches side by side become a token.

transformers runs the attention of every image as a call of its own; here those of one size that
follow each other share a call, and a test holds the tower against its forward. Pixels of files are
those of its processors, which need torchvision, without it.
"""

from collections.abc import Iterable, Mapping
from importlib import import_module
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from workbench.lvlm.kernels.modelled import tracing
from workbench.lvlm.reduce import TokenGrid
from workbench.lvlm.towers import MERGED, TOWERS, Grid, Serves, Tower, finish, implementation
from workbench.lvlm.towers.qwen_vl import indices
from workbench.lvlm.towers.resizing import about_zero, pad, resize, tensor_of, tiles_of
from workbench.visual.kimi_k25 import KimiK25 as FrontEnd
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image

    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved

KIND = "kimi_k25_vision"
"""Published files leave the type of the section empty."""
MODULE = "transformers.models.kimi_k25.modeling_kimi_k25"
SIDE = 32
"""Tokens a side of the image that stands for |V|."""
TAPS = 16
"""Learnt positions of which a patch's is made: bicubic."""


class Alike(NamedTuple):
    """Images of one size that follow each other: how many, their frames, rows and columns."""

    number: int
    steps: int
    rows: int
    columns: int

    @property
    def patches(self) -> int:
        """Of one of them."""
        return self.steps * self.rows * self.columns


def alike(grids: Iterable[Grid]) -> list[Alike]:
    """Runs of images of one size."""
    sizes = groupby(grids, key=lambda grid: (grid.steps, grid.rows, grid.columns))
    return [Alike(len([*same]), *size) for size, same in sizes]


class GroupedAttention(nn.Module):
    """transformers' own attention, images of one size in one call."""

    def __init__(self, inner: Any, images: list[Alike], module: Any) -> None:
        """``module`` is transformers' of the model, whose functions are called."""
        super().__init__()
        self.inner, self.images, self.module = inner, images, module

    def forward(
        self, hidden: Tensor, *, position_embeddings: tuple[Tensor, Tensor], **_: object
    ) -> Tensor:
        """[patches, width] -> [patches, width]; tables are [patches, head size]."""
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        inner = self.inner
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            inner.config._attn_implementation, self.module.eager_attention_forward
        )
        q, k, v = (
            project(hidden).unflatten(-1, (inner.num_heads, -1))[None]
            for project in (inner.q_proj, inner.k_proj, inner.v_proj)
        )
        q, k = self.module.apply_rotary_pos_emb_vision(q, k, *position_embeddings)
        lengths = [run.number * run.patches for run in self.images]
        runs = zip(*(x[0].split(lengths) for x in (q, k, v)), strict=True)
        attended = []
        for run, rows in zip(self.images, runs, strict=True):
            out, _scores = attend(
                inner,
                *(x.unflatten(0, (run.number, run.patches)).transpose(1, 2) for x in rows),
                attention_mask=None,
                scaling=inner.scaling,
                dropout=0.0,
                is_causal=False,
            )
            attended.append(out.reshape(run.number * run.patches, -1))
        projected: Tensor = inner.proj(torch.cat(attended))
        return projected


class Blocks(nn.Module):
    """Patch embedding, positions, layers, the last norm, and the mean of frames."""

    def __init__(
        self,
        tower: Any,
        images: list[Alike],
        positions: dict[str, Tensor],
        tables: tuple[Tensor, Tensor],
    ) -> None:
        super().__init__()
        self.tower, self.images = tower, images
        self.positions, self.tables = positions, tables

    def forward(self, pixels: Tensor) -> Tensor:
        """[patches, C, p, p] -> [tokens, patches of a token, width]."""
        embed = self.tower.patch_embed
        hidden = embed.pos_emb(embed.proj(pixels).flatten(1), None, **self.positions)
        for layer in self.tower.layers:
            hidden = layer(hidden, cu_seqlens=None, position_embeddings=self.tables)
        hidden = self.tower.final_layernorm(hidden)
        runs = hidden.split([run.number * run.patches for run in self.images])
        return torch.cat([*map(self._joined, runs, self.images)])

    def _joined(self, rows: Tensor, run: Alike) -> Tensor:
        high, wide = self.tower.merge_kernel_size
        size = run.number, run.steps, run.rows // high, high, run.columns // wide, wide
        squares = rows.unflatten(0, size).permute(0, 2, 4, 1, 3, 5, 6)
        squares = squares.reshape(-1, run.steps, high * wide, rows.shape[-1])
        mean: Tensor = squares.mean(1)
        return mean


class Projector(nn.Module):
    """transformers' projector."""

    def __init__(self, projector: Any) -> None:
        super().__init__()
        self.projector = projector

    def forward(self, features: Tensor) -> Tensor:
        """[tokens, patches of a token, width] -> [tokens, D]."""
        projected: Tensor = self.projector(features)[:, 0]
        return projected


class KimiK25(Tower):
    """A grid of several steps is of frames that share their tokens."""

    serves: ClassVar[Serves] = {"kimi_k25": (KIND, "")}
    unlisted: ClassVar[tuple[str, str] | None] = (MODULE, "Kimi_K25VisionModel")
    front_end = "kimi-k2.5"
    other_names: ClassVar[Mapping[str, str]] = {
        "hidden_size": "vt_hidden_size",
        "intermediate_size": "vt_intermediate_size",
        "num_hidden_layers": "vt_num_hidden_layers",
        "num_attention_heads": "vt_num_attention_heads",
        "pos_emb_height": "init_pos_emb_height",
        "pos_emb_width": "init_pos_emb_width",
        "pos_emb_time": "init_pos_emb_time",
    }
    without_adapter = MERGED
    merges = True

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        whole: Any = model.whole
        assert whole is not None, "chosen by its config"
        eye = self.own_front  # Settings that make no sense are said first.
        assert isinstance(eye, FrontEnd)
        self.whole, self.config, self.hidden = whole, whole.vision_config, model.config.hidden_size
        self.merge = eye.merge
        self.patches_a_token = self.merge**2
        self.image = Grid(1, SIDE * self.merge, SIDE * self.merge)
        self._check(model.name, eye)

    def _check(self, name: str, eye: FrontEnd) -> None:
        config, stated = self.config, self.model.stated.get("vision_config") or {}
        for field, other in self.other_names.items():
            built = getattr(config, field)
            if stated.get(other) not in (None, built):
                raise RequestError(
                    f"model {name!r}: vision_config.{other} {stated[other]!r:.60}: transformers' "
                    f"{type(config).__name__} reads no such field and takes {built} as its {field}"
                )
        if self.whole.projection_hidden_size != config.hidden_size:
            raise RequestError(
                f"model {name!r}: projection_hidden_size {self.whole.projection_hidden_size}: "
                f"{config.hidden_size}, the tower's hidden_size, which its norm reads"
            )
        if config.pos_emb_height != config.pos_emb_width:
            raise RequestError(
                f"model {name!r}: vision_config.pos_emb_width {config.pos_emb_width}: "
                f"{config.pos_emb_height} as pos_emb_height, for positions are those of a square"
            )
        if eye.temporal > config.pos_emb_time:
            raise RequestError(
                f"model {name!r}: temporal_patch_size {eye.temporal}: at most the "
                f"{config.pos_emb_time} of vision_config.pos_emb_time"
            )

    @property
    def eye(self) -> FrontEnd:
        """The front end with its limits."""
        assert isinstance(self.front, FrontEnd)
        return self.front

    def tokens(self, grid: Grid) -> int:
        return grid.rows * grid.columns // self.patches_a_token

    def token_grid(self, grid: Grid) -> TokenGrid:
        return TokenGrid.of(grid.rows // self.merge, grid.columns // self.merge)

    def token_grids(self, grids: Iterable[Grid]) -> tuple[TokenGrid, ...]:
        return tuple(self.token_grid(grid) for grid in grids)

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        module = import_module(MODULE)
        self.config._attn_implementation = implementation(context)
        tower = context.create(lambda: module.Kimi_K25VisionModel(self.config))
        learnt = tower.patch_embed.pos_emb
        learnt.time_position_embeddings = learnt.compute_pos_embed().to(context.device)
        kind = self.config.model_type
        context.weigh_component("tower", tower, "vision_tower.", kind)
        finish(tower, context)
        projector = context.create(lambda: module.Kimi_K25MultimodalProjection(self.whole))
        context.weigh_component("adapter", projector, "mm_projector.", kind)
        every = grids * context.cell.batch
        images = alike(every)
        for layer in tower.layers:
            layer.attn = GroupedAttention(layer.attn, images, module)
        rotary = type(tower.rotary_emb)(self.config).to(context.device)
        start = torch.empty(0, 2, dtype=torch.int64, device=context.device)
        places = torch.cat([start, *_places(images, context.device)])
        cos, sin = (context.keep(table) for table in rotary(places, places))
        positions = self._positions(every, context)
        return Blocks(tower, images, positions, (cos, sin)), Projector(projector)

    def _positions(self, grids: tuple[Grid, ...], context: "Context") -> dict[str, Tensor]:
        """By transformers' words: of which learnt positions a patch's is made, their weights, and
        the place of its frame.
        """
        from transformers.vision_utils import get_vision_interpolation_indices_and_weights

        number = sum(grid.patches for grid in grids)
        frames = [
            step + (grid.steps > 1)
            for grid in grids
            for step in range(grid.steps)
            for _ in range(grid.rows * grid.columns)
        ]
        if tracing(context.device) or not grids:
            taps = torch.empty(number, TAPS, dtype=torch.int64, device=context.device)
            weights = torch.empty(number, TAPS, device=context.device)
        else:
            taps, weights = (
                x.to(context.device)
                for x in get_vision_interpolation_indices_and_weights(
                    torch.tensor([grid[:3] for grid in grids]),
                    self.config.pos_emb_height,
                    mode="bicubic",
                )
            )
        return {
            "interp_indices": context.keep(taps),
            "interp_weights": context.keep(weights),
            "frame_index": context.keep(indices(context, lambda: frames, number)),
        }

    def of_image(self, width: int, height: int) -> tuple[Grid, ...]:
        return (Grid(1, *self.eye.grid(width, height)),)

    def of_video(
        self, width: int, height: int, num_frames: int, fps: float
    ) -> tuple[tuple[Grid, ...], ...]:
        """Up to four frames each, before which their time stands as text."""
        size, most = self.eye.grid(width, height, video=True), self.eye.temporal
        steps = [min(most, num_frames - first) for first in range(0, num_frames, most)]
        return tuple((Grid(count, *size),) for count in steps)

    def preprocess(self, images: "Iterable[Image]", num_frames: int) -> Tensor:
        """The patches of all images, or of all frames, [patches, C, p, p]."""
        return torch.cat([self._patches(tensor_of(image), bool(num_frames)) for image in images])

    def _patches(self, picture: Tensor, video: bool) -> Tensor:
        """uint8 [3, H, W] -> the patches of the picture and of the black around it, about 0."""
        eye, (high, wide) = self.eye, picture.shape[1:]
        across, down = eye.scaled(wide, high, video)
        rows, columns = eye.grid(wide, high, video)
        canvas = pad(
            resize(picture, down, across, "bicubic"),
            rows * eye.patch_size,
            columns * eye.patch_size,
            value=0,
        )
        return tiles_of(about_zero(canvas), eye.patch_size)

    def pixels(self, batch: int, grids: tuple[Grid, ...]) -> tuple[int, ...]:
        side = self.config.patch_size
        return batch * sum(grid.patches for grid in grids), 3, side, side

    def patch_flops(self, grids: tuple[Grid, ...]) -> int:
        pixels = 3 * self.config.patch_size**2
        return 2 * sum(grid.patches for grid in grids) * pixels * self.config.hidden_size

    def tower_flops(self, grids: tuple[Grid, ...]) -> int:
        width, mlp = self.config.hidden_size, self.config.intermediate_size
        patches = sum(grid.patches for grid in grids)
        pairs = sum(grid.patches**2 for grid in grids)
        layer = 2 * patches * (4 * width**2 + 2 * width * mlp) + 4 * pairs * width
        return int(self.patch_flops(grids) + self.config.num_hidden_layers * layer)

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        wide = self.patches_a_token * self.config.hidden_size
        return int(2 * sum(map(self.tokens, grids)) * wide * (wide + self.hidden))


def _places(images: list[Alike], device: torch.device) -> Iterable[Tensor]:
    """Row and column of every patch, int64 [patches, 2] a run."""
    for run in images:
        axes = (torch.arange(length, device=device) for length in (run.rows, run.columns))
        places = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, 1)
        yield places.repeat(run.number * run.steps, 1)


TOWERS.add("kimi_k25", KimiK25)
