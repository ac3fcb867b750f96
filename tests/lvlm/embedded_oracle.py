"""Naive float64 layers of a family whose ids have an embedding for every layer (Gemma 4's E2B).

Rows are one sequence in order, keys and values of layers that give theirs are in ``shared``, by
kind of layer: keys as text reads them, those of visual rows rotated only where T2V is.
"""

import torch

from tests.lvlm import oracle
from tests.lvlm.definitions import moh, streaming
from workbench.probe.counting.hooks import blocks_of

ROTATED = ("s_attn", "d_attn_biased", "d_attn_full", "streaming", "moh")
WHOLE = ("s_attn", "d_attn_full", "streaming", "moh")
"""Systems whose visual rows see what stands before them."""


def is_visual(layout):
    visual = torch.zeros(layout.length, dtype=torch.bool)
    visual[layout.positions(visual=True)] = True
    return visual


def seen_by(name, layout, window):
    """[S, S]: which keys a row sees; a debiased visual key has no distance, so no window."""
    if name == "streaming":
        return streaming.visibility(layout, window)
    seen = oracle.visibility(layout, window, diagonal=False)
    if name not in ROTATED:
        near = oracle.visibility(layout, None, diagonal=False)
        seen = torch.where(is_visual(layout), near, seen)
    return seen


def weights(scores, seen):
    """Softmax over what a row sees; 0 where it sees nothing."""
    return torch.softmax(scores.masked_fill(~seen, -1e300), -1) * seen


def heads(x, count, norm):
    x = x.unflatten(-1, (count, -1))
    return (x if norm is None else norm(x)).transpose(1, 2)


def keys_values(name, parts, layout, x, tables):
    """Those of the layer's own, over the sequence [B, S, D]."""
    own = parts.attention
    key = heads(own.k_proj(x), parts.num_kv_heads, own.k_norm)
    value = heads(own.v_proj(x), parts.num_kv_heads, own.v_norm)
    turned = parts.rope(key, *tables)
    if name not in ROTATED:
        turned = torch.where(is_visual(layout)[:, None], key, turned)
    return turned, value


def attended(name, module, parts, layout, x, key, value, tables):
    """What every row has of the keys, visual rows under a full V2V too: [B, H, S, K]."""
    repeats = parts.num_heads // parts.num_kv_heads
    key, value = (y.repeat_interleave(repeats, 1) for y in (key, value))
    query = heads(parts.attention.q_proj(x), parts.num_heads, parts.attention.q_norm)
    turned = parts.rope(query, *tables)
    scores, visual = turned @ key.mT, is_visual(layout)
    if name not in ROTATED:
        scores = torch.where(visual, query @ key.mT, scores)
    seen = seen_by(name, layout, parts.window)
    if name == "d_attn_cascade":
        seen = seen & (~visual | torch.eye(layout.length, dtype=torch.bool))
    merge = oracle.MERGES.get(name)
    if merge is None:
        return weights(scores, seen) @ value
    own, other = (weights(scores, seen & keys) @ value for keys in (~visual, visual))
    some = (seen & visual).any(-1)[:, None]
    return torch.where(some, merge(module, other, own), own)


def finished(parts, residual, out, own):
    """Residual, norms and MLP, and what the embeddings [B, S, P] add behind it."""
    layer = parts.layer
    hidden = residual + layer.post_attention_layernorm(out)
    mlp = layer.mlp(layer.pre_feedforward_layernorm(hidden))
    hidden = hidden + layer.post_feedforward_layernorm(mlp)
    gate = torch.nn.functional.gelu(layer.per_layer_input_gate(hidden), approximate="tanh") * own
    hidden = hidden + layer.post_per_layer_input_norm(layer.per_layer_projection(gate))
    return hidden * layer.layer_scalar


def read(module, parts, layout, x, text):
    """Text [B, T, D] with what the cascade's module reads of the visual rows before it."""
    visual, rows = layout.split(x)
    q = heads(module.q_proj(rows), parts.num_heads, None)
    k, v = (
        heads(project(visual), parts.num_kv_heads, None).repeat_interleave(
            parts.num_heads // parts.num_kv_heads, 1
        )
        for project in (module.k_proj, module.v_proj)
    )
    at, before = layout.positions(visual=False), layout.positions(visual=True)
    seen = before[None] < at[:, None]
    out = weights(q @ k.mT * parts.scale, seen) @ v
    out = parts.layer.post_attention_layernorm(module.o_proj(out.transpose(1, 2).flatten(2)))
    return torch.where(seen.any(-1)[:, None], text + out, text)


