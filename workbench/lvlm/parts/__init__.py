"""LayerParts: one view of any family's decoder layer, so that a system is written once for all.

Shapes: B batch, S tokens, D hidden size, H query heads, G key/value heads, K head size.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.lvlm.parts.chunked import Tiled
from workbench.lvlm.parts.experts import Experts
from workbench.lvlm.parts.pairless import Linear, ShortConv

Rope = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class LayerParts:
    """The pieces of one decoder layer. Modules are the layer's own: nothing is copied."""

    layer: nn.Module
    attention: Any
    input_norm: nn.Module
    post_attention_norm: nn.Module | None
    """Applied to the attention output after W_o (Gemma); None where the family has none."""
    mlp_norm: nn.Module
    mlp: nn.Module
    post_mlp_norm: nn.Module | None
    q_norm: nn.Module | None
    k_norm: nn.Module | None
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    softcap: float | None
    window: int | None
    rope: Rope
    """(x [B, heads, S, K], cos, sin [B, S, K]) -> x rotated."""
    role: str = ""
    """The attention system's word for what it does in this layer."""
    experts: Experts | None = None
    """None where the MLP is one."""
    v_norm: nn.Module | None = None
    out_scale: Tensor | None = None
    """What the whole layer's output is multiplied by, [1]; None where it is left as it is."""

    alone: Mapping[str, Any] = field(default_factory=dict)
    """What its attention is given, beside what the layer is, where it is called by itself."""

    gated: bool = False
    """Whether ``q_proj`` gives a gate beside each head's query, by whose sigmoid the attention's
    output is multiplied before W_o."""
    linear: Linear | ShortConv | None = None
    """None where the layer has queries that meet keys; else there are no such pairs in it."""
    parallel: bool = False
    """Whether the MLP reads the very rows that the attention reads, normed once, and both are
    added to the residual (Cohere). ``mlp_norm`` then is ``input_norm``."""
    own_input: Callable[[Tensor, Tensor], Tensor] | None = None
    """(rows behind the MLP [B, S, D], their embeddings for this layer alone [B, S, P]) -> the rows
    with what these add; None where ids have no such embeddings."""
    own_input_elements: int = 0
    """Elements of the matrices in it that one token is multiplied with."""
    gives_keys: bool = False
    """Whether later layers attend with its keys and values."""
    norms_turned: bool = False
    """Whether queries and keys are normed once they are rotated (HunYuan): a system then takes
    them by ``turn_query`` and ``turn_key``, or by ``unturned_query`` and ``unturned_key``."""
    takes_keys: bool = False
    """Whether it has none, and attends with those of an earlier layer."""

    @property
    def value_dim(self) -> int:
        """Width of a head of values."""
        return self.head_dim

    @property
    def kv_projections(self) -> int:
        """Projections that make keys and values: one where the values are the keys' own, none
        where the layer takes another's.
        """
        if not hasattr(self.attention, "k_proj"):
            return 0
        return 1 if self.attention.v_proj is None else 2

    @property
    def query_elements(self) -> int:
        """Elements of the matrices of which a row's queries are made."""
        return self.hidden_size * self.num_heads * self.head_dim

    @property
    def key_elements(self) -> int:
        """Of those that ``key`` multiplies with."""
        return self.hidden_size * self.num_kv_heads * self.head_dim

    @property
    def key_value_elements(self) -> int:
        """Of those of which a row's keys and values are made."""
        return self.kv_projections * self.key_elements

    @property
    def expansion_elements(self) -> int:
        """Of those among them that a cached row meets again at every decode step."""
        return 0

    @property
    def output_elements(self) -> int:
        """Of W_o, and of what makes a gate where there is one."""
        wide = self.num_heads * self.value_dim
        return (1 + self.gated) * wide * self.hidden_size

    @property
    def key_value_modules(self) -> tuple[nn.Module, ...]:
        """The modules that ``key_value`` calls."""
        own = (self.attention.k_proj, self.attention.v_proj, self.k_norm, self.v_norm)
        return tuple(module for module in own if module is not None)

    @property
    def entry_shapes(self) -> dict[str, tuple[int, int]]:
        """What a cache has of a token: heads and width of its ``keys`` and of its ``values``."""
        heads = self.num_kv_heads
        return {"keys": (heads, self.head_dim), "values": (heads, self.value_dim)}

    @property
    def mlp_elements(self) -> int:
        """Elements of the MLP's matrices that one token is multiplied with, its router's too."""
        matrices = sum(w.numel() for w in self.mlp.parameters() if w.ndim > 1)
        every = self.experts is not None and self.experts.every
        return matrices if every else matrices - self.idle_parameters

    @property
    def idle_parameters(self) -> int:
        """Parameters of the experts that one token does not meet."""
        if self.experts is None:
            return 0
        # Each expert's matrices are a slice of a three-dimensional one.
        stacked = sum(w.numel() for w in self.mlp.parameters() if w.ndim == 3)
        return stacked // self.experts.total * (self.experts.total - self.experts.active)

    def query(self, x_bsd: Tensor, factor: Tensor | None = None) -> Tensor:
        """Un-rotated queries [B, H, S, K], QK-norm applied where the family has one before RoPE.

        ``factor`` is that of their positions (``Context.query_factor``), as [S, 1] or
        [B, 1, S, 1]; None where the family has none.
        """
        return self.query_and_gate(x_bsd, factor)[0]

    def query_and_gate(
        self, x_bsd: Tensor, factor: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The same beside the gates [B, S, H·K]; None where the family has none."""
        x_bsx, gate = self.project_queries(x_bsd), None
        if self.gated:
            x_bsx, gate = x_bsx.unflatten(-1, (self.num_heads, -1)).chunk(2, -1)
            x_bsx, gate = x_bsx.flatten(2), gate.flatten(2)
        norm = None if self.norms_turned else self.q_norm
        return scaled(self._heads(x_bsx, self.num_heads, norm), factor), gate

    def project_queries(self, x_bsd: Tensor) -> Tensor:
        """What the layer makes queries of: [B, S, H·K], beside each head's its gate if any."""
        projected: Tensor = self.attention.q_proj(x_bsd)
        return projected

    def gate(self, x_bsd: Tensor) -> Tensor | None:
        """The gates [B, S, H·K] of rows whose queries nobody needs; None without gates."""
        if not self.gated:
            return None
        projection = self.attention.q_proj
        if not isinstance(projection, nn.Linear):  # Packed, or with an adapter beside it.
            return self.query_and_gate(x_bsd)[1]
        half = (self.num_heads, 2, self.head_dim)
        weight = projection.weight.unflatten(0, half)[:, 1].flatten(0, 1)
        bias = None if projection.bias is None else projection.bias.view(half)[:, 1].flatten()
        return F.linear(x_bsd, weight, bias)

    def key(self, x_bsd: Tensor) -> Tensor:
        """Un-rotated keys [B, G, S, K], normed as queries are."""
        norm = None if self.norms_turned else self.k_norm
        return self._heads(self.attention.k_proj(x_bsd), self.num_kv_heads, norm)

    def turn_query(self, q_bhsk: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Queries of ``query`` as they meet rotated keys: with RoPE, and QK-norm where it comes
        after.
        """
        return self.unturned_query(self.rope(q_bhsk, cos, sin))

    def turn_key(self, k_bgsk: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Keys of ``key`` as rotated queries meet them."""
        return self.unturned_key(self.rope(k_bgsk, cos, sin))

    def unturned_query(self, q_bhsk: Tensor) -> Tensor:
        """Queries of ``query`` as they meet un-rotated keys: the same norm without the RoPE."""
        return self.q_norm(q_bhsk) if self.norms_turned and self.q_norm is not None else q_bhsk

    def unturned_key(self, k_bgsk: Tensor) -> Tensor:
        """Keys of ``key`` as un-rotated queries meet them."""
        return self.k_norm(k_bgsk) if self.norms_turned and self.k_norm is not None else k_bgsk

    def value(self, x_bsd: Tensor) -> Tensor:
        """Values [B, G, S, K]."""
        project = self.attention.v_proj or self.attention.k_proj
        return self._heads(project(x_bsd), self.num_kv_heads, self.v_norm)

    def key_value(self, x_bsd: Tensor) -> tuple[Tensor, Tensor]:
        """Un-rotated keys and values [B, G, S, K], of one projection where they share it."""
        if self.kv_projections == 2:
            return self.key(x_bsd), self.value(x_bsd)
        x_bsx = self.attention.k_proj(x_bsd)
        assert not self.norms_turned, "of no family whose values are its keys"
        key = self._heads(x_bsx, self.num_kv_heads, self.k_norm)
        return key, self._heads(x_bsx, self.num_kv_heads, self.v_norm)

    def entries(self, x_bsd: Tensor) -> tuple[Tensor, Tensor]:
        """What a cache holds of rows, un-rotated, as ``entry_shapes``: keys and values."""
        return self.key_value(x_bsd)

    def rotate(
        self, entries: tuple[Tensor, Tensor], cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The same, rotated."""
        return self.turn_key(entries[0], cos, sin), entries[1]

    def expand(self, entries: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Keys and values [B, G, n, K] of what a cache holds, rotated where that is."""
        return entries

    @property
    def w_o(self) -> Any:
        """W_o, the attention's output projection."""
        return getattr(self.attention, "o_proj", None) or self.attention.out_proj

    def output(self, a_bhsk: Tensor, gate_bsx: Tensor | None = None) -> Tensor:
        """W_o over concatenated heads, gated where there is a gate: [B, H, S, K] -> [B, S, D]."""
        return self._project(a_bhsk.transpose(1, 2).flatten(2), gate_bsx)

    def _project(self, a_bsx: Tensor, gate_bsx: Tensor | None) -> Tensor:
        assert (gate_bsx is not None) == self.gated, "a family's own gate"
        if gate_bsx is not None:
            a_bsx = a_bsx * torch.sigmoid(gate_bsx)
        return self.w_o(a_bsx)

    def project_diagonal(
        self, v_bsgk: Tensor, fold: bool, gate_bsx: Tensor | None = None
    ) -> Tensor:
        """``W_o · repeat_kv(v)``, D-Attn's V2V (eq. 2): [B, S, G, K] -> [B, S, D].

        ``fold`` sums W_o over the query heads of each group first: exact up to rounding, and
        H/G times fewer FLOPs for W_o. A gate, which differs by query head, leaves nothing to sum.
        """
        o_proj, repeats = self.w_o, self.num_heads // self.num_kv_heads
        if gate_bsx is not None:
            repeated = v_bsgk.unsqueeze(3).expand(-1, -1, -1, repeats, -1).flatten(2)
            return self._project(repeated, gate_bsx)
        if repeats == 1:
            return o_proj(v_bsgk.flatten(2))
        if fold:
            w_dgrk = o_proj.weight.unflatten(1, (self.num_kv_heads, repeats, self.head_dim))
            return F.linear(v_bsgk.flatten(2), w_dgrk.sum(2).flatten(1), o_proj.bias)
        return o_proj(v_bsgk.unsqueeze(3).expand(-1, -1, -1, repeats, -1).flatten(2))

    def finish(
        self,
        residual: Tensor,
        attention_out: Tensor,
        normed: Tensor | None = None,
        own: Tensor | None = None,
    ) -> Tensor:
        """Residual, norms and MLP after the attention output: [B, S, D] each.

        ``normed`` are the rows that the attention read, which the MLP of a parallel layer reads;
        ``own`` [B, S, P] the embeddings that they have for this layer alone, where ids have such.
        """
        if self.post_attention_norm is not None:
            attention_out = self.post_attention_norm(attention_out)
        hidden = residual + attention_out
        if self.parallel:
            assert normed is not None, "the MLP of a parallel layer reads them"
            return self.scaled(hidden + self.mlp(normed))
        hidden = hidden + self.feed(self.mlp, hidden)
        if self.own_input is not None:
            assert own is not None, "each row has an embedding for each layer"
            hidden = self.own_input(hidden, own)
        return self.scaled(hidden)

    def shared(self, normed: Tensor) -> Tensor | None:
        """Rows that the attention read, where the MLP reads them too; None where it has a norm."""
        return normed if self.parallel else None

    def feed(self, mlp: nn.Module, hidden: Tensor) -> Tensor:
        """The MLP of normed rows, itself or in tiles, and the norm after it: [B, S, D] each."""
        assert not self.parallel, "refused where attention and MLP stand side by side"
        mlp_out = self.run_mlp(mlp, self.mlp_norm(hidden))
        return mlp_out if self.post_mlp_norm is None else self.post_mlp_norm(mlp_out)

    def run_mlp(self, mlp: nn.Module, normed: Tensor) -> Tensor:
        """The MLP, itself or in tiles, of rows that its norm has normed: [B, S, D] each."""
        rows: Tensor = mlp(normed)
        return rows

    def visual_rows(self) -> "LayerParts":
        """The same parts for a stream of visual rows alone; others where these meet an MLP of
        their own.
        """
        return self

    def scaled(self, out: Tensor) -> Tensor:
        """The layer's output as it leaves it."""
        return out if self.out_scale is None else out * self.out_scale

    def tile(self, tile: int) -> None:
        """Have the layer's own MLP run in tiles of so many tokens."""
        if isinstance(self.mlp, OwnTiles):
            self.mlp.tile(tile)
        else:
            children = dict(self.layer.named_children())
            name = next(name for name, module in children.items() if module is self.mlp)
            setattr(self.layer, name, Tiled(self.mlp, tile))

    def _heads(self, x_bsx: Tensor, heads: int, norm: nn.Module | None) -> Tensor:
        x_bshk = x_bsx.unflatten(-1, (heads, self.head_dim))
        if norm is not None:
            x_bshk = norm(x_bshk)
        return x_bshk.transpose(1, 2)


def scaled(query_bhsk: Tensor, factor: Tensor | None) -> Tensor:
    """Queries times the factor of their positions; as they are where there is none."""
    return query_bhsk if factor is None else query_bhsk * factor


class OwnTiles(nn.Module):
    """An MLP that the real layer runs as several modules, which are put in tiles one by one."""

    def tile(self, tile: int) -> None:
        """Have these modules run in tiles of so many tokens."""
        raise NotImplementedError
