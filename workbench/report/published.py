"""What the paper published, to stand beside what was measured here. Never mixed into a result."""

from typing import NamedTuple

PAPER = "arXiv 2502.01906, Table 2"
SETTING = (
    "training a whole LVLM on 32 H100, with the largest |V| before the card runs out of memory and"
    " the seconds per iteration at equal |V|; the paper calls fused kernels orthogonal to this"
)


class Published(NamedTuple):
    """One row of the paper's Table 2."""

    system: str
    max_visual: int
    seconds: float


S_ATTN = Published("S-Attn", 9_000, 11.25)
D_ATTN = Published("D-Attn", 74_000, 2.24)
VISUAL_RATIO = D_ATTN.max_visual / S_ATTN.max_visual
SPEED_RATIO = S_ATTN.seconds / D_ATTN.seconds