def run_layer(name, module, parts, layout, hidden, own, shared, tables):
    """One layer over [B, S, D] and embeddings [B, S, P] -> [B, S, D]; puts what it gives into
    ``shared``.
    """
    own_layer, attention = parts.layer, parts.attention
    x = own_layer.input_layernorm(hidden)
    residual = hidden
    if name == "d_attn_cascade":
        visual, text = layout.split(hidden)
        if visual.shape[1]:
            residual = layout.join(visual, read(module.cross, parts, layout, x, text))
        x = own_layer.input_layernorm(residual)
    if hasattr(attention, "k_proj"):
        key, value = keys_values(name, parts, layout, x, tables)
        if attention.store_full_length_kv:
            shared[attention.layer_type] = key, value
    else:
        key, value = shared[attention.layer_type]
    out = attended(name, module, parts, layout, x, key, value, tables)
    if name == "moh":
        out = out * moh.used(parts, x.detach())[..., None]
    if name not in WHOLE:
        repeated = value.repeat_interleave(parts.num_heads // parts.num_kv_heads, 1)
        out = torch.where(is_visual(layout)[:, None], repeated, out)
    out = attention.o_proj(out.transpose(1, 2).flatten(2))
    return finished(parts, residual, out, own)


def joined(layout, pair):
    """Keys or values [B, G, n, K] of both streams -> of the sequence."""
    visual, text = (x.transpose(1, 2).flatten(2) for x in pair)
    groups = pair[0].shape[1]
    return layout.join(visual, text).unflatten(2, (groups, -1)).transpose(1, 2)


def split(layout, x):
    """The same back: visual, text."""
    streams = layout.split(x.transpose(1, 2).flatten(2))
    return tuple(y.unflatten(2, (x.shape[1], -1)).transpose(1, 2) for y in streams)


def lone_layer(workload):
    """The definition's outputs for the workload's own inputs, of one layer of a decomposed system:
    what it gives, stream by stream, and both streams.
    """
    ((parts, place, _),) = workload.layers
    name, layout = workload.system.name, place.layout
    *inputs, visual, text = workload.inputs
    own_visual, own_text, *taken = inputs
    own = layout.join(own_visual[:, :, 0], own_text[:, :, 0])
    kind, shared = parts.attention.layer_type, {}
    if parts.takes_keys and name == "d_attn_cascade":
        value, text_key, text_value = taken
        shared[kind] = tuple(joined(layout, (value, x)) for x in (text_key, text_value))
    elif parts.takes_keys:
        shared[kind] = tuple(joined(layout, pair) for pair in (taken[::2], taken[1::2]))
    tables = workload.context.rope(place.index, "sequence")
    hidden = layout.join(visual, text)
    out = run_layer(name, workload.module.inner, parts, layout, hidden, own, shared, tables)
    given = ()
    if parts.gives_keys:
        (visual_key, text_key), (visual_value, text_value) = (
            split(layout, x) for x in shared[kind]
        )
        given = (visual_key, visual_value, text_key, text_value)
        given = given[1:] if name == "d_attn_cascade" else given
    return (*given, *layout.split(out))


def decoder(workload, visual, ids):
    """Logits of all rows [B, S, vocab] of a whole decoder."""
    model, layout, name = workload.module, workload.context.layout, workload.system.name
    text = model.embed_tokens(ids) * model.embed_scale
    hidden = layout.join(visual, text)
    around = model.around
    padding = ids.new_full((ids.shape[0], layout.num_visual), around.visual_id)
    per_layer, _ = around.enter(hidden, layout.join(padding, ids))
    shared = {}
    for block, (parts, place, _) in zip(blocks_of(workload), workload.layers, strict=True):
        tables = workload.context.rope(place.index, "sequence")
        own = per_layer[:, :, place.index]
        hidden = run_layer(name, block.inner, parts, layout, hidden, own, shared, tables)
    logits = model.lm_head(model.norm(hidden))
    return torch.tanh(logits / model.softcap) * model.softcap
