"""Gemma 3n's own tower: MobileNet-v5, convolutions and attention of many queries to one key head.

It is one of the package timm, within transformers' wrapper. Whatever an image's size, it is
stretched to one square; features of two resolutions are brought together and averaged to 16 × 16
tokens. The embeddings of ids that stand beside the projector (end of an image and the like), and
their norm, feed no token of an image: they are held, but neither run nor trained. An audio tower
is left out, which a flag says. Without timm nothing of scope `lvlm` is built, tokens are counted.
"""

from collections.abc import Iterable
from copy import deepcopy
from math import isqrt
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from torch import Tensor, nn

from workbench.lvlm.packages import require
from workbench.lvlm.towers import ANOTHER, TOWERS, Grid, Serves, Tower, finish, implementation
from workbench.visual.gemma_3n import Gemma3n as FrontEnd
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image

    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved

KIND = "gemma3n_vision"


class Features(nn.Module):
    """The tower's features, a row a token, at the scale that the projector takes."""

    def __init__(self, tower: Any, scale: float) -> None:
        super().__init__()
        self.tower, self.scale = tower, scale

    def forward(self, pixels: Tensor) -> Tensor:
        """[N, 3, edge, edge] -> [N, tokens, width]."""
        square = self.tower(pixel_values=pixels, do_pooling=False, return_dict=True)
        features: Tensor = square.last_hidden_state.flatten(2).permute(0, 2, 1)
        features *= self.scale  # In place, as transformers does.
        return features


class Embedder(nn.Module):
    """transformers' projector of features, without the ids that it would embed as well."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        for unused in (inner.embedding, inner.hard_embedding_norm):
            unused.requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor:
        """[N, tokens, width] -> [N, tokens, D]."""
        embedded: Tensor = self.inner(inputs_embeds=features)
        return embedded


class Work(NamedTuple):
    """Matmul FLOPs of one image."""

    stem: int
    """Of the first convolution, which reads the pixels."""
    all: int


class Gemma3n(Tower):
    """A square of pixels is a square of tokens."""

    serves: ClassVar[Serves] = {"gemma3n": (KIND,)}
    front_end = "gemma-3n"
    requires = "timm"
    without_adapter = ANOTHER

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        whole: Any = model.whole
        assert whole is not None, "chosen by its config"
        eye = self.own_front
        assert isinstance(eye, FrontEnd)
        self.name, self.whole, self.config = model.name, whole, whole.vision_config
        self.family, self.text, self.edge = model.family, model.config, eye.image_size
        self.num_tokens = eye.tokens_an_image
        side = isqrt(self.num_tokens)
        if side**2 != self.num_tokens:
            raise RequestError(
                f"model {self.name!r}: vision_soft_tokens_per_image {self.num_tokens}: its tower "
                "makes a square of features"
            )
        self.image = Grid(1, side, side)

    @property
    def flags(self) -> list[str]:
        lines = [
            f"tower: embeddings of {self.config.vocab_size} ids beside the projector, and their "
            "norm, are held, not run; transformers runs them on every id of text",
            "tower: its attention has one head of keys for all of queries, for which torch has no "
            "fused kernel: under sdpa too it holds the scores",
            "tower: workspaces and copies of a convolution's weights and pixels, which cuDNN and "
            "oneDNN make while it runs, are in no prediction",
        ]
        if self.whole.audio_config is not None:
            lines.append("tower: the audio tower beside it is left out, its parameters too")
        return lines

    @property
    def head_size(self) -> int:
        """None: ``view`` shows no keys, which differ in width from layer to layer."""
        return 0

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        require(self.name, "its tower is one of the package", self.requires)
        from transformers.models.timm_wrapper.modeling_timm_wrapper import TimmWrapperModel

        config = deepcopy(self.config)  # timm takes away from lists that it is given.
        tower = context.create(lambda: TimmWrapperModel(config))
        self._check(tower.timm_model)
        for module in tower.modules():
            if hasattr(module, "fused_attn"):  # timm asks no configuration.
                module.fused_attn = implementation(context) == "sdpa"
        self.work = work_of(tower.timm_model, self.edge)
        context.weigh_component("tower", tower, "vision_tower.", KIND)
        finish(tower, context)
        embedder = self.family.from_transformers("Gemma3nMultimodalEmbedder")
        embedding = context.create(lambda: embedder(self.config, self.text))
        context.weigh_component("adapter", embedding, "embed_vision.", KIND)
        return Features(tower, self.config.hidden_size**0.5), Embedder(embedding)

    def _check(self, encoder: Any) -> None:
        """Raise RequestError for a model of timm's whose features are other ones."""
        from timm.models.mobilenetv5 import MobileNetV5Encoder

        if not isinstance(encoder, MobileNetV5Encoder):
            raise RequestError(
                f"model {self.name!r}: vision_config.architecture {self.config.architecture!r}: "
                "the tower of gemma-3n is timm's mobilenetv5_300m_enc"
            )
        wide, side = self.config.hidden_size, encoder.msfa_output_resolution
        if wide != encoder.num_features:
            raise RequestError(
                f"model {self.name!r}: vision_config.hidden_size {wide}: its tower has "
                f"{encoder.num_features} features"
            )
        if side**2 != self.num_tokens:
            raise RequestError(
                f"model {self.name!r}: vision_soft_tokens_per_image {self.num_tokens}: its tower "
                f"makes {side} × {side}"
            )

    def of_image(self, width: int, height: int) -> tuple[Grid, ...]:
        return (self.image,)

    def preprocess(self, images: "Iterable[Image]", num_frames: int) -> Tensor:
        """The squares of all images, values from 0 to 1, [N, 3, edge, edge]."""
        import torch
        from transformers.models.siglip import image_processing_pil_siglip as module

        processor = module.SiglipImageProcessorPil(
            size={"height": self.edge, "width": self.edge}, resample=2, do_normalize=False
        )
        rows = [processor(image, return_tensors="pt")["pixel_values"] for image in images]
        return torch.cat(rows)

    def pixels(self, batch: int, grids: tuple[Grid, ...]) -> tuple[int, ...]:
        return batch * sum(grid.steps for grid in grids), 3, self.edge, self.edge

    def patch_flops(self, grids: tuple[Grid, ...]) -> int:
        return self.work.stem * sum(grid.steps for grid in grids)

    def tower_flops(self, grids: tuple[Grid, ...]) -> int:
        return self.work.all * sum(grid.steps for grid in grids)

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        tokens = sum(map(self.tokens, grids))
        return 2 * tokens * self.config.hidden_size * self.text.hidden_size


