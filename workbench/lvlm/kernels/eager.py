"""The eager kernel: explicit score matrices, as transformers' own ``eager`` computes them.

Serves every feature (soft-cap, window, float64); memory grows with rows times keys.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from workbench.lvlm.kernels import KERNELS, Branch, Kernel, Prefix, Scores
from workbench.lvlm.layout import hidden_by
from workbench.lvlm.parts.marks import region


class Eager(Kernel):
    """Softmax in float32 or wider; α-weighting by the sigmoid of the branches' log-sum-exps."""

    name = "eager"
    hf = "eager"
    dense_mask = True
    two_widths = True
    takes_rows = True

    def skips(self, windowed: bool) -> bool:
        return False

    def own(self, branch: Branch, scores: Scores) -> Tensor:
        return _weigh(_own_scores(branch, scores), branch.v)

    def masked(self, branch: Branch, seen: Tensor, scores: Scores) -> Tensor:
        s = _scores(branch.q, branch.k, scores)
        return _weigh(s.masked_fill(~seen, float("-inf")), branch.v)

    def cross(self, branch: Branch, prefixes: Sequence[Prefix], scores: Scores) -> Tensor:
        return by_rows(
            branch.q,
            prefixes,
            lambda p: _weigh(_other_scores(branch, p, scores), branch.v[:, :, : p.length]),
            lambda start, stop: unseen(branch, start, stop),
        )

    def merged(
        self, own: Branch, other: Branch, prefixes: Sequence[Prefix], scores: Scores
    ) -> Tensor:
        with region(own.region):
            s_own = _own_scores(own, scores)
            lse_own, out_own = torch.logsumexp(wide(s_own), -1), _weigh(s_own, own.v)

        def merge(p: Prefix) -> Tensor:
            with region(other.region):
                s_other = _other_scores(other, p, scores)
                lse_other = torch.logsumexp(wide(s_other), -1)
                out_other = _weigh(s_other, other.v[:, :, : p.length])
            with region("merge"):
                alpha = torch.sigmoid(lse_other - lse_own[:, :, p.start : p.stop]).unsqueeze(-1)
                rows = out_own[:, :, p.start : p.stop]
                return rows + alpha.to(rows.dtype) * (out_other - rows)

        return by_rows(own.q, prefixes, merge, lambda start, stop: out_own[:, :, start:stop])


KERNELS.add("eager", Eager())


def wide(scores: Tensor) -> Tensor:
    return scores if scores.dtype == torch.float64 else scores.float()


def unseen(branch: Branch, start: int, stop: int) -> Tensor:
    """What rows that see nothing have of a branch: 0, as wide as its values."""
    batch, heads = branch.q.shape[:2]
    return branch.q.new_zeros(batch, heads, stop - start, branch.v.shape[3])


def _repeat(x: Tensor, heads: int) -> Tensor:
    repeats = heads // x.shape[1]
    return x if repeats == 1 else x.repeat_interleave(repeats, 1)


def _scores(q: Tensor, k: Tensor, scores: Scores) -> Tensor:
    s = torch.matmul(q, _repeat(k, q.shape[1]).transpose(2, 3)) * scores.scale
    if scores.softcap is not None:
        s = torch.tanh(s / scores.softcap) * scores.softcap
    return s


def _own_scores(branch: Branch, scores: Scores) -> Tensor:
    s, hidden = _scores(branch.q, branch.k, scores), None
    if scores.causal:
        n = branch.q.shape[2]
        hidden = torch.ones(n, n, dtype=torch.bool, device=s.device).triu(1)
    if scores.window is not None and scores.rows is not None:
        far = hidden_by(scores.rows, scores.rows, scores.window)
        hidden = far if hidden is None else hidden | far
    return s if hidden is None else s.masked_fill(hidden, float("-inf"))


def _other_scores(branch: Branch, p: Prefix, scores: Scores) -> Tensor:
    s = _scores(branch.q[:, :, p.start : p.stop], branch.k[:, :, : p.length], scores)
    if scores.window is None or scores.rows is None or scores.other is None:
        return s
    far = hidden_by(scores.rows[p.start : p.stop], scores.other[: p.length], scores.window)
    # Not -inf: a row may see no key of this branch, and its softmax must stay finite. The branch's
    # log-sum-exp is then so small that its weight in the merge is exactly 0.
    return s.masked_fill(far, torch.finfo(s.dtype).min)


def _weigh(s: Tensor, v: Tensor) -> Tensor:
    weights = torch.softmax(wide(s), -1).to(v.dtype)
    return torch.matmul(weights, _repeat(v, s.shape[1]))


def by_rows(
    q: Tensor,
    prefixes: Sequence[Prefix],
    seeing: Callable[[Prefix], Tensor],
    blind: Callable[[int, int], Tensor],
) -> Tensor:
    """Concatenates ``seeing(prefix)`` and, for rows that see nothing, ``blind(start, stop)``."""
    pieces, row = [], 0
    for p in prefixes:
        if p.start > row:
            pieces.append(blind(row, p.start))
        pieces.append(seeing(p))
        row = p.stop
    if row < q.shape[2] or not pieces:
        pieces.append(blind(row, q.shape[2]))
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, 2)
