"""Naive float64 layers of a family whose ids have an embedding for every layer (Gemma 4's E2B).

Rows are one sequence in order, keys and values of layers that give theirs are in ``shared``, by
kind of layer: keys as text reads them, those of visual rows rotated only where T2V is.
"""

import torch

from tests.lvlm import oracle
from tests.lvlm.definitions import biformer, hyper_attn, lsda, moh, reading, streaming
from workbench.probe.counting.hooks import blocks_of

TEXT = ("himix", "saisa", "hyper_attn")
"""Systems of whose visual rows there are keys and values alone."""
GROUPED = {"lsda": lsda, "biformer": biformer}
"""Systems whose visual rows see some of their segment."""
WHOLE = ("s_attn", "d_attn_full", "streaming", "moh", *TEXT, *GROUPED)
"""Systems whose visual rows see more than themselves, or are none."""
ROTATED = ("d_attn_biased", *WHOLE)
"""Systems that rotate what text reads of visual rows."""


def is_visual(layout):
    visual = torch.zeros(layout.length, dtype=torch.bool)
    visual[layout.positions(visual=True)] = True
    return visual


def seen_by(name, layout, window):
    """[S, S]: which keys a row sees; a debiased visual key has no distance, so no window."""
    if name == "streaming":
        return streaming.visibility(layout, window)
    if name == "hyper_attn":
        seen = oracle.visibility(layout, window, diagonal=False)
        for row, images in zip(
            layout.positions(visual=False), hyper_attn.seen_pairs(layout, window), strict=True
        ):
            seen[row, layout.positions(visual=True)] = images
        return seen
    seen = oracle.visibility(layout, window, diagonal=False)
    if name not in ROTATED or name == "himix":
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


def grouped(name, place, query, key):
    """[B, 1, S, S]: the keys that visual rows see, of rotated queries and keys [B, H, S, K]."""
    layout = place.layout
    seen = oracle.visibility(layout, None, False).repeat(query.shape[0], 1, 1)
    seen[:, layout.positions(visual=True)] = False
    for segment in layout.visual_segments:
        rows = slice(segment.start, segment.start + segment.length)
        near = (x[:, :, rows].detach() for x in (query, key))
        chosen = GROUPED[name].sees(*near, segment.length, place)
        seen[:, rows, rows] = torch.as_tensor(chosen)
    return seen[:, None]


def own_visual_keys(name, module, parts, layout, visual, tables):
    """Keys and values [B, G, V, K] that the system's own module makes of the embeddings."""
    if name == "himix":
        x = reading.rms(visual, module.norm_img.weight, 1e-6)
        key, value = module.k_proj_img(x), module.v_proj_img(x)
        return tuple(heads(y, parts.num_kv_heads, None) for y in (key, value))
    x = parts.layer.input_layernorm(visual)
    key, value = module.kv_proj_img(x).chunk(2, -1)
    key = heads(key, parts.num_kv_heads, parts.k_norm)
    cos, sin = (t[:, hyper_attn.image_places(layout)] for t in tables)
    return parts.rope(key, cos, sin), heads(value, parts.num_kv_heads, None)


def with_visual(layout, x, visual):
    """Keys or values [B, G, S, K] with these in the places of the visual tokens."""
    return joined(layout, (visual, split(layout, x)[1]))


def attended(name, module, parts, place, x, key, value, tables):
    """What every row has of the keys, visual rows under a full V2V too: [B, H, S, K]."""
    repeats = parts.num_heads // parts.num_kv_heads
    key, value = (y.repeat_interleave(repeats, 1) for y in (key, value))
    query = heads(parts.attention.q_proj(x), parts.num_heads, parts.attention.q_norm)
    turned = parts.rope(query, *tables)
    layout = place.layout
    scores, visual = turned @ key.mT, is_visual(layout)
    if name not in ROTATED:
        scores = torch.where(visual, query @ key.mT, scores)
    seen = seen_by(name, layout, parts.window)
    if name in GROUPED:
        seen = grouped(name, place, turned, key[:, ::repeats])
    if name == "hyper_attn" and place.role != "hyper":
        seen = seen & (~visual | torch.eye(layout.length, dtype=torch.bool))
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


