"""Row by row and head by head."""

import torch

SETTINGS = "queries=5,depth=2,heads=4,kv_heads=2,head=8"


def rms(x, norm):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + norm.eps) * norm.weight


def reduced(reducer, module, x, grid):
    latents = module.latents.expand(x.shape[0], -1, -1)
    for layer in module.layers:
        asked, read = rms(latents, layer.latents_norm), rms(x, layer.tokens_norm)
        seen = torch.cat((read, asked), 1)
        heads = []
        for head in range(layer.heads):
            shared = head * layer.kv_heads // layer.heads
            rows = slice(head * layer.head, (head + 1) * layer.head)
            keys = slice(shared * layer.head, (shared + 1) * layer.head)
            q, k, v = (
                y @ w.weight[at].T
                for y, w, at in (
                    (asked, layer.q_proj, rows),
                    (seen, layer.k_proj, keys),
                    (seen, layer.v_proj, keys),
                )
            )
            heads.append(torch.softmax(q @ k.mT / layer.head**0.5, -1) @ v)
        latents = latents + torch.cat(heads, -1) @ layer.o_proj.weight.T
        y = rms(latents, layer.mlp_norm)
        gate = torch.nn.functional.silu(y @ layer.gate_proj.weight.T)
        latents = latents + (gate * (y @ layer.up_proj.weight.T)) @ layer.down_proj.weight.T
    return rms(latents, module.norm)
