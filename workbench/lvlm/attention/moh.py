"""Mixture of heads (MoH, arXiv 2410.11842): each token chooses the heads that it uses.

S-Attn whose first shared·H heads are always on; of the others, those (active − shared)·H are on
whose query of that token has the largest L2 norm, after W_q and before QK-norm and RoPE. The
output of a head that is off is 0 before W_o, one that is on has weight 1, and no gradient goes
through the choice: the released rule for LLaMA-3, which has no parameters. Shared heads are one
causal call of the kernel. Of a routed head the rows that chose it are gathered and attend to all
keys under a mask, in tiles of rows. O(V²), with active·H heads' pairs; training keeps every tile's
mask (``sdpa``) or probabilities (``eager``) for its backward. No parameters. Gives up: the heads
that a token does not choose.
"""

from fractions import Fraction
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.attention.decomposed import joined
from workbench.lvlm.attention.per_layer import Taking
from workbench.lvlm.attention.row_inputs import NOTHING, RowInputs
from workbench.lvlm.attention.s_attn import SAttn, SAttnDecode, SAttnLayer
from workbench.lvlm.context import Context
from workbench.lvlm.kernels import Branch, Kernel, Scores
from workbench.lvlm.kernels.modelled import tracing
from workbench.lvlm.layout import hidden_by
from workbench.lvlm.parts import scaled
from workbench.lvlm.parts.loops import identical_iterations
from workbench.lvlm.parts.marks import region
from workbench.lvlm.place import Place
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import Faults, Unsupported

if TYPE_CHECKING:
    from workbench.lvlm.parts import LayerParts

ROWS = 4096
"""Rows of a tile: a mask of a routed head is so many rows of all keys."""
KEPT_TILES = 4
"""A training step, which keeps all of a head's tiles, cuts no smaller ones than that part of the
sequence: hundreds would only add calls."""


