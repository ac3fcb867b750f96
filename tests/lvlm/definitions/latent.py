"""Latent attention by products with its raw matrices, head by head, for every definition.

``parts_of(workload)`` puts such parts where definitions look for a layer's.
"""

from math import log

import torch

from workbench.lvlm.parts.latent import LatentParts


class Naive(LatentParts):
    """Queries are scaled by their place, where the family does, as definitions know of none."""

    def project_queries(self, x_bsd):
        own = self.attention
        if own.q_lora_rank is None:
            return x_bsd @ own.q_proj.weight.mT
        latent = rms(x_bsd @ own.q_a_proj.weight.mT, own.q_a_layernorm)
        return latent @ own.q_b_proj.weight.mT

    def query(self, x_bsd, factor=None):
        assert factor is None
        found = self.project_queries(x_bsd)
        heads = [found[..., h * self.head_dim :][..., : self.head_dim] for h in self.each_head]
        scale = self.by_length.get(x_bsd.shape[1])
        stacked = torch.stack(heads, 1)
        return stacked if scale is None else stacked * scale[:, None]

    def key(self, x_bsd):
        own = self.attention
        shared = x_bsd @ own.kv_a_proj_with_mqa.weight[own.kv_lora_rank :].mT
        rows = [self.expanded(x_bsd, h)[..., : own.qk_nope_head_dim] for h in self.each_head]
        return torch.stack([torch.cat((row, shared), -1) for row in rows], 1)

    def value(self, x_bsd):
        own = self.attention
        rows = [self.expanded(x_bsd, h)[..., own.qk_nope_head_dim :] for h in self.each_head]
        return torch.stack(rows, 1)

    def key_value(self, x_bsd):
        raise AssertionError("definitions ask for each alone")

    entries = expand = rotate = key_value

    def expanded(self, x_bsd, head):
        """What a head's key has without positions, then its value."""
        own = self.attention
        latent = x_bsd @ own.kv_a_proj_with_mqa.weight[: own.kv_lora_rank].mT
        width = own.qk_nope_head_dim + own.v_head_dim
        return rms(latent, own.kv_a_layernorm) @ own.kv_b_proj.weight[head * width :][:width].mT

    @property
    def each_head(self):
        return range(self.num_heads)


def rms(x, norm):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon) * norm.weight


def turned(x, cos, sin):
    """The last numbers of heads [B, H, S, K] as complex ones, each turned by its angle."""
    size = cos.shape[-1]
    pairs = torch.view_as_complex(x[..., -size:].unflatten(-1, (-1, 2)).contiguous())
    angles = torch.complex(cos, sin)[:, None, :, : size // 2]
    part = torch.view_as_real(pairs * angles).flatten(-2)
    return torch.cat((x[..., :-size], part), -1)


def factor_of(rope, places):
    """1 + β·log(1 + ⌊place / context⌋), place by place; None without β."""
    beta, context = (
        rope.get(name) for name in ("llama_4_scaling_beta", "original_max_position_embeddings")
    )
    if beta is None:
        return None
    return torch.tensor(
        [1 + beta * log(1 + place // context) for place in places.tolist()]
    ).double()


def parts_of(workload):
    """The workload, whose definition reads these in place of the layers' own parts."""
    layout, rope = workload.context.layout, workload.context.model.config.rope_parameters
    streams = layout.positions(True), layout.positions(False), layout.sequence
    factors = {len(places): factor_of(rope, places) for places in streams}
    for number, (parts, *rest) in enumerate(workload.layers):
        made = Naive(**{**vars(parts), "rope": turned})
        object.__setattr__(made, "by_length", factors)
        workload.layers[number] = (made, *rest)
    return workload
