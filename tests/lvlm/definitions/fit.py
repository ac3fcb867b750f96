"""Image by image, group by group and head by head."""

import math

import torch

SETTINGS = "group=5,latents=2,blocks=(2)1(1)2"


def norm(x, module):
    mean, spread = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
    return (x - mean) / torch.sqrt(spread + module.eps) * module.weight + module.bias


def linear(x, module):
    return x @ module.weight.T + module.bias


def attend(rows, keys, module):
    q, k, v = (
        linear(y, w)
        for y, w in ((rows, module.q_proj), (keys, module.k_proj), (keys, module.v_proj))
    )
    heads = [slice(i, i + module.head) for i in range(0, q.shape[-1], module.head)]
    out = [torch.softmax(q[:, h] @ k[:, h].T / module.head**0.5, -1) @ v[:, h] for h in heads]
    return linear(torch.cat(out, -1), module.o_proj)


def layer(x, module):
    y = norm(x, module.norm)
    x = x + attend(y, y, module.attention)
    y = linear(norm(x, module.mlp_norm), module.up)
    return x + linear(0.5 * y * (1 + torch.erf(y / math.sqrt(2))), module.down)


def read(rows, other, module):
    return rows + attend(norm(rows, module.norm), norm(other, module.other_norm), module.attention)


def code(number, width, dtype):
    half = [number * 10000.0 ** (-2 * i / width) for i in range((width + 1) // 2)]
    return torch.tensor([*map(math.sin, half), *map(math.cos, half[: width // 2])], dtype=dtype)


def of_image(module, x):
    groups = [x[i : i + 5] + module.positions[: len(x) - i] for i in range(0, len(x), 5)]
    latents = [module.latents + code(i, x.shape[-1], x.dtype) for i in range(len(groups))]
    for block in module.blocks:
        for local in block.local_layers:
            groups = [layer(group, local) for group in groups]
        latents = [
            read(own, group, block.to_latents) for own, group in zip(latents, groups, strict=True)
        ]
        together = torch.cat(latents)
        for over_all in block.global_layers:
            together = layer(together, over_all)
        latents = list(together.split(2))
        if block.to_tokens is not None:
            groups = [
                read(group, own, block.to_tokens)
                for group, own in zip(groups, latents, strict=True)
            ]
    return norm(torch.cat(latents), module.norm)


def reduced(reducer, module, x, grid):
    return torch.stack([of_image(module, image) for image in x])
