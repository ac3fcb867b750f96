"""PaliGemma's tower and projector: SigLIP's last hidden states through one linear layer.

Every patch is a token: 256 at 224 pixels, 1,024 at 448, 4,096 at 896. Masks are causal, which is
flagged: in the released model the prefix, images and prompt, sees itself in both directions.
Positions begin at 0, there at 1: rotary embeddings see differences alone.
"""

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from workbench.lvlm.models.gemma2 import prefix_note
from workbench.lvlm.towers import TOWERS, Grid, Serves
from workbench.lvlm.towers.siglip import SigLIP
from workbench.visual.paligemma import PaliGemma as FrontEnd
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved


class PaliGemma(SigLIP):
    """Squares of one size; every patch a token."""

    serves: ClassVar[Serves] = {"paligemma": ("siglip_vision_model",)}
    front_end = "paligemma"

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        _ = self.own_front  # Settings that make no sense are said first.
        width: Any = getattr(model.whole, "projection_dim", None)
        if width != self.hidden:
            raise RequestError(
                f"model {model.name!r}: projection_dim {width!r:.60}: its text model's "
                f"hidden_size is {self.hidden}"
            )

    @property
    def flags(self) -> list[str]:
        """The prefix's mask is the whole model's, whatever its text model's section says."""
        note = prefix_note(self.model.config)
        return [] if note in self.model.family.notes(self.model.config) else [note]

    def adapter(self, context: "Context") -> nn.Module:
        """transformers' projector."""
        from transformers.models.paligemma.modeling_paligemma import PaliGemmaMultiModalProjector

        config: Any = SimpleNamespace(
            vision_config=SimpleNamespace(hidden_size=self.entry_width, projection_dim=self.hidden)
        )
        projection = context.create(lambda: PaliGemmaMultiModalProjector(config))
        self.weigh_adapter(context, projection, "multi_modal_projector.", self.model_type)
        return projection

    def processor(self) -> Any:
        from transformers.models.siglip import image_processing_pil_siglip as module

        assert isinstance(self.front, FrontEnd)
        side = self.front.image_size
        return module.SiglipImageProcessorPil(size={"height": side, "width": side})

    def entry_flops(self, grids: tuple[Grid, ...]) -> int:
        return self.adapter_flops(grids)

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        return 2 * sum(map(self.tokens, grids)) * self.hidden * self.entry_width


TOWERS.add("paligemma", PaliGemma)
