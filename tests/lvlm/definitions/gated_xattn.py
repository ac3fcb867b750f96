"""Gated cross-attention: a layer over the text alone, or an inserted one that reads the images."""

import torch

from tests.lvlm.definitions.reading import (
    cross_pairs,
    own_pairs,
    repeated,
    rms,
    seeing,
    text_alone,
)
from tests.lvlm.oracle import _rows, _split

SETTINGS = "every=2,first=0"
REFUSED = ("cohere", "cohere2")
"""Attention and MLP side by side."""


def outputs(workload):
    (parts, place, _), *_ = workload.layers
    context, module, layout = workload.context, workload.module, place.layout
    visual, text = workload.inputs
    if not place.inserted:
        return visual, text_alone(parts, layout, text, context.rope(place.index, "text"))
    if not layout.num_visual:
        return visual, text
    attention, eps = parts.attention, context.model.config.rms_norm_eps
    norms = {"query": parts.q_norm, "key": parts.k_norm}

    def normed(name, x):
        own = norms[name]
        return rms(x, module.norms[name].weight, eps) if own is None else own(x)

    q = normed("query", _split(parts.project_queries(parts.input_norm(text)), parts.num_heads))
    if hasattr(attention, "k_proj"):
        key = _split(attention.k_proj(visual), parts.num_kv_heads)
        value = _split((attention.v_proj or attention.k_proj)(visual), parts.num_kv_heads)
        value = value if parts.v_norm is None else parts.v_norm(value)
    else:  # Of latents.
        key, value = parts.key(visual), parts.value(visual)
    key = normed("key", key)
    rows = _rows(parts, layout, (q, repeated(parts, key), repeated(parts, value)), None, None)
    out = attention.o_proj(rows.transpose(1, 2).flatten(2))
    if parts.post_attention_norm is not None:
        out = parts.post_attention_norm(out)
    hidden = text + torch.tanh(module.attention_gate) * out
    out = parts.mlp(parts.mlp_norm(hidden))
    if parts.post_mlp_norm is not None:
        out = parts.post_mlp_norm(out)
    hidden = hidden + torch.tanh(module.mlp_gate) * out
    return visual, torch.where(seeing(layout) > 0, hidden, text)


def allowed_pairs(place, window):
    return cross_pairs(place.layout) if place.inserted else own_pairs(place.layout, window)
