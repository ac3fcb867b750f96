"""Gated DeltaNet, token by token in float64: the rule, and a whole linear layer."""

import torch
import torch.nn.functional as F


def recurrence(q, k, v, g, beta, state=None):
    """q, k [B, S, G, K], v [B, S, H, W], g and beta [B, S, H] -> [B, S, H, W] and the state."""
    times = v.shape[2] // k.shape[2]
    q, k = (x.repeat_interleave(times, 2) for x in (q, k))
    q, k = (x / torch.sqrt((x * x).sum(-1, keepdim=True) + 1e-6) for x in (q, k))
    rows = []
    if state is None:
        state = v.new_zeros(v.shape[0], v.shape[2], k.shape[3], v.shape[3])
    for t in range(v.shape[1]):
        state = state * g[:, t].exp()[..., None, None]
        known = torch.einsum("bhkw,bhk->bhw", state, k[:, t])
        update = beta[:, t, :, None] * (v[:, t] - known)
        state = state + torch.einsum("bhk,bhw->bhkw", k[:, t], update)
        rows.append(torch.einsum("bhkw,bhk->bhw", state, q[:, t]) / k.shape[3] ** 0.5)
    return torch.stack(rows, 1), state


def rms(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def attention(own, x):
    """A layer's ``linear_attn`` over normed rows [B, S, D], by its weights alone."""
    mixed = x @ own.in_proj_qkv.weight.T
    taps = own.conv1d.weight.shape[-1]
    padded = F.pad(mixed, (0, 0, taps - 1, 0))
    rows = F.silu(
        sum(padded[:, i : i + x.shape[1]] * own.conv1d.weight[:, 0, i] for i in range(taps))
    )
    heads, keys = own.num_v_heads, own.num_k_heads
    size = keys * own.head_k_dim
    q, k, v = rows.split((size, size, heads * own.head_v_dim), -1)
    q, k = (y.unflatten(-1, (keys, own.head_k_dim)) for y in (q, k))
    g = -own.A_log.exp() * F.softplus(x @ own.in_proj_a.weight.T + own.dt_bias)
    beta = torch.sigmoid(x @ own.in_proj_b.weight.T)
    out, _ = recurrence(q, k, v.unflatten(-1, (heads, own.head_v_dim)), g, beta)
    z = (x @ own.in_proj_z.weight.T).unflatten(-1, (heads, own.head_v_dim))
    out = rms(out, own.norm.weight, own.norm.variance_epsilon) * F.silu(z)
    return out.flatten(2) @ own.out_proj.weight.T


def norm(module, x):
    return rms(x, 1 + module.weight, module.eps)


def layer(own, x):
    """The whole layer: norms, attention, residuals, MLP."""
    x = x + attention(own.linear_attn, norm(own.input_layernorm, x))
    return x + own.mlp(norm(own.post_attention_layernorm, x))


def full_layer(own, parts, sequence, seen, tables, unrotated=None):
    """A gated full layer over [B, S, D] whose rows see what ``seen`` [S, S] says."""
    x = norm(own.input_layernorm, sequence)
    attention = own.self_attn
    heads, size = parts.num_heads, parts.head_dim
    both = (x @ attention.q_proj.weight.T).unflatten(-1, (heads, 2 * size))
    q, gate = both[..., :size], both[..., size:]
    k = (x @ attention.k_proj.weight.T).unflatten(-1, (parts.num_kv_heads, size))
    v = (x @ attention.v_proj.weight.T).unflatten(-1, (parts.num_kv_heads, size))
    q, k = norm(attention.q_norm, q).transpose(1, 2), norm(attention.k_norm, k).transpose(1, 2)
    times = heads // parts.num_kv_heads
    v = v.transpose(1, 2).repeat_interleave(times, 1)
    q_rope, k_rope = (turned(y, *tables) for y in (q, k))
    scores = q_rope @ k_rope.repeat_interleave(times, 1).mT
    if unrotated is not None:  # Pairs whose queries and keys are not turned.
        plain = q @ k.repeat_interleave(times, 1).mT
        scores = torch.where(unrotated, plain, scores)
    scores = (scores * size**-0.5).masked_fill(~seen, float("-inf"))
    out = (torch.softmax(scores, -1) @ v).transpose(1, 2).flatten(2)
    sequence = sequence + (out * torch.sigmoid(gate.flatten(2))) @ attention.o_proj.weight.T
    return sequence + own.mlp(norm(own.post_attention_layernorm, sequence))


def turned(x, cos, sin):
    """RoPE over the first values of a head, the rest as it is."""
    size = cos.shape[-1]
    first, rest = x[..., :size], x[..., size:]
    half = torch.cat((-first[..., size // 2 :], first[..., : size // 2]), -1)
    return torch.cat((first * cos[:, None] + half * sin[:, None], rest), -1)
