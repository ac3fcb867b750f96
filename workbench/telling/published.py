"""What the paper published, to stand beside what was measured here. Never mixed into a result."""

from typing import NamedTuple

ARXIV = "arXiv 2502.01906"
PAPER = f"{ARXIV}, Table 2"
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

QUALITY = ("GQA", "VQA-T", "MME", "MMB", "SEED-I", "LLaVA-W", "MMStar")
TABLE_2 = (
    ("s_attn", "S-Attn", "9k", "11.25", "61.8", "62.2", "1533.1", "70.3", "70.5", "70.7", "36.8"),
    (
        "d_attn_biased",
        "D-Attn, biased positions",
        "74k",
        "2.24",
        "63.4",
        "63.4",
        "1507.6",
        "68.8",
        "70.7",
        "71.2",
        "32.6",
    ),
    ("d_attn", "D-Attn", "74k", "2.24", "64.4", "68.3", "1598.6", "71.3", "72.6", "79.8", "38.3"),
)
"""System here, name, max |V|, seconds per iteration, then QUALITY: Mistral v0.3 7B."""
MERGING = ("GQA", "SQA-I", "VQA-T", "MME", "MMB", "SEED-I", "LLaVA-W", "MMStar")
TABLE_3 = (
    (
        "d_attn_cascade",
        "Cascade",
        "9.0 B",
        "64.1",
        "72.9",
        "67.0",
        "1586.1",
        "71.1",
        "71.8",
        "76.0",
        "36.4",
    ),
    (
        "d_attn_tanh",
        "Tanh",
        "7.6 B",
        "56.6",
        "73.4",
        "50.0",
        "1337.6",
        "62.4",
        "59.4",
        "59.3",
        "33.3",
    ),
    (
        "d_attn_sigmoid",
        "Sigmoid",
        "7.6 B",
        "64.7",
        "71.9",
        "66.8",
        "1548.1",
        "69.2",
        "72.4",
        "73.2",
        "35.8",
    ),
    (
        "d_attn",
        "α-weighting",
        "7.6 B",
        "64.4",
        "75.7",
        "68.3",
        "1598.6",
        "71.3",
        "72.6",
        "79.8",
        "38.3",
    ),
)
"""System here, merging strategy, parameters of the whole model, then MERGING."""
