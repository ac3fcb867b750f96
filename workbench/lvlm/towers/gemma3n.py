"""Gemma 3n's own tower: MobileNet-v5, convolutions and attention of many queries to one key head.

It is one of the package timm, within transformers' wrapper. Whatever an image's size, it is
stretched to one square; features of two resolutions are brought together and averaged to 16 × 16
tokens. The embeddings of ids that stand beside the projector (end of an image and the like), and
their norm, feed no token of an image: they are held, but neither run nor trained. An audio tower
is left out, which a flag says. Without timm nothing of scope `lvlm` is built, tokens are counted.
"""

from math import isqrt
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from workbench.lvlm.towers import TOWERS, Grid, Serves
from workbench.lvlm.towers.audio import audio_flag
from workbench.lvlm.towers.wrapped import WORKSPACES, Features, Work, Wrapped, work_of
from workbench.visual.gemma_3n import Gemma3n as FrontEnd
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved


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


class Gemma3n(Wrapped):
    """256 tokens of a square of 768 pixels."""

    kind = "gemma3n_vision"
    serves: ClassVar[Serves] = {"gemma3n": (kind,)}
    front_end = "gemma-3n"

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
            WORKSPACES,
        ]
        audio = self.whole.audio_config
        if audio is not None:
            tower, projector = (
                self.family.from_transformers(name)
                for name in ("Gemma3nAudioEncoder", "Gemma3nMultimodalEmbedder")
            )
            lines.append(audio_flag(self.name, (tower, audio), (projector, audio, self.text)))
        return lines

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        tower = self.wrapper(context)
        self._check(tower.timm_model)
        self.work = self._work(tower.timm_model)
        self.finish(tower, context)
        embedder = self.family.from_transformers("Gemma3nMultimodalEmbedder")
        embedding = context.create(lambda: embedder(self.config, self.text))
        context.weigh_component("adapter", embedding, "embed_vision.", self.kind)
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

    def _work(self, encoder: Any) -> Work:
        """FLOPs of timm's encoder over one square."""
        stem, side = work_of(encoder.conv_stem, self.edge)
        sides, total = [side], stem
        for block in encoder.blocks:
            flops, side = work_of(block, side)
            total += flops
            sides.append(side)
        # Features of lower resolution are repeated to that of the first that it takes.
        fused, _ = work_of(encoder.msfa, sides[encoder.msfa_indices[0]])
        return Work(stem, total + fused)

    def processor(self) -> Any:
        """transformers' image processor: values from 0 to 1."""
        from transformers.models.siglip import image_processing_pil_siglip as module

        square = {"height": self.edge, "width": self.edge}
        return module.SiglipImageProcessorPil(size=square, resample=2, do_normalize=False)

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        tokens = sum(map(self.tokens, grids))
        return 2 * tokens * self.config.hidden_size * self.text.hidden_size


TOWERS.add("gemma3n", Gemma3n)
