"""CrossLMM: S-Attn over the sequence, then a read of the originals in every second layer."""

import torch

from tests.lvlm import oracle
from tests.lvlm.definitions.reading import repeated
from workbench.lvlm.models import FAMILIES
from workbench.lvlm.parts.forms import llama_like

SETTINGS = "every=2,pool=3"
REFUSED = ("cohere", "cohere2", "exaone4", "gemma2", "gemma3", "gemma4", "qwen3")
"""Their heads together are wider than the hidden size; Cohere's MLP is beside its attention."""


def fill(target, layer, seen):
    """The caches of a decode step after the tokens [B, S, D] that a layer has seen."""
    real, tables = layer.inner.layer, layer.inner.tables
    if isinstance(tables, torch.Tensor):  # Llama 4's, of complex numbers.
        parts, tables = FAMILIES["llama4"].parts(real), (tables.real, tables.imag)
    else:
        parts = llama_like(real)
    x = parts.input_norm(seen)
    cos, sin = (table[:, : seen.shape[1]] for table in tables)
    count = target.inner.keys.shape[2]
    target.inner.keys.copy_(parts.rope(parts.key(x), cos, sin)[:, :, -count:])
    target.inner.values.copy_(parts.value(x)[:, :, -count:])
    if hasattr(target, "visual_keys") and target.visual_keys.shape[2]:
        module = layer.modules_of["text"]
        target.visual_keys.copy_(oracle._split(module.k_proj(layer.inputs[0]), parts.num_kv_heads))
        target.visual_values.copy_(
            oracle._split(module.v_proj(layer.inputs[0]), parts.num_kv_heads)
        )


def weigh(parts, q, k, v, seen):
    """Rows over the keys that they see, [B, H, R, K]; 0 where they see none."""
    scores = q @ repeated(parts, k).mT * parts.scale
    if parts.softcap is not None:
        scores = parts.softcap * torch.tanh(scores / parts.softcap)
    weights = torch.softmax(scores.masked_fill(~seen, -torch.inf), -1)
    return torch.where(seen, weights, 0.0) @ repeated(parts, v)


def seen_originals(place):
    """[S, V] of bool: the originals that a row of the sequence sees."""
    layout, originals = place.layout, place.originals
    seen = torch.zeros(layout.length, originals.num_visual, dtype=torch.bool)
    ends = [0, *(s.offset + s.length for s in originals.visual_segments)]
    number = 0
    for segment in layout.segments:
        number += segment.visual
        seen[segment.start : segment.start + segment.length, : ends[number]] = True
    return seen


def outputs(workload):
    (parts, place, _), *_ = workload.layers
    originals, sequence = workload.inputs
    tables = workload.context.rope(place.index, "sequence")
    visible = oracle.visibility(place.layout, parts.window, False)
    if place.role != "cross" or not originals.shape[1]:
        return originals, oracle.masked_layer(parts, sequence, visible, tables)
    x = parts.input_norm(sequence)
    q, k = (parts.rope(y, *tables) for y in (parts.query(x), parts.key(x)))
    out = parts.output(weigh(parts, q, k, parts.value(x), visible))
    if parts.post_attention_norm is not None:
        out = parts.post_attention_norm(out)
    hidden = sequence + out
    y, seen = parts.mlp_norm(hidden), seen_originals(place)
    module, added = workload.module, torch.zeros_like(hidden)
    for stream, gate in (("visual", module.visual_gate), ("text", module.text_gate)):
        rows = place.layout.positions(visual=stream == "visual")
        weights = module.modules_of[stream]
        heads = [
            oracle._split(x @ w.weight.mT, n)
            for x, w, n in (
                (y[:, rows], weights.q_proj, parts.num_heads),
                (originals, weights.k_proj, parts.num_kv_heads),
                (originals, weights.v_proj, parts.num_kv_heads),
            )
        ]
        found = weigh(parts, *heads, seen[rows]).transpose(1, 2).flatten(2)
        added = added.index_add(1, rows, torch.tanh(gate) * found)
    hidden = hidden + added
    out = parts.mlp(parts.mlp_norm(hidden))
    if parts.post_mlp_norm is not None:
        out = parts.post_mlp_norm(out)
    return originals, hidden + out


def allowed_pairs(place, window):
    found = int(oracle.visibility(place.layout, window, False).sum())
    return found + (int(seen_originals(place).sum()) if place.role == "cross" else 0)
