"""Naive float64 definitions that every fast path is held against.

``masked_layer`` runs the real transformers layer under a dense mask with a float64 attention
function registered through transformers' own interface (its ``eager`` fixes the softmax at
float32).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.models.ernie4_5_vl_moe import modeling_ernie4_5_vl_moe
from transformers.models.hunyuan_vl import modeling_hunyuan_vl
from transformers.models.llama4 import modeling_llama4

from workbench.lvlm.layout import Chunk, Layout
from workbench.lvlm.models.llama4 import Llama4
from workbench.lvlm.parts import LayerParts

NAME = "float64_oracle"
_ROTATE, _COS_SIN = modeling_llama4.apply_rotary_emb, Llama4.cos_sin
_HALVES = modeling_hunyuan_vl.apply_rotary_pos_emb
_NEIGHBOURS = modeling_ernie4_5_vl_moe.apply_rotary_pos_emb


def _attention(module, query, key, value, attention_mask, scaling, softcap=None, **_):
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    scores = query @ key.mT * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~attention_mask, float("-inf"))
    return (torch.softmax(scores, -1) @ value).transpose(1, 2).contiguous(), None


def _mask(*_, **__):
    raise AssertionError("the oracle's mask is handed to the layer directly")


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _mask)


def near(row: Tensor, key: Tensor, window: int | None) -> Tensor:
    """Whether a window shows a key before a row, by their positions."""
    if window is None:
        return torch.ones_like(row - key, dtype=torch.bool)
    if isinstance(window, Chunk):
        return row // window == key // window
    return row - key < window


def visibility(layout: Layout, window: int | None, diagonal: bool) -> Tensor:
    """[S, S] of bool: which keys a row sees, by position in the sequence."""
    n = layout.length
    visual = torch.zeros(n, dtype=torch.bool)
    visual[layout.positions(visual=True)] = True
    place = torch.arange(n)
    seen = place[:, None] >= place[None, :]
    seen &= near(place[:, None], place[None, :], window)
    if diagonal:
        seen &= ~visual[:, None] | torch.eye(n, dtype=torch.bool)
    return seen


def masked_layer(parts: LayerParts, sequence: Tensor, seen: Tensor, tables) -> Tensor:
    """The real layer over [B, S, D] with rows seeing what ``seen``, [S, S] or [B, S, S], says."""
    config = parts.attention.config
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        mask = seen[None, None] if seen.ndim == 2 else seen[:, None]
        places = torch.arange(sequence.shape[1])[None]
        if config.model_type == "llama4_text":
            tables = torch.complex(*tables)
        return parts.layer(
            sequence, attention_mask=mask, position_embeddings=tables, position_ids=places
        )
    finally:
        config._attn_implementation = before


@contextmanager
def seated(parts: LayerParts, layout: Layout) -> Iterator[None]:
    """The real layer as that of a whole sequence, whose visual rows have experts of their own."""
    if not hasattr(parts.mlp, "vision_moe") or not layout.num_visual:
        yield
        return
    before, streams = parts.mlp.rows, (layout.positions(True), layout.positions(False))
    parts.mlp.seat(*streams, torch.cat(streams).argsort())
    try:
        yield
    finally:
        parts.mlp.rows = before


def decomposed_layer(name, module, parts, layout, inputs, tables) -> tuple[Tensor, Tensor]:
    """The definition of a debiased system, row by row -> visual and text outputs."""
    visual, text = inputs
    v_in, residual = parts.input_norm(visual) if name != "himix" else visual, text
    repeats = parts.num_heads // parts.num_kv_heads
    key, value = _visual_keys(name, module, parts, v_in)
    key, value = (x.repeat_interleave(repeats, 1) for x in (key, value))
    merge = MERGES.get(name)
    if name == "d_attn_cascade":
        q = _split(module.cross.q_proj(parts.input_norm(text)), parts.num_heads)
        xa = _rows(parts, layout, (q, key, value), None, merge=None)
        out = module.cross.o_proj(xa.transpose(1, 2).flatten(2))
        if parts.post_attention_norm is not None:
            out = torch.cat(
                [
                    parts.post_attention_norm(out[:, i : i + 1])
                    if _sees(layout, i)
                    else out[:, i : i + 1]
                    for i in range(out.shape[1])
                ],
                1,
            )
        residual = text + out
    x = parts.input_norm(residual)
    q, q_rope = _queries(parts, x), _queries(parts, x, tables)
    own = (
        q_rope,
        *(y.repeat_interleave(repeats, 1) for y in (_keys(parts, x, tables), parts.value(x))),
    )
    other = None if name == "d_attn_cascade" else (q_rope if name == "himix" else q, key, value)
    combine = None if merge is None else (lambda xa, sa: merge(module, xa, sa))
    text_out = parts.finish(residual, parts.output(_rows(parts, layout, other, own, combine)), x)
    if name == "himix":
        return visual, text_out
    diagonal = parts.value(v_in).repeat_interleave(repeats, 1)
    return _finish_visual(parts, visual, parts.output(diagonal), v_in), text_out


def _queries(parts: LayerParts, x: Tensor, tables=None) -> Tensor:
    """Queries [B, H, S, K] of normed rows, under RoPE where there are tables."""
    if (norm := getattr(parts.attention, "query_layernorm", None)) is not None:
        return norm(_turned(_split(parts.attention.q_proj(x), parts.num_heads), tables))
    return parts.query(x) if tables is None else parts.rope(parts.query(x), *tables)


def _keys(parts: LayerParts, x: Tensor, tables=None) -> Tensor:
    """Keys [B, G, S, K], likewise."""
    if (norm := getattr(parts.attention, "key_layernorm", None)) is not None:
        return norm(_turned(_split(parts.attention.k_proj(x), parts.num_kv_heads), tables))
    return parts.key(x) if tables is None else parts.rope(parts.key(x), *tables)


def _turned(x: Tensor, tables) -> Tensor:
    return x if tables is None else _turn_halves(x, x, *tables)[0]


def _finish_visual(parts: LayerParts, residual: Tensor, attended: Tensor, normed: Tensor):
    """What follows the attention of visual rows: where these have experts, theirs, one by one."""
    if (block := getattr(parts.mlp, "vision_moe", None)) is None:
        return parts.finish(residual, attended, normed)
    hidden = residual + attended
    rows = parts.mlp_norm(hidden)
    scores = torch.softmax(rows.float() @ block.gate.weight.T, -1)
    biased = scores + block.gate.moe_statics.e_score_correction_bias.squeeze()
    chosen = biased.topk(block.gate.top_k, -1).indices
    weights = torch.zeros_like(scores).scatter(-1, chosen, scores.gather(-1, chosen))
    weights = (weights / weights.sum(-1, keepdim=True)).to(rows.dtype)
    out = parts.mlp.shared_experts(rows)
    for number, (wide, narrow) in enumerate(
        zip(block.experts.gate_up_proj, block.experts.down_proj, strict=True)
    ):
        gate, up = (rows @ wide.T).chunk(2, -1)
        fed = (torch.nn.functional.silu(gate) * up) @ narrow.T
        out = out + weights[..., number : number + 1] * fed
    return hidden + out


def _visual_keys(name, module, parts, v_in):
    if name == "himix":
        x = v_in * torch.rsqrt(v_in.pow(2).mean(-1, keepdim=True) + 1e-6) * module.norm_img.weight
        pair = module.k_proj_img(x), module.v_proj_img(x)
    elif name == "d_attn_cascade":
        pair = module.cross.k_proj(v_in), module.cross.v_proj(v_in)
    else:
        return _keys(parts, v_in), parts.value(v_in)
    return tuple(_split(x, parts.num_kv_heads) for x in pair)


def _split(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _sees(layout: Layout, row: int) -> bool:
    t_at, v_at = layout.positions(visual=False), layout.positions(visual=True)
    return bool((v_at < t_at[row]).any())


def _rows(parts, layout, other, own, merge) -> Tensor:
    """Each text row over the visual (``other``) and text (``own``) keys it sees: [B, H, T, K]."""
    t_at, v_at = layout.positions(visual=False), layout.positions(visual=True)
    rows = []
    for row in range(len(t_at)):
        pairs = []
        if other is not None:
            sees = v_at < t_at[row]
            pairs.append(_branch(parts, other, row, sees))
        if own is not None:
            sees = t_at <= t_at[row]
            sees &= near(t_at[row], t_at, parts.window)
            pairs.append(_branch(parts, own, row, sees))
        if merge is not None and pairs[0][0].shape[-1]:
            rows.append(
                merge(*(torch.softmax(s, -1).unsqueeze(2) @ v for s, v in pairs)).squeeze(2)
            )
            continue
        scores = torch.cat([s for s, _ in pairs], -1)
        values = torch.cat([v for _, v in pairs], 2)
        weights = torch.softmax(scores, -1)
        rows.append(torch.einsum("bhs,bhsk->bhk", weights, values))
    return torch.stack(rows, 2) if rows else own[0]


def _branch(parts, qkv, row, sees):
    q, k, v = qkv
    return _scores(parts, q[:, :, row], k[:, :, sees]), v[:, :, sees]


MERGES = {
    "d_attn_tanh": lambda module, xa, sa: sa + torch.tanh(module.gate) * xa,
    "d_attn_sigmoid": lambda module, xa, sa: (
        torch.sigmoid(module.gate) * xa + (1 - torch.sigmoid(module.gate)) * sa
    ),
    "d_attn_sum": lambda module, xa, sa: sa + xa,
}
"""System -> merge(its layer, XA, SA), where the branches have a softmax each."""


def _scores(parts: LayerParts, q_bhk: Tensor, k_bhsk: Tensor) -> Tensor:
    scores = torch.einsum("bhk,bhsk->bhs", q_bhk, k_bhsk) * parts.scale
    return scores if parts.softcap is None else parts.softcap * torch.tanh(scores / parts.softcap)


def widen_norms(module: nn.Module) -> None:
    """Let every RMSNorm compute in its input's precision: transformers fixes it at float32.

    Rounding to float32 would turn differences of 1e-16 between two exact paths into 1e-8. The same
    for the rotations of Llama 4, ERNIE and HunYuan, and the scores of Llama 4's router.
    """
    for norm in module.modules():
        if type(norm).__name__ == "Llama4TextAttention":
            modeling_llama4.apply_rotary_emb = _rotate
        elif type(norm).__name__ == "Ernie4_5_VLMoeTextAttention":
            modeling_ernie4_5_vl_moe.apply_rotary_pos_emb = _turn_neighbours
        elif type(norm).__name__ == "HunYuanVLDenseV1Attention":
            modeling_hunyuan_vl.apply_rotary_pos_emb = _turn_halves
        elif type(norm).__name__ == "Llama4Router":
            norm.forward = _route(norm)
        elif type(norm).__name__.endswith(("RMSNorm", "L2Norm")):
            norm.forward = _rms_norm(norm)
        elif type(norm).__name__ in ("CohereLayerNorm", "Cohere2LayerNorm"):
            norm.forward = _mean_norm(norm)
        elif type(norm).__name__.endswith("RMSNormGated"):
            norm.forward = _gated_rms_norm(norm)


def _rms_norm(norm: nn.Module) -> Callable[[Tensor], Tensor]:
    eps = getattr(norm, "eps", None) or norm.variance_epsilon
    shifted = (
        "GemmaRMSNorm",
        "Gemma2RMSNorm",
        "Gemma3RMSNorm",
        "Qwen3_5RMSNorm",
        "Qwen3_5MoeRMSNorm",
    )
    shift = 1.0 if type(norm).__name__ in shifted else 0.0
    weight = getattr(norm, "weight", None)  # Gemma 4 norms values without any.

    def forward(x: Tensor) -> Tensor:
        normed = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
        return normed if weight is None else normed * (shift + weight)

    return forward


def _unit_cos_sin(self, rotary, like, positions, layer_type) -> tuple[Tensor, Tensor]:
    """Llama 4's tables, in float64 of length 1: float32's are not, and a norm would show it."""
    cos, sin = _COS_SIN(self, rotary, like, positions, layer_type)
    if like.dtype != torch.float64:
        return cos, sin
    turns = torch.complex(cos.double(), sin.double())
    turns = turns / turns.abs()
    return turns.real.contiguous(), turns.imag.contiguous()


Llama4.cos_sin = _unit_cos_sin


def _rotate(q: Tensor, k: Tensor, turns: Tensor) -> tuple[Tensor, Tensor]:
    """[B, S, heads, K] each, turned by complex numbers [B, S, K/2]."""
    if q.dtype != torch.float64:
        return _ROTATE(q, k, turns)
    pairs = (torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) for x in (q, k))
    q, k = (torch.view_as_real(x * turns[:, :, None]).flatten(-2) for x in pairs)
    return q, k


def _turn_halves(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """[B, heads, S, K] each, their two halves turned by tables [B, S, K]."""
    if q.dtype != torch.float64:
        return _HALVES(q, k, cos, sin)
    cos, sin, turned = cos[:, None], sin[:, None], modeling_hunyuan_vl.rotate_half
    return q * cos + turned(q) * sin, k * cos + turned(k) * sin


def _turn_neighbours(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """The same of neighbours."""
    if q.dtype != torch.float64:
        return _NEIGHBOURS(q, k, cos, sin)
    cos, sin, turned = cos[:, None], sin[:, None], modeling_ernie4_5_vl_moe.rotate_half_text
    return q * cos + turned(q) * sin, k * cos + turned(k) * sin


def _route(router: nn.Module) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        logits = x @ router.weight.T
        best = logits.topk(router.top_k, -1).indices
        chosen = torch.zeros_like(logits).scatter(-1, best, 1.0)
        return torch.sigmoid(logits) * chosen, logits

    return forward


def _mean_norm(norm: nn.Module) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        y = x - x.mean(-1, keepdim=True)
        return (
            y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon) * norm.weight
        )

    return forward


def _gated_rms_norm(norm: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    def forward(x: Tensor, gate: Tensor) -> Tensor:
        normed = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)
        return normed * norm.weight * torch.nn.functional.silu(gate)

    return forward