def run_layer(name, module, parts, place, hidden, own, shared, tables, kept=None):
    """One layer over [B, S, D] and embeddings [B, S, P] -> [B, S, D]; puts what it gives into
    ``shared``. ``kept`` are embeddings [B, V, W] that no layer changes.
    """
    own_layer, attention, layout = parts.layer, parts.attention, place.layout
    x = own_layer.input_layernorm(hidden)
    if name == "saisa" and hasattr(attention, "k_proj"):
        first, _, second = module.projector
        projected = second(torch.nn.functional.gelu(first(kept)))
        x = layout.join(own_layer.input_layernorm(projected), layout.split(x)[1])
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
    if name == "himix" or (name == "hyper_attn" and place.role):
        made = own_visual_keys(name, module, parts, layout, kept, tables)
        key, value = (with_visual(layout, y, v) for y, v in zip((key, value), made, strict=True))
    out = attended(name, module, parts, place, x, key, value, tables)
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


def lone_sequence(workload):
    """The same of a system whose state is the sequence."""
    ((parts, place, _),) = workload.layers
    own, *taken, hidden = workload.inputs
    kind, tables = parts.attention.layer_type, workload.context.rope(place.index, "sequence")
    shared = {kind: tuple(taken)} if taken else {}
    out = run_layer(workload.system.name, None, parts, place, hidden, own[:, :, 0], shared, tables)
    return (*(shared[kind] if parts.gives_keys else ()), out)


def lone_layer(workload):
    """The definition's outputs for the workload's own inputs, of one layer of a system: what it
    gives, stream by stream, and both streams.
    """
    if not workload.system.decomposed:
        return lone_sequence(workload)
    ((parts, place, _),) = workload.layers
    name, layout = workload.system.name, place.layout
    *inputs, visual, text = workload.inputs
    if name in TEXT:
        own_text, *taken = inputs
        own_visual = own_text.new_zeros(visual.shape[:2] + own_text.shape[2:])
    else:
        own_visual, own_text, *taken = inputs
    own = layout.join(own_visual[:, :, 0], own_text[:, :, 0])
    kind, shared = parts.attention.layer_type, {}
    if parts.takes_keys and name == "d_attn_cascade":
        value, text_key, text_value = taken
        shared[kind] = tuple(joined(layout, (value, x)) for x in (text_key, text_value))
    elif parts.takes_keys and len(taken) == 2:
        none = taken[0].new_zeros((*taken[0].shape[:2], layout.num_visual, taken[0].shape[3]))
        shared[kind] = tuple(joined(layout, (none, x)) for x in taken)
    elif parts.takes_keys:
        shared[kind] = tuple(joined(layout, pair) for pair in (taken[::2], taken[1::2]))
    tables = workload.context.rope(place.index, "sequence")
    kept = visual if name in TEXT else None
    rows = visual if kept is None else text.new_zeros(*visual.shape[:2], text.shape[2])
    hidden, module = layout.join(rows, text), workload.module.inner
    out = run_layer(name, module, parts, place, hidden, own, shared, tables, kept)
    given = ()
    if parts.gives_keys:
        (visual_key, text_key), (visual_value, text_value) = (
            split(layout, x) for x in shared[kind]
        )
        given = (visual_key, visual_value, text_key, text_value)
        given = given[1:] if name == "d_attn_cascade" else given
        given = given[2:] if name in ("himix", "hyper_attn") else given
    after, text = layout.split(out)
    return (*given, after if kept is None else kept, text)


def decoder(workload, visual, ids):
    """Logits of all rows that reach the head of a whole decoder: [B, n, vocab]."""
    model, layout, name = workload.module, workload.context.layout, workload.system.name
    text = model.embed_tokens(ids) * model.embed_scale
    kept = visual if name in TEXT else None
    rows = visual if kept is None else text.new_zeros(*visual.shape[:2], text.shape[2])
    hidden = layout.join(rows, text)
    around = model.around
    padding = ids.new_full((ids.shape[0], layout.num_visual), around.visual_id)
    per_layer, _ = around.enter(hidden, layout.join(padding, ids))
    shared = {}
    for block, (parts, place, _) in zip(blocks_of(workload), workload.layers, strict=True):
        tables = workload.context.rope(place.index, "sequence")
        own = per_layer[:, :, place.index]
        hidden = run_layer(name, block.inner, parts, place, hidden, own, shared, tables, kept)
    hidden = hidden if kept is None else layout.split(hidden)[1]
    logits = model.lm_head(model.norm(hidden))
    return torch.tanh(logits / model.softcap) * model.softcap