def work_of(encoder: Any, edge: int) -> Work:
    """FLOPs of timm's MobileNetV5Encoder over one square, by its modules' sizes and strides."""
    stem, side = _work(encoder.conv_stem, edge)
    sides, total = [side], stem
    for block in encoder.blocks:
        flops, side = _work(block, side)
        total += flops
        sides.append(side)
    # Features of lower resolution are repeated to that of the first that it takes.
    fused, _ = _work(encoder.msfa, sides[encoder.msfa_indices[0]])
    return Work(stem, total + fused)


def _work(module: nn.Module, side: int) -> tuple[int, int]:
    """FLOPs of a module over ``side`` × ``side`` pixels, and the side of what it gives.

    Children run one after the other, but for those of an attention; padding keeps a side, and a
    stride divides it.
    """
    if isinstance(module, nn.Conv2d):
        after = -(-side // int(module.stride[0]))
        return 2 * after**2 * module.weight.numel(), after
    own: Any = module
    if hasattr(module, "kv_stride") and hasattr(module, "key"):
        streams = [_work(child, side)[0] for child in (own.query, own.key, own.value, own.output)]
        keys = (-(-side // own.kv_stride)) ** 2
        pairs = own.num_heads * side**2 * keys
        return sum(streams) + 2 * pairs * (own.key_dim + own.value_dim), side
    total = 0
    for child in module.children():
        flops, side = _work(child, side)
        total += flops
    return total, side


TOWERS.add("gemma3n", Gemma3n)
