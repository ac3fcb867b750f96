"""Shared by the definitions in which visual tokens are keys and values alone."""

import torch

from tests.lvlm.oracle import _rows, near


def repeated(parts, x):
    """[B, G, n, K] -> [B, H, n, K]."""
    return x.repeat_interleave(parts.num_heads // parts.num_kv_heads, 1)


def rms(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def own_branch(parts, x, tables):
    """Rotated queries and keys, and values, of text rows that are already normed."""
    return (
        parts.rope(parts.query(x), *tables),
        repeated(parts, parts.rope(parts.key(x), *tables)),
        repeated(parts, parts.value(x)),
    )


def text_alone(parts, layout, text, tables):
    """A layer of the family over the text, at its places in the whole sequence."""
    x = parts.input_norm(text)
    own = own_branch(parts, x, tables)
    return parts.finish(text, parts.output(_rows(parts, layout, None, own, None)), x)


def seeing(layout):
    """Rows of text that see a visual token, as 0 or 1: [T, 1]."""
    at, visual = layout.positions(visual=False), layout.positions(visual=True)
    return (visual[None] < at[:, None]).any(1)[:, None].double()


def own_pairs(layout, window):
    """T2T pairs that causality and the window allow, counted one by one."""
    text = layout.positions(visual=False)
    row, key = text[:, None], text[None, :]
    return int(((row >= key) & near(row, key, window)).sum())


def cross_pairs(layout):
    """T2V pairs: every visual token before a row."""
    text, visual = layout.positions(visual=False), layout.positions(visual=True)
    return int((visual[None, :] < text[:, None]).sum())
