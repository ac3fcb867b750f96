"""Ovis2's tower and adapter: AIMv2, a head over visual words, and a table with a row for each.

2 × 2 patches become probabilities of visual words by the head, its norm and a softmax; a token is
the mixture of the table's rows with these weights. The table's last rows, which no mixture has,
are the embeddings of ids around an image and between its tiles: these are text (`markers`).
"""

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from workbench.lvlm.reduce import TokenGrid
from workbench.lvlm.towers import TOWERS, Grid, Serves, Tower, finish, implementation
from workbench.lvlm.towers.squares import Tiles
from workbench.visual.ovis2 import Ovis2 as FrontEnd
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved

KIND = "ovis2_vision"
MODULE = "transformers.models.ovis2.modeling_ovis2"
FUNCTIONS = ("softmax", "st_argmax")
"""How words are chosen; by ``gumbel_argmax`` they are drawn by chance."""


class Features(nn.Module):
    """The tower's last hidden states."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, pixels: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, patches, width]."""
        return self.transformer(pixels)[0]


class Given(nn.Module):
    """Stands for the tower within transformers' class, and returns the features it is given."""

    def forward(self, features: Tensor, **_: Any) -> tuple[Tensor]:
        return (features,)


class Mixtures(nn.Module):
    """transformers' head over visual words, and the table that it mixes."""

    def __init__(self, words: nn.Module, table: nn.Module) -> None:
        super().__init__()
        self.words, self.table = words, table

    def forward(self, features: Tensor) -> Tensor:
        """[N, patches, width] -> [N, tokens, D]."""
        words: Any = self.words
        chosen = words(features).pooler_output
        # As in Ovis2Model.get_image_features: rows of the ids around an image have no weight.
        none = chosen.new_zeros(*chosen.shape[:2], words.num_visual_indicator_tokens)
        return self.table(torch.cat([chosen, none], dim=2))


class Ovis2(Tiles):
    """A tile and the whole image are images of their own to the tower."""

    serves: ClassVar[Serves] = {"ovis2": (KIND,)}
    unlisted = (MODULE, "Ovis2VisionModel")
    front_end = "ovis2"
    without_adapter = (
        "keeps the width of SigLIP's features, but the tower of {tower.front_end} makes words of "
        "its patches, which only its table gives a width"
    )
    merges = True
    mlp_matrices = 3

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        self.read_config()
        function, last = self.config.tokenize_function, self.config.num_visual_indicator_tokens
        if function not in FUNCTIONS:
            raise RequestError(
                f"model {model.name!r}: vision_config.tokenize_function {function!r:.60}: "
                f"{' or '.join(FUNCTIONS)}"
            )
        if not 0 <= last < self.config.vocab_size:
            raise RequestError(
                f"model {model.name!r}: vision_config.num_visual_indicator_tokens {last}: from 0, "
                f"and fewer than its vocab_size {self.config.vocab_size:,}"
            )
        self.depth, self.merge = self.config.num_hidden_layers, self.config.hidden_stride
        self.patches_a_token = self.merge**2
        self.image = Grid(1, self.side, self.side)

    def token_grid(self, grid: Grid) -> TokenGrid:
        return TokenGrid.of(grid.rows // self.merge, grid.columns // self.merge)

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        from transformers.models.ovis2 import modeling_ovis2 as module

        self.config._attn_implementation = implementation(context)
        words = context.create(lambda: module.Ovis2VisionModel(self.config))
        # The one buffer of the tower: not a parameter, so ``create`` left it without values.
        places = torch.arange(self.image.patches, device=context.device)
        words.transformer.embeddings.position_ids = places[None]
        context.weigh_component("tower", words, "vision_tower.", KIND)
        finish(words, context)
        size = self.config.vocab_size, self.hidden
        table = context.create(lambda: module.Ovis2VisualEmbeddingTable(*size))
        context.weigh_component("adapter", table, "visual_embeddings_table.", KIND)
        tower = Features(words.transformer)
        words.transformer = Given()
        return tower, Mixtures(words, table)

    @property
    def eye(self) -> FrontEnd:
        """The front end with its limits of tiles."""
        assert isinstance(self.front, FrontEnd)
        return self.front

    def of_video(
        self, width: int, height: int, num_frames: int, fps: float
    ) -> tuple[tuple[Grid, ...], ...]:
        return Tower.of_video(self, width, height, num_frames, fps)

    def processor(self, frames: bool = False) -> Any:
        from transformers.models.ovis2 import image_processing_pil_ovis2 as module

        side = self.eye.image_size
        return module.Ovis2ImageProcessorPil(
            size={"height": side, "width": side},
            crop_to_patches=self.eye.tiled,
            min_patches=self.eye.min_tiles,
            max_patches=self.eye.max_tiles,
            use_covering_area_grid=self.eye.covering,
        )

    def entry_flops(self, grids: tuple[Grid, ...]) -> int:
        wide = self.config.hidden_size * self.patches_a_token
        words = self.config.vocab_size - self.config.num_visual_indicator_tokens
        return 2 * sum(map(self.tokens, grids)) * wide * words

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        mixtures = 2 * sum(map(self.tokens, grids)) * self.config.vocab_size * self.hidden
        return self.entry_flops(grids) + mixtures


TOWERS.add("ovis2", Ovis2)
