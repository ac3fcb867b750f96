"""The linear layers of a decoder's layers, by their path in the model."""

from torch import nn

LINEAR = ("in_features", "out_features")


def decoder_linears(module: nn.Module) -> dict[str, nn.Module]:
    """Linear layers, packed ones too, of what ``layers`` of a workload's module holds.

    A layer that stands for several in a trace has one path, its first. A router is none of them,
    also where its class is a linear layer's (Llama 4's): it gives scores of experts, not rows.
    """
    inside = {id(m) for m in module.get_submodule("layers").modules()}
    return {
        name: child
        for name, child in module.named_modules()
        if id(child) in inside
        and all(hasattr(child, word) for word in LINEAR)
        and not hasattr(child, "top_k")
    }


def replace_module(module: nn.Module, name: str, made: nn.Module) -> None:
    """Put ``made`` where ``name`` stands."""
    parent, _, own = name.rpartition(".")
    setattr(module.get_submodule(parent), own, made)
