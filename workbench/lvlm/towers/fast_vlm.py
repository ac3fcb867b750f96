"""FastVLM's tower and projector: FastViT, convolutions and two last stages of attention.

It is one of the package timm, within transformers' wrapper, as it is for inference: branches of
convolutions are folded into one. A token is 64 × 64 pixels. What it pools beside its features
feeds no token and is not run. Trained, its batch norms use the batch's own mean and variance.
"""

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from workbench.lvlm.towers import TOWERS, Grid, Serves
from workbench.lvlm.towers.squares import check_projector
from workbench.lvlm.towers.wrapped import WORKSPACES, Features, Work, Wrapped, work_of
from workbench.visual.fast_vlm import FastVlm as FrontEnd
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved


class FastVlm(Wrapped):
    """256 tokens of a square of 1,024 pixels."""

    kind = "timm_wrapper"
    serves: ClassVar[Serves] = {"fast_vlm": (kind,)}
    front_end = "fast-vlm"

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        whole: Any = model.whole
        assert whole is not None, "chosen by its config"
        eye = self.own_front
        assert isinstance(eye, FrontEnd)
        check_projector(model.name, whole)
        self.name, self.whole, self.config = model.name, whole, whole.vision_config
        self.hidden, self.edge = model.config.hidden_size, eye.image_size
        self.image = Grid(1, eye.side, eye.side)
        folded = (self.config.model_args or {}).get("inference_mode")
        if folded is not True:
            raise RequestError(
                f"model {self.name!r}: vision_config.model_args inference_mode {folded!r:.60}: "
                "true, as branches of its convolutions are folded in what is released"
            )

    @property
    def flags(self) -> list[str]:
        return [WORKSPACES]

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        from transformers.models.fast_vlm.modeling_fast_vlm import FastVlmMultiModalProjector

        tower = self.wrapper(context)
        self._check(tower.timm_model)
        stem = next(m for m in tower.modules() if isinstance(m, nn.Conv2d))
        self.work = Work(work_of(stem, self.edge)[0], work_of(tower.timm_model, self.edge)[0])
        self.finish(tower, context)
        config: Any = SimpleNamespace(
            vision_config=self.config,
            text_config=SimpleNamespace(hidden_size=self.hidden),
            projector_hidden_act=self.whole.projector_hidden_act,
            multimodal_projector_bias=self.whole.multimodal_projector_bias,
        )
        projection = context.create(lambda: FastVlmMultiModalProjector(config))
        context.weigh_component("adapter", projection, "multi_modal_projector.", self.kind)
        return Features(tower), projection

    def _check(self, encoder: Any) -> None:
        """Raise RequestError for a model of timm's whose features are other ones."""
        from timm.models.fastvit import FastVit

        if not isinstance(encoder, FastVit) or not self.config.architecture.startswith(
            ("fastvit_mci3", "fastvit_mci4")
        ):
            raise RequestError(
                f"model {self.name!r}: vision_config.architecture {self.config.architecture!r}: "
                "the tower of fast-vlm is timm's fastvit_mci3 or fastvit_mci4"
            )
        if self.config.hidden_size != encoder.num_features:
            raise RequestError(
                f"model {self.name!r}: vision_config.hidden_size {self.config.hidden_size}: its "
                f"tower has {encoder.num_features} features"
            )

    def processor(self) -> Any:
        """transformers' image processor: values from 0 to 1."""
        from transformers.models.clip import image_processing_pil_clip as module

        return module.CLIPImageProcessorPil(
            size={"shortest_edge": self.edge},
            crop_size={"height": self.edge, "width": self.edge},
            image_mean=[0.0] * 3,
            image_std=[1.0] * 3,
        )

    def entry_flops(self, grids: tuple[Grid, ...]) -> int:
        return 2 * sum(map(self.tokens, grids)) * self.hidden * self.config.hidden_size

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        tokens = sum(map(self.tokens, grids))
        return 2 * tokens * self.hidden * (self.config.hidden_size + self.hidden)


TOWERS.add("fast_vlm", FastVlm)
