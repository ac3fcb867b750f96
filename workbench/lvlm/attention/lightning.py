"""Lightning attention (arXiv 2405.17381; MiniMax-01, 2501.08313): linear in most layers.

Layer i of L is plain S-Attn where (i + 1) mod ``every`` is 0. In the others q, k and v of all H
heads are silu(x·W); no RoPE, no scale, no softmax; head h, from 0, decays by s = 2^(-8(h+1)/H) ·
(1 - i/(L - 1 + 1e-5) + 1e-5) a token:

    o_t = Σ_{j ≤ t} exp(-s(t-j)) (q_t·k_j) v_j        out = W_o( sigmoid(x·W_g) · RMSNorm(o) )

Inside a block of ``block`` tokens this is a masked matmul; between blocks a state of K × K a head
carries all that came before. O(V), and O(V²) in every ``every``-th layer; a decode step reads the
state, whatever |V|. New projections and a norm stand in place of the layer's own. Gives up: exact
recall beyond the state; needs training.

On a GPU where flash-linear-attention is installed the sum is its fused ``chunk_simple_gla``;
elsewhere, and in every prediction, the plain form. A record's ``details.forms`` says which ran.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.attention.costs import Cached, Pairs, token_flops
from workbench.lvlm.attention.s_attn import SAttn
from workbench.lvlm.context import Context
from workbench.lvlm.kernels.modelled import tracing
from workbench.lvlm.layout import word_of
from workbench.lvlm.parts.loops import identical_iterations
from workbench.lvlm.parts.marks import region, unmasked
from workbench.lvlm.place import Place
from workbench.lvlm.weights.random import randomise
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import Unsupported

if TYPE_CHECKING:
    from workbench.lvlm.kernels import Kernel
    from workbench.lvlm.parts import LayerParts

LINEAR, PLAIN = "lightning", "plain"


FUSED = "flash-linear-attention's chunk_simple_gla"
"""The fused form: FLOPs of a record are those of the plain one, whatever its own block is."""


def fused_sum(context: Context) -> Callable[..., Any] | None:
    """The fused form of the sum, where there is one; says which form runs."""
    if tracing(context.device):
        return None
    if context.device.type != "cuda":
        reason = f"{FUSED} needs a CUDA device"
    elif context.dtype == torch.float64:
        reason = f"{FUSED} does not take float64"
    elif find_spec("fla") is None:
        reason = "flash-linear-attention is not installed"
    else:
        from fla.ops.simple_gla import chunk_simple_gla

        context.forms["lightning"] = FUSED
        context.flag(f"lightning: ran as {FUSED}; FLOPs are counted of the plain form's blocks")
        return chunk_simple_gla
    context.forms["lightning"] = f"plain blocks of torch's matmuls: {reason}"
    return None


def decay_rates(heads: int, index: int, layers: int) -> list[float]:
    """s of each head in the layer of that index."""
    share = 1 - index / (layers - 1 + 1e-5) + 1e-5
    return [2 ** (-8 * (head + 1) / heads) * share for head in range(heads)]


class LightningAttention(nn.Module):
    """Projections in place of a layer's own, and both forms of the sum: blocks, and one step."""

    state: Tensor
    log_decay: Tensor
    fused: Callable[..., Any] | None = None

    def __init__(self, parts: "LayerParts", context: Context, place: Place, block: int) -> None:
        super().__init__()
        config, old = context.model.config, parts.attention
        self.heads, self.size, self.block = parts.num_heads, parts.head_dim, block
        wide = self.heads * self.size

        def linear(source: int, target: int, bias: bool) -> nn.Linear:
            layer = context.create(lambda: nn.Linear(source, target, bias=bias))
            randomise(layer)
            return layer

        for name in ("q_proj", "k_proj", "v_proj"):
            bias = getattr(old, name).bias is not None
            setattr(old, name, linear(parts.hidden_size, wide, bias))
        if hasattr(old, "qkv_proj"):  # What the three have been rows of.
            del old.qkv_proj
        old.g_proj = linear(parts.hidden_size, wide, False)
        old.o_proj = linear(wide, parts.hidden_size, old.o_proj.bias is not None)
        eps = getattr(config, "rms_norm_eps", None) or config.layer_norm_eps
        old.out_norm = context.create(lambda: nn.RMSNorm(wide, eps=eps))
        randomise(old.out_norm)
        self.own: Any = old
        self.rates = decay_rates(self.heads, place.index, config.num_hidden_layers)
        if context.cell.pass_ == "decode":
            shape = (context.cell.batch, self.heads, self.size, self.size)
            self.register_buffer("state", context.random(shape), persistent=False)
            return
        self.fused = fused_sum(context)
        if self.fused is not None:
            log_decay = -torch.tensor(self.rates, dtype=torch.float32, device=context.device)
            self.register_buffer("log_decay", log_decay, persistent=False)
            return
        blocks, rest = divmod(place.layout.length, block)
        for length in [block] * (blocks > 0) + [rest] * (rest > 0):
            for name, table in decays(self.rates, length).items():
                values = table.to(context.device, context.dtype)
                self.register_buffer(f"{name}_{length}", values, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, S, D] -> [B, S, D]; one token against the state in a decode step."""
        q, k, v = (
            self._by_head(F.silu(getattr(self.own, name)(x)))
            for name in ("q_proj", "k_proj", "v_proj")
        )
        with region("attention"):
            attended = self.step(q, k, v) if hasattr(self, "state") else self.blocks(q, k, v)
        with region("norms"):
            attended = self.own.out_norm(attended.transpose(1, 2).flatten(2))
        with region("projections"):
            gate = torch.sigmoid(self.own.g_proj(x))
        return self.own.o_proj(gate * attended)

    def _by_head(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, self.size)).transpose(1, 2)

    def step(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """One token, [B, H, 1, K] each: the state decays, takes it in and is read."""
        ratio = self._ratio(q, 1).to(q.dtype)
        with unmasked():
            state = ratio * self.state + torch.matmul(k.transpose(2, 3), v)
            return torch.matmul(q, state)

    def blocks(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """All tokens, [B, H, S, K] each: blocks of one length at once, then the shorter last."""
        if self.fused is not None:
            # It takes and gives [B, S, H, K], and the logarithm of each head's decay a token.
            rows = [x.transpose(1, 2) for x in (q, k, v)]
            out, _ = self.fused(*rows, g_gamma=self.log_decay, scale=1.0)
            return out.transpose(1, 2)
        whole = q.shape[2] // self.block * self.block
        outputs: list[Tensor] = []
        state = None
        if whole:
            grouped = [x[:, :, :whole].unflatten(2, (-1, self.block)) for x in (q, k, v)]
            out, state = self._equal(grouped, state)
            outputs.append(out.flatten(2, 3))
        if whole < q.shape[2]:
            last = [x[:, :, whole:].unsqueeze(2) for x in (q, k, v)]
            out, _ = self._equal(last, state)
            outputs.append(out.flatten(2, 3))
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, 2)

    def _equal(self, qkv: list[Tensor], carried: Tensor | None) -> tuple[Tensor, Tensor]:
        """Blocks [B, H, n, b, K] after a state [B, H, K, K] -> output, and the state then."""
        q, k, v = qkv
        length = q.shape[3]
        inside, reading, writing = (
            getattr(self, f"{name}_{length}") for name in ("inside", "reading", "writing")
        )
        scores = torch.matmul(q, k.transpose(3, 4)) * inside
        out = torch.matmul(scores, v)
        with unmasked():
            sums = torch.matmul((k * writing).transpose(3, 4), v)
            before, after = _Scan.apply(sums, carried, self._ratio(q, length))
            return out + torch.matmul(q * reading, before), after

    def _ratio(self, like: Tensor, length: int) -> Tensor:
        """What is left of a state after so many tokens: [H, 1, 1]."""
        dtype = like.dtype if like.dtype == torch.float64 else torch.float32
        rates = torch.tensor(self.rates, device=like.device, dtype=dtype)
        return torch.exp(-rates * length)[:, None, None]


class _Scan(torch.autograd.Function):
    """States from what each block adds: Z of the next block is ``ratio`` times Z, plus that."""

    @staticmethod
    def forward(
        ctx: Any, added: Tensor, carried: Tensor | None, ratio: Tensor
    ) -> tuple[Tensor, Tensor]:
        """[B, H, n, K, K], [B, H, K, K] -> the state before each block, and after the last."""
        ctx.save_for_backward(ratio)
        ctx.carried = carried is not None
        state = added.new_zeros((), dtype=ratio.dtype) if carried is None else carried
        state = state.expand(*added.shape[:2], *added.shape[3:])
        states = torch.empty_like(added)
        for block in identical_iterations(range(added.shape[2])):
            states[:, :, block] = state
            state = ratio * state + added[:, :, block]
        return states, state

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None]:
        of_states, grad = grads
        (ratio,) = ctx.saved_tensors
        gradients = torch.empty_like(of_states)
        for step in identical_iterations(range(of_states.shape[2])):
            block = of_states.shape[2] - 1 - step
            gradients[:, :, block] = grad
            grad = ratio * grad + of_states[:, :, block]
        return gradients, grad if ctx.carried else None, None


def decays(of_heads: list[float], length: int) -> dict[str, Tensor]:
    """Constants of blocks of that length, broadcast over [B, H, n, b, …]."""
    rates = torch.tensor(of_heads, dtype=torch.float64)
    at = torch.arange(length, dtype=torch.float64)
    apart = at[:, None] - at[None, :]
    inside = torch.exp(-rates[:, None, None] * apart.clamp_min(0)) * (apart >= 0)
    return {
        "inside": inside[:, None],
        "reading": torch.exp(-rates[:, None] * (at + 1))[:, None, :, None],
        "writing": torch.exp(-rates[:, None] * (length - 1 - at))[:, None, :, None],
    }


class LightningLayer(nn.Module):
    """Norm, lightning attention, residual, MLP: [B, S, D] -> [B, S, D]."""

    def __init__(self, parts: "LayerParts", context: Context, place: Place, block: int) -> None:
        super().__init__()
        self.attention = LightningAttention(parts, context, place, block)
        self.layer = parts.layer
        self.parts = context.in_tiles(parts)
        if context.checkpoint() is not None:
            context.flag("weights: random in the attention of lightning layers")

    def forward(self, sequence: Tensor) -> tuple[Tensor]:
        x = self.parts.input_norm(sequence)
        attended, normed = self.attention(x), self.parts.shared(x)
        del x  # As soon as nobody reads it.
        return (self.parts.finish(sequence, attended, normed),)


class Lightning(SAttn):
    name = "lightning"
    lacks = "its linear layers have no keys and values that later ones could take"
    projections = "the projections in place of a layer's own"
    keeps_cache = False

    @property
    def block(self) -> int:
        return int(self.settings["block"])

    def role(self, index: int) -> str:
        return PLAIN if (index + 1) % int(self.settings["every"]) == 0 else LINEAR

    def refuse(self, parts: "LayerParts", place: Place, window_bites: bool) -> None:
        if place.role == PLAIN:
            return
        family = parts.attention.config.model_type
        reasons = {
            f"soft-capping of scores, which {family} needs": parts.softcap is not None,
            f"normed queries and keys, which {family} has": parts.q_norm is not None,
            f"{word_of(parts.window)}, which {family} has ({parts.window} tokens)": window_bites,
        }
        for reason, refused in reasons.items():
            if refused:
                raise Unsupported(f"lightning has no scores and so no {reason}")

    def layer(self, parts: "LayerParts", context: Context, place: Place) -> nn.Module:
        if place.role == PLAIN:
            return super().layer(parts, context, place)
        return LightningLayer(parts, context, place, self.block)

    def pairs(self, place: Place, window: int | None) -> Pairs:
        if place.role == PLAIN:
            return super().pairs(place, window)
        blocks, rest = divmod(place.layout.length, self.block)
        lengths = ((self.block, blocks), (rest, 1))
        dense = sum(count * n * n for n, count in lengths)
        return Pairs(dense, sum(count * n * (n + 1) // 2 for n, count in lengths))

    def window_bites(self, place: Place, window: int | None) -> bool:
        if place.role == PLAIN:
            return super().window_bites(place, window)
        return window is not None and window < place.layout.length

    def skips(self, kernel: "Kernel", place: Place, window: int | None) -> bool:
        return place.role == PLAIN and super().skips(kernel, place, window)

    def linear_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        if place.role == PLAIN:
            return super().linear_flops(parts, place, cell)
        return cell.batch * place.layout.length * self._token(parts)

    def token_flops(self, parts: "LayerParts", place: Place, cached: Cached) -> int:
        return token_flops(parts) if place.role == PLAIN else self._token(parts)

    def _token(self, parts: "LayerParts") -> int:
        """Of q, k, v, gate, W_o and MLP, and of writing and reading the state."""
        wide = parts.num_heads * parts.head_dim
        others = token_flops(parts, q=False, kv=False)
        return others + 8 * parts.hidden_size * wide + 4 * wide * parts.head_dim

    def weightless_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> tuple[int, int]:
        if place.role == PLAIN:
            return super().weightless_flops(parts, place, cell)
        states = 4 * parts.num_heads * parts.head_dim**2 * cell.batch * place.layout.length
        return states, 2 * states

    def extra_parameters(self, parts: "LayerParts", place: Place) -> int:
        if place.role == PLAIN:
            return 0
        wide, narrow = (n * parts.head_dim for n in (parts.num_heads, parts.num_kv_heads))
        more = 2 * parts.hidden_size * (wide - narrow) + parts.hidden_size * wide + wide
        return more + (2 * (wide - narrow) if parts.attention.k_proj.bias is not None else 0)

    def decode_pairs(self, place: Place, cached: Cached) -> int:
        return super().decode_pairs(place, cached) if place.role == PLAIN else 0

    def cache_elements(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        if place.role == PLAIN:
            return super().cache_elements(parts, place, cell)
        return cell.batch * parts.num_heads * parts.head_dim**2


SYSTEMS.add("lightning", Lightning())
