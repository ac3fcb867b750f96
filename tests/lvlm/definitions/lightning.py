"""Lightning attention token by token: a state that decays, takes a token in and is read."""

import torch

from tests.lvlm import oracle
from workbench.lvlm.layout import causal_pairs

EVERY, BLOCK = 2, 5
SETTINGS = f"block={BLOCK},every={EVERY}"
REFUSED = (
    "cohere",
    "cohere2",
    "exaone4",
    "gemma2",
    "gemma3",
    "gemma4",
    "llama4",
    "qwen3",
    "qwen3_vl",
)
"""Soft-capping, normed queries and keys, sliding windows and chunks."""


def rates(heads, index, layers):
    """s of every head, [H, 1, 1], as the paper's page has it."""
    at = torch.arange(1, heads + 1, dtype=torch.float64)[:, None, None]
    return 2.0 ** (-8 * at / heads) * (1 - index / (layers - 1 + 1e-5) + 1e-5)


def recurrence(q, k, v, decay):
    """[B, H, S, K] each, one token after the other."""
    state = torch.zeros(*q.shape[:2], q.shape[3], v.shape[3], dtype=q.dtype)
    rows = []
    for t in range(q.shape[2]):
        state = torch.exp(-decay) * state + k[:, :, t, :, None] * v[:, :, t, None, :]
        rows.append(torch.einsum("bhk,bhkv->bhv", q[:, :, t], state))
    return torch.stack(rows, 2)


def projected(parts, x):
    """q, k and v, [B, H, S, K] each, of normed rows [B, S, D]."""
    return (
        torch.nn.functional.silu(getattr(parts.attention, f"{name}_proj")(x))
        .unflatten(-1, (parts.num_heads, parts.head_dim))
        .transpose(1, 2)
        for name in "qkv"
    )


def fill(target, layer, seen):
    """The state of a decode step after the tokens [B, S, D] that a layer has seen."""
    _, k, v = projected(layer.parts, layer.parts.input_norm(seen))
    decay = torch.tensor(layer.attention.rates, dtype=k.dtype)[:, None]
    left = torch.exp(-decay * torch.arange(k.shape[2] - 1, -1, -1))
    target.attention.state.copy_(torch.einsum("ht,bhtk,bhtv->bhkv", left, k, v))


def outputs(workload):
    (parts, place, _), *_ = workload.layers
    (sequence,) = workload.inputs
    if place.role == "plain":
        seen = oracle.visibility(place.layout, parts.window, False)
        tables = workload.context.rope(place.index, "sequence")
        return (oracle.masked_layer(parts, sequence, seen, tables),)
    attention, x = parts.attention, parts.input_norm(sequence)
    q, k, v = projected(parts, x)
    layers = workload.context.model.config.num_hidden_layers
    found = recurrence(q, k, v, rates(parts.num_heads, place.index, layers))
    wide = found.transpose(1, 2).flatten(2)
    eps = attention.out_norm.eps
    normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    gated = torch.sigmoid(attention.g_proj(x)) * normed * attention.out_norm.weight
    return (parts.finish(sequence, attention.o_proj(gated), x),)


def allowed_pairs(place, window):
    tokens = place.layout.length
    if place.role == "plain":
        return causal_pairs(tokens, window)
    return sum(t % BLOCK + 1 for t in range(tokens))
