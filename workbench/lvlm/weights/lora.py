"""LoRA: low-rank adapters beside the decoder's frozen linear layers (arXiv 2106.09685).

W·x becomes W·x + (alpha / r)·B·(A·x), A of [r, in] and B of [out, r]; everything but A and B is
frozen, as peft does it, and so is what stands before the decoder. On a device the layers are
peft's own, but over weights of 8 bits. A prediction is traced over ``Adapted``, which runs the
same operators: importing peft takes longer than predicting.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from workbench.lvlm.weights.linears import decoder_linears, replace_module
from workbench.lvlm.weights.packed import Packed
from workbench.lvlm.weights.random import create, materialise, randomise
from workbench.vocabulary.errors import RequestError, Unsupported
from workbench.vocabulary.lora import ALL, Lora

if TYPE_CHECKING:
    import torch

    from workbench.lvlm.workload import Workload

INSTALL = "pip install 'visual-token-workbench[train]'"


class Adapted(nn.Module):
    """A frozen linear layer and its adapter, the operators of ``peft.tuners.lora.Linear``."""

    def __init__(
        self, base: Any, lora: Lora, device: "torch.device", dtype: "torch.dtype"
    ) -> None:
        super().__init__()
        self.base_layer, self.scaling = base, lora.scaling
        linear = lambda i, o: create(lambda: nn.Linear(i, o, bias=False), device, dtype)  # noqa: E731
        self.lora_A = linear(base.in_features, lora.r)
        self.lora_B = linear(lora.r, base.out_features)
        randomise(self.lora_A)
        randomise(self.lora_B)
        self.dropout = nn.Dropout(lora.dropout) if lora.dropout else nn.Identity()

    @property
    def weight(self) -> Tensor:
        """The frozen matrix, as peft's layer shows it to a module that reads it (AltUp)."""
        weight: Tensor = self.base_layer.weight
        return weight

    def forward(self, x: Tensor) -> Tensor:
        """[…, in] -> […, out]."""
        result = self.base_layer(x)
        dtype = result.dtype
        if isinstance(self.base_layer, Packed):
            # peft's layer over bitsandbytes copies it, for the sake of its backward.
            result = result.clone()
            x = x.to(self.lora_A.weight.dtype)
            update = self.lora_B(self.lora_A(self.dropout(x))) * self.scaling
            return result + update.to(dtype)
        x = x.to(self.lora_A.weight.dtype)
        result = result + self.lora_B(self.lora_A(self.dropout(x))) * self.scaling
        return result.to(dtype)


def add_adapters(workload: "Workload", lora: Lora, dtype: "torch.dtype", light: bool) -> None:
    """Freeze the workload's model and put adapters beside its decoder's linear layers.

    ``light`` puts ``Adapted`` there, else peft's layers, which know none over codes of 8 bits
    (``Packed``): ``Adapted`` stands beside those as well. Raises RequestError for targets that the
    decoder does not have, Unsupported where something of the model has to be trained whole.
    """
    _check_whole(workload)
    targets = _targets(workload.module, lora)
    workload.module.requires_grad_(False)
    for tensor in workload.inputs:
        if tensor.is_floating_point():
            tensor.requires_grad_(False)  # Nothing before the decoder is trained.
    device = workload.context.device
    if light or any(isinstance(base, Packed) for base in targets.values()):
        for name, base in targets.items():
            replace_module(workload.module, name, Adapted(base, lora, device, dtype))
        return
    _inject(workload.module, targets, lora, workload.cell.weights_dtype == "int4")
    for name in targets:
        layer: Any = workload.module.get_submodule(name)
        for half in (*layer.lora_A.values(), *layer.lora_B.values()):
            materialise(half, device, dtype)
            randomise(half)


def _inject(module: Any, names: Iterable[str], lora: Lora, four_bits: bool) -> None:
    """peft's own layers, whose adapters have no memory yet."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise RequestError(f"lora: measuring needs peft: {INSTALL}") from None
    config = LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, target_modules=[*names], lora_dropout=lora.dropout
    )
    module.is_loaded_in_4bit = four_bits  # As transformers tells peft.
    inject_adapter_in_model(config, module, low_cpu_mem_usage=True)


def _targets(module: nn.Module, lora: Lora) -> dict[str, nn.Module]:
    """The linear layers of the decoder's layers that are adapted, by their path in the model."""
    linears = decoder_linears(module)
    names = {name.rpartition(".")[2] for name in linears}
    missing = sorted(set(lora.targets) - names)
    if missing:
        raise RequestError(
            f"lora targets={missing[0]}: the decoder's linear layers are "
            f"{', '.join(sorted(names))}; or {ALL}"
        )
    patterns = set(lora.targets) or names
    return {name: child for name, child in linears.items() if name.rpartition(".")[2] in patterns}


def _check_whole(workload: "Workload") -> None:
    """Raise Unsupported where a part without released weights would be frozen as it is."""
    system = workload.system
    if any(
        place.inserted or system.extra_parameters(parts, place)
        for parts, place, _ in workload.layers
    ):
        raise Unsupported(
            f"lora: {system.name} has parameters of its own, which no released model has trained; "
            "frozen beside adapters they would stay random"
        )
    reducer = workload.modules.get("reducer")
    if reducer is not None and any(True for _ in reducer.parameters()):
        raise Unsupported(
            f"lora: reducer {workload.cell.reduce} has parameters, which have to be trained whole"
        )