class MoHLayer(nn.Module):
    """The layer's own weights; heads that a token does not use are not computed for it."""

    def __init__(self, system: "MoH", parts: "LayerParts", context: Context, place: Place) -> None:
        super().__init__()
        self.layer, self.kernel = parts.layer, context.kernel
        self.parts = context.in_tiles(parts)
        self.active, self.shared = system.heads(parts)
        self.tables = context.rope(place.index, "sequence")
        self.factor = context.query_factor(place.index, "sequence")
        bites = system.window_bites(place, parts.window)
        self.window = parts.window if bites else None
        self.mask: Tensor | None = None
        rows = None
        if bites and context.kernel.dense_mask:
            rows = context.constant(
                ("rows", place.layout.length), lambda: torch.arange(place.layout.length)
            )
        elif bites:
            self.mask = context.mask(place.layout.length, parts.window)
        self.scores = Scores(parts.scale, parts.softcap, self.window, rows)

    def forward(self, sequence: Tensor, more: RowInputs = NOTHING) -> tuple[Tensor]:
        """[B, S, D] -> [B, S, D]."""
        parts, x = self.parts, self.parts.input_norm(sequence)
        raw = parts.project_queries(x).unflatten(-1, (parts.num_heads, parts.head_dim))
        query = normed_heads(parts, raw, self.factor)
        taken = more.taken.get("sequence")
        key, value = taken or parts.key_value(x)
        with region("attention"):
            query = parts.rope(query, *self.tables)
            if taken is None:
                key = parts.rope(key, *self.tables)
                more.give("sequence", key, value)
            heads = []
            if self.shared:
                heads.append(self.shared_heads(query, key, value))
            if self.shared < parts.num_heads:
                heads.append(self.routed_heads(raw, query, key, value))
            attended = heads[0] if len(heads) == 1 else torch.cat(heads, 1)
        own = more.own.get("sequence")
        return (parts.finish(sequence, parts.output(attended), x, own),)

    def shared_heads(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The heads that every token uses: [B, shared, S, K]."""
        count = self.shared
        k, v = (of_heads(x, query, count) for x in (key, value))
        branch = Branch(query[:, :count], k, v)
        if self.mask is not None:
            return self.kernel.masked(branch, self.mask, self.scores)
        return self.kernel.own(branch, self.scores)

    def routed_heads(self, raw: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The other heads, 0 where a token does not use them: [B, H - shared, S, K]."""
        rows, counts = self.choose(raw)
        routed = query[:, self.shared :]
        batch, heads, tokens, size = routed.shape
        rows_of_heads = routed.reshape(-1, size).index_select(0, rows)
        out = self._attend(rows_of_heads, rows % tokens, counts, key, value)
        whole = out.new_zeros(batch * heads * tokens, out.shape[1]).index_copy(0, rows, out)
        return whole.view(batch, heads, tokens, -1)

    @torch.no_grad()
    def choose(self, raw: Tensor) -> tuple[Tensor, list[int]]:
        """The rows of all routed heads, int64 [R], and how many each head of each sample has.

        A row is an index into [B · heads · S]. How many there are is data, which the host waits
        for; a prediction takes even shares, the remainder with the first.
        """
        batch, tokens = raw.shape[:2]
        heads = self.parts.num_heads - self.shared
        each = chosen_heads(raw, self.active, self.shared)
        samples = torch.arange(batch, device=raw.device)[:, None, None]
        places = torch.arange(tokens, device=raw.device)[None, :, None]
        rows = ((samples * heads + each) * tokens + places).flatten().sort().values
        if tracing(raw.device):
            share, rest = divmod(len(rows), batch * heads)
            return rows, [share + rest, *[share] * (batch * heads - 1)]
        return rows, torch.bincount(rows // tokens, minlength=batch * heads).tolist()

    def _attend(
        self, chosen: Tensor, places: Tensor, counts: list[int], key: Tensor, value: Tensor
    ) -> Tensor:
        """Each head's rows [R, K], at these places of the sequence, over its keys: [R, K]."""
        heads, repeats = self.parts.num_heads - self.shared, self.parts.num_heads // key.shape[1]
        starts = [0, *accumulate(counts)]
        columns = torch.arange(key.shape[2], device=key.device)
        trains = torch.is_grad_enabled()
        size = max(ROWS, -(-key.shape[2] // KEPT_TILES)) if trains else ROWS

        def attend(number: int, rows: slice) -> Tensor:
            sample, head = divmod(number, heads)
            group = (self.shared + head) // repeats
            k, v = (x[sample : sample + 1, group : group + 1] for x in (key, value))
            mask = places[rows, None] >= columns
            if self.window is not None:
                mask = mask & ~hidden_by(places[rows], columns, self.window)
            branch = Branch(chosen[None, None, rows], k, v)
            return self.kernel.masked(branch, mask, self.scores)[0, 0]

        def tiles(number: int) -> range:
            return range(starts[number], starts[number + 1], size)

        def rows_of(number: int, start: int) -> slice:
            return slice(start, min(start + size, starts[number + 1]))

        if trains:
            outputs = [attend(n, rows_of(n, t)) for n in range(len(counts)) for t in tiles(n)]
            return torch.cat(outputs) if outputs else chosen.new_zeros(0, value.shape[3])
        out = chosen.new_empty(len(chosen), value.shape[3])
        for number in identical_iterations(range(len(counts))):
            for start in identical_iterations(tiles(number)):
                rows = rows_of(number, start)
                out[rows] = attend(number, rows)
        return out


def normed_heads(parts: "LayerParts", raw: Tensor, factor: Tensor | None) -> Tensor:
    """Queries [B, H, S, K] of projections [B, S, H, K]: normed and scaled as the family's are."""
    normed = raw if parts.q_norm is None else parts.q_norm(raw)
    return scaled(normed.transpose(1, 2), factor)


def chosen_heads(raw: Tensor, active: int, shared: int) -> Tensor:
    """Of queries [B, S, H, K], the heads beside the shared ones that each token uses, from 0."""
    dtype = torch.float64 if raw.dtype == torch.float64 else torch.float32
    norms = torch.linalg.vector_norm(raw[:, :, shared:], dim=-1, dtype=dtype)
    return norms.topk(active - shared, -1).indices


def of_heads(x: Tensor, query: Tensor, count: int) -> Tensor:
    """Keys or values [B, G, n, K] of the first ``count`` query heads, repeated only if needed."""
    repeats = query.shape[1] // x.shape[1]
    if count % repeats == 0:
        return x[:, : count // repeats]
    return x.repeat_interleave(repeats, 1)[:, :count]


class MoHDecode(nn.Module):
    """One token over S-Attn's cache of rotated keys, by the heads that it uses."""

    keys: Tensor
    values: Tensor

    def __init__(self, system: "MoH", parts: "LayerParts", context: Context, place: Place) -> None:
        super().__init__()
        self.layer, self.parts, self.kernel = parts.layer, parts, context.kernel
        self.active, self.shared = system.heads(parts)
        self.tables = context.rope(place.index, "next")
        self.factor = context.query_factor(place.index, "next")
        self.scores = Scores(parts.scale, parts.softcap, causal=False)
        if parts.takes_keys:
            return
        cached, hidden = (count(place, parts.window) for count in (system.cached, system.hidden))
        self.hidden = hidden.visual + hidden.text
        for name in ("keys", "values"):
            cache = context.cache(parts, cached.visual + cached.text, name)
            self.register_buffer(name, cache, persistent=False)

    def forward(self, token: Tensor, more: RowInputs = NOTHING) -> tuple[Tensor]:
        """[B, 1, D] -> [B, 1, D]."""
        parts, x = self.parts, self.parts.input_norm(token)
        raw = parts.project_queries(x).unflatten(-1, (parts.num_heads, parts.head_dim))
        query = normed_heads(parts, raw, self.factor)
        entries = None if "sequence" in more.taken else parts.entries(x)
        with region("attention"):
            query = parts.rope(query, *self.tables)
            if entries is not None:
                entries = parts.rotate(entries, *self.tables)
                entries = joined((self.keys, self.values), entries, self.hidden)
        key, value = more.keys_of("sequence", parts, entries)
        with region("attention"):
            shared = self.shared
            heads = []
            if shared:
                k, v = (of_heads(y, query, shared) for y in (key, value))
                heads.append(self.kernel.own(Branch(query[:, :shared], k, v), self.scores))
            if shared < parts.num_heads:
                heads.append(self._routed(raw, query[:, shared:], key, value))
            attended = heads[0] if len(heads) == 1 else torch.cat(heads, 1)
        own = more.own.get("sequence")
        return (parts.finish(token, parts.output(attended), x, own),)

    def _routed(self, raw: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The other heads: keys and values of those that are on are gathered by sample."""
        on = chosen_heads(raw, self.active, self.shared)[:, 0]  # [B, active - shared]
        groups = (on + self.shared) // (self.parts.num_heads // key.shape[1])

        def taken(x: Tensor, heads: Tensor) -> Tensor:
            """The chosen heads [B, c] of [B, heads, n, K]: [B, c, n, K]."""
            return x.gather(1, heads[:, :, None, None].expand(-1, -1, *x.shape[2:]))

        branch = Branch(taken(query, on), taken(key, groups), taken(value, groups))
        out = self.kernel.own(branch, self.scores)
        whole = out.new_zeros(*query.shape[:3], out.shape[3])
        return whole.scatter(1, on[:, :, None, None].expand_as(out), out)


class MoH(SAttn):
    name = "moh"
    lacks = ""
    keeps_cache = False

    def heads(self, parts: "LayerParts") -> tuple[int, int]:
        """Heads that a token uses, and those of them that every token uses."""
        counts = []
        for name in ("active", "shared"):
            count = self.share(name) * parts.num_heads
            if count.denominator != 1:
                raise Unsupported(
                    f"{self.name}: {name}={self.settings[name]} of the {parts.num_heads} heads of "
                    f"{parts.attention.config.model_type} is {float(count):g}, no whole number"
                )
            counts.append(int(count))
        return counts[0], counts[1]

    def check(self, cell: Cell) -> None:
        faults = Faults()
        with faults:
            super().check(cell)
        active, shared = self.share("active"), self.share("shared")
        if shared > active or not active:
            faults.add(
                f"{self.name}: shared={self.settings['shared']} of active="
                f"{self.settings['active']}: heads that all tokens use are among those that are on"
            )
        if cell.compile:
            faults.add(
                f"compile: how many rows a head of {self.name} has is data, a host's wait a layer"
            )
        faults.raise_all()

    def refuse(self, parts: "LayerParts", place: Place, window_bites: bool) -> None:
        self.heads(parts)

    def layer(self, parts: "LayerParts", context: Context, place: Place) -> nn.Module:
        decode = context.cell.pass_ == "decode"
        if self.share("active") == 1:  # All of S-Attn, and nothing is chosen.
            step = Taking if parts.takes_keys else SAttnDecode
            return (step if decode else SAttnLayer)(parts, context, place)
        if not context.kernel.takes_rows:
            raise Unsupported(
                f"{self.name} gathers rows that do not follow each other, which kernel "
                f"{context.kernel.name!r} does not take; use eager or sdpa"
            )
        if decode:
            return MoHDecode(self, parts, context, place)
        if tracing(context.device):
            context.flag("moh: which heads a token uses is data; heads have even shares of rows")
        return MoHLayer(self, parts, context, place)

    def per_pair(self, parts: "LayerParts", place: Place) -> int:
        return 2 * self.heads(parts)[0] * (parts.head_dim + parts.value_dim)

    def skipped_share(self, kernel: Kernel, place: Place, window: int | None) -> Fraction:
        # Routed heads compute all pairs under a mask; only shared ones are the kernel's own call.
        share = super().skipped_share(kernel, place, window)
        active = self.share("active")
        return share if active == 1 else share * self.share("shared") / active


SYSTEMS.add("moh", MoH())
