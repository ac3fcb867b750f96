"""Granite Vision 4.1's tower and adapter: SigLIP, and a Q-Former for each of eight decoder layers.

Four Q-Formers read the hidden states of a layer of the tower each and begin from its patches,
averaged; four read one layer's and begin from one of every 2 × 2 patches. Each window of patches
is read by fewer queries, and what they have become is laid out as LLaVA-NeXT's tiles are. All of
them are added to visual rows before layers of the decoder that the config names (deepstack); rows
that none enters are zero there.
"""

from collections.abc import Sequence
from copy import deepcopy
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from workbench.lvlm.towers import MERGED, TOWERS, Grid, Serves, implementation
from workbench.lvlm.towers.llava_next import LlavaNext, Newline, Packer
from workbench.lvlm.towers.squares import Rows
from workbench.visual.granite4_vision import Granite4Vision as FrontEnd
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved

CORNERS = 4
"""Q-Formers that begin from one of every 2 × 2 patches."""


class Depths(Rows):
    """The hidden states of several layers, one by one."""

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """[N, 3, H, W] -> [N, rows, width] for each Q-Former."""
        return tuple(self.rows(pixels))


class Projectors(nn.Module):
    """The Q-Formers, under the names that checkpoints give them."""

    def __init__(self, layerwise: nn.ModuleList, spatial: nn.ModuleList) -> None:
        super().__init__()
        self.layerwise_projectors, self.spatial_projectors = layerwise, spatial

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """[squares, patches, width] for each -> [squares, tokens of a tile, D] of each."""
        each = [*self.layerwise_projectors, *self.spatial_projectors]
        return [project(x) for project, x in zip(each, features, strict=True)]


class Layers(Packer):
    """The tokens that enter with the embeddings, and those that are added after each layer.

    ``order`` says which Q-Former's; None stands for rows of zeros.
    """

    def __init__(
        self, projector: nn.Module, newline: Newline, tower: LlavaNext, grids: tuple[Grid, ...]
    ) -> None:
        super().__init__(projector, newline, tower, grids)
        assert isinstance(tower, Granite4Vision), "whose packer this is"
        self.order = tower.order

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:  # type: ignore[override]
        """[squares, patches, width] for each Q-Former -> [tokens, D] each."""
        tokens = [self.packed(x) for x in self.projector(features)]
        return tuple(
            torch.zeros_like(tokens[0]) if number is None else tokens[number]
            for number in self.order
        )


class Granite4Vision(LlavaNext):
    """Rows of the tower are patches of tiles; a tile has fewer tokens."""

    serves: ClassVar[Serves] = {"granite4_vision": ("siglip_vision_model",)}
    front_end = "granite4-vision"
    without_adapter = MERGED
    packer = Layers
    rows_class = Depths

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        targets = self.targets()
        later = sorted(target for target in targets if target)
        self.stacked = tuple(target - 1 for target in later)
        first = targets.index(0) if 0 in targets else None
        self.order: list[int | None] = [first, *map(targets.index, later)]

    def check(self) -> None:
        """Raise RequestError for layers that do not fit the tower and the decoder."""
        layers, pairs = self.model.config.num_hidden_layers, self.whole.deepstack_layer_map
        spatial = self.whole.spatial_target_layers
        right = (
            isinstance(pairs, (list, tuple))
            and all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs)
            and isinstance(spatial, (list, tuple))
            and len(spatial) == CORNERS
        )
        targets = self.targets() if right else []
        fits = all(isinstance(t, int) and 0 <= t < layers for t in targets)
        if not right or not fits or len(set(targets)) != len(targets):
            raise RequestError(
                f"model {self.name!r}: deepstack_layer_map {pairs!r:.60}, spatial_target_layers "
                f"{spatial!r:.60}: pairs of a tower's and a decoder's layer, and {CORNERS} more "
                f"of the decoder's, all different, of its {layers}"
            )
        heads, width = self.qformer.num_attention_heads, self.qformer.hidden_size
        if heads < 1 or width % heads:
            raise RequestError(
                f"model {self.name!r}: vision_config.hidden_size {width}: a Q-Former of that "
                f"width would have {heads} heads"
            )

    @property
    def qformer(self) -> Any:
        """transformers' configuration of each Q-Former."""
        return self.whole.qformer_config

    def targets(self) -> list[int]:
        """The decoder's layers before which each Q-Former's tokens are added."""
        whole = self.whole
        return [layer for _, layer in whole.deepstack_layer_map] + list(
            whole.spatial_target_layers
        )

    def feature_layers(self) -> Sequence[Any]:
        pairs = self.whole.deepstack_layer_map
        return [depth for depth, _ in pairs] + [self.whole.spatial_vision_layer] * CORNERS

    @property
    def token_side(self) -> int:
        return self.eye.side

    @property
    def eye(self) -> FrontEnd:
        assert isinstance(self.front, FrontEnd)
        return self.front

    @property
    def flags(self) -> list[str]:
        return [*super().flags, "adapter: transformers' dropout of its Q-Formers is not run"]

    def adapter(self, context: "Context") -> nn.Module:
        """transformers' projectors, without dropout."""
        from transformers.models.granite4_vision import modeling_granite4_vision as module

        own = deepcopy(self.qformer)
        own.hidden_dropout_prob = own.attention_probs_dropout_prob = 0.0
        own._attn_implementation = implementation(context)
        config: Any = SimpleNamespace(
            vision_config=self.config,
            text_config=SimpleNamespace(hidden_size=self.hidden),
            qformer_config=own,
            projector_dropout=0.0,
            downsample_rate=self.whole.downsample_rate,
        )

        def some(corners: Sequence[int | None]) -> nn.ModuleList:
            kind = module.Granite4VisionWindowQFormerDownsampler
            return nn.ModuleList(kind(config, spatial_offset=corner) for corner in corners)

        layerwise = context.create(lambda: some([None] * len(self.whole.deepstack_layer_map)))
        spatial = context.create(lambda: some(range(CORNERS)))
        for part, name in ((layerwise, "layerwise_projectors."), (spatial, "spatial_projectors.")):
            context.weigh_component("adapter", part, name, self.config.model_type)
        return Projectors(layerwise, spatial)

    def entry_flops(self, grids: tuple[Grid, ...]) -> int:
        return 0  # A norm comes first.

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        width, config = self.config.hidden_size, self.qformer
        queries, keys = self.eye.query**2, self.eye.window**2
        windows = self._squares(grids) * self.side**2 // keys
        own = 8 * queries * width**2 + 4 * queries**2 * width
        across = 4 * (queries + keys) * width**2 + 4 * queries * keys * width
        mlp = 4 * queries * width * config.intermediate_size
        layers = range(config.num_hidden_layers)
        reading = sum(i % config.cross_attention_frequency == 0 for i in layers)
        window = len(layers) * (own + mlp) + reading * across + 2 * queries * width * self.hidden
        return len(self.targets()) * windows * window


TOWERS.add("granite4_vision", Granite4Vision)
