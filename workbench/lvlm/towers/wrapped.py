"""What towers have in common that are of the package timm, within transformers' wrapper of it.

What they see are squares of one size. Those made of convolutions have their FLOPs counted module
by module, by sizes and strides; workspaces of these are in no prediction, which a flag says.
"""

from collections.abc import Iterable
from copy import deepcopy
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from workbench.lvlm.configs.packages import require
from workbench.lvlm.kernels.modelled import tracing
from workbench.lvlm.towers import ANOTHER, Grid, Tower, finish, implementation

if TYPE_CHECKING:
    from PIL.Image import Image

    from workbench.lvlm.context import Context

WORKSPACES = (
    "tower: workspaces and copies of a convolution's weights and pixels, which cuDNN and oneDNN "
    "make while it runs, are in no prediction"
)


class Features(nn.Module):
    """The tower's features, a row a token."""

    def __init__(self, tower: Any, scale: float | None = None) -> None:
        super().__init__()
        self.tower, self.scale = tower, scale

    def forward(self, pixels: Tensor) -> Tensor:
        """[N, 3, edge, edge] -> [N, tokens, width]."""
        square = self.tower(pixel_values=pixels, do_pooling=False, return_dict=True)
        features: Tensor = square.last_hidden_state.flatten(2).permute(0, 2, 1)
        if self.scale is not None:
            features *= self.scale  # In place, as transformers does.
        return features


class Work(NamedTuple):
    """Matmul FLOPs of one image."""

    stem: int
    """Of the first convolution, which reads the pixels."""
    all: int


class Wrapped(Tower):
    """A square of pixels is a square of tokens."""

    requires = "timm"
    without_adapter = ANOTHER
    kind: ClassVar[str]
    """transformers' word for its configuration."""
    edge: int
    """Pixels a side."""
    work: Work

    @property
    def head_size(self) -> int:
        """None: ``view`` shows no keys, which differ in width from layer to layer."""
        return 0

    def wrapper(self, context: "Context") -> Any:
        """transformers' wrapper around timm's modules, without values."""
        require(self.model.name, "its tower is one of the package", self.requires)
        from transformers.models.timm_wrapper.modeling_timm_wrapper import TimmWrapperModel

        config = deepcopy(self.config)  # timm takes away from lists that it is given.
        tower = context.create(lambda: TimmWrapperModel(config))
        for module in tower.modules():
            if hasattr(module, "fused_attn"):  # timm asks no configuration.
                module.fused_attn = implementation(context) == "sdpa"
            if isinstance(module, nn.BatchNorm2d):  # Its buffers are no parameters.
                for name in ("running_mean", "running_var"):
                    buffer = module.get_buffer(name).to("meta")
                    start = torch.zeros if name == "running_mean" else torch.ones
                    value = start(buffer.shape, dtype=context.dtype, device=context.device)
                    setattr(module, name, value)
                module.num_batches_tracked = torch.zeros(
                    (), dtype=torch.int64, device=context.device
                )
            if hasattr(module, "bands"):  # Nor are the angles of a RoPE.
                module.to_empty(device=context.device)
                if not tracing(context.device):
                    module.init_non_persistent_buffers()
                module.to(context.dtype)
        return tower

    def finish(self, tower: Any, context: "Context") -> None:
        """Give a tower its weights, and have it trained and checkpointed as the cell says."""
        context.weigh_component("tower", tower, "vision_tower.", self.kind)
        finish(tower, context)

    def of_image(self, width: int, height: int) -> tuple[Grid, ...]:
        return (self.image,)

    def processor(self) -> Any:
        """transformers' image processor under the settings of the front end."""
        raise NotImplementedError

    def preprocess(self, images: "Iterable[Image]", num_frames: int) -> Tensor:
        """The squares of all images, [N, 3, edge, edge]."""
        processor = self.processor()
        rows = [processor(image, return_tensors="pt")["pixel_values"] for image in images]
        return torch.cat(rows)

    def pixels(self, batch: int, grids: tuple[Grid, ...]) -> tuple[int, ...]:
        return batch * sum(grid.steps for grid in grids), 3, self.edge, self.edge

    def patch_flops(self, grids: tuple[Grid, ...]) -> int:
        return self.work.stem * sum(grid.steps for grid in grids)

    def tower_flops(self, grids: tuple[Grid, ...]) -> int:
        return self.work.all * sum(grid.steps for grid in grids)


def work_of(module: nn.Module, side: int) -> tuple[int, int]:
    """FLOPs of a module over ``side`` × ``side`` pixels, and the side of what it gives.

    Children run one after the other, but for those of an attention and of a gate of channels;
    padding keeps a side, and a stride divides it.
    """
    own: Any = module
    if isinstance(module, nn.Conv2d):
        after = -(-side // int(module.stride[0]))
        return 2 * after**2 * module.weight.numel(), after
    if isinstance(module, nn.Linear):
        return 2 * side**2 * module.weight.numel(), side
    if hasattr(module, "kv_stride") and hasattr(module, "key"):  # One head of keys.
        streams = [
            work_of(child, side)[0] for child in (own.query, own.key, own.value, own.output)
        ]
        keys = (-(-side // own.kv_stride)) ** 2
        pairs = own.num_heads * side**2 * keys
        return sum(streams) + 2 * pairs * (own.key_dim + own.value_dim), side
    at, total = side, 0
    if hasattr(module, "fc1") and hasattr(module, "gate"):  # Of the mean of all pixels.
        at = 1
    if hasattr(module, "qkv"):
        total = 4 * side**4 * own.num_heads * own.head_dim
    for child in module.children():
        flops, at = work_of(child, at)
        total += flops
    return total, side if hasattr(module, "gate") else at
