"""Gemma 3n: four streams of hidden states, an embedding of each id for every layer, shared keys.

Between layers a token has four hidden states (AltUp, arXiv 2301.13310): a layer predicts all of
them, runs attention and MLP on one, and corrects the others by it, with coefficients of the
token's own. A low-rank path stands beside the attention (LAuReL, arXiv 2411.07501), and behind
the MLP comes an embedding that each id has for that layer alone; visual rows have that of id 0,
as transformers gives them. In the first layers all but about a twentieth of the MLP's gates are
cut to zero; the matmuls are dense all the same. Four local layers come to one global. The last
layers have queries alone: they attend with keys and values of the last local or global layer
before them, and nothing of them is cached.
"""

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.lvlm.models import FAMILIES, MODELS, Family, Model
from workbench.lvlm.models.around import PerLayerEmbeddings
from workbench.lvlm.optimizers.settings import GEMMA
from workbench.lvlm.parts.forms import gemma_like
from workbench.lvlm.parts.marks import run_unmasked, unmasked
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

FLOOR = 1e-5
"""The least mean square by which transformers divides a stream (Gemma3nTextModel.forward)."""


class Gemma3n(Family):
    """Streams of hidden states around real layers, which differ in more than their modules."""

    altup = True
    text_prefix = r"model\.language_model\."

    def check(self, name: str, config: Any) -> None:
        width = config.hidden_size_per_layer_input
        if width < 1:
            raise RequestError(
                f"model {name!r}: hidden_size_per_layer_input {width}: a whole number from 1"
            )
        shared, count = config.num_kv_shared_layers, config.num_hidden_layers
        if not 0 <= shared < count:
            raise RequestError(
                f"model {name!r}: num_kv_shared_layers {shared}: layers that share keys and "
                f"values, 0 to {count - 1}"
            )

    def plain_only(self, config: "PreTrainedConfig") -> str:
        return (
            "mixes several hidden states of a token around its attention (AltUp), and its last "
            "layers attend with keys and values of others"
        )

    def per_layer(self, config: "PreTrainedConfig") -> bool:
        return True

    def layer(self, config: "PreTrainedConfig", index: int) -> nn.Module:
        layer: nn.Module = self.from_transformers("Gemma3nTextDecoderLayer")(config, index)
        return layer

    def variant(self, config: Any, index: int) -> Hashable:
        """How many gates of the MLP are cut, and whether keys and values are kept or taken."""
        return config.activation_sparsity_pattern[index], config.kv_sharing_modes[index]

    def settle(self, layer: Any, device: torch.device, dtype: torch.dtype) -> None:
        """The scale of AltUp's router; its batched matmul is no query-key pairs, and says so."""
        altup = layer.altup
        scale = layer.hidden_size**-1.0
        altup.router_input_scale = torch.tensor(scale, device=device, dtype=dtype)
        run_unmasked(altup, "predict")

    def cos_sin(
        self, rotary: nn.Module, like: Tensor, positions: Tensor, layer_type: str
    ) -> tuple[Tensor, Tensor]:
        return rotary(like, positions.unsqueeze(0), layer_type)

    def around(self, config: "PreTrainedConfig") -> PerLayerEmbeddings:
        return Streams(self, config)


class Streams(PerLayerEmbeddings):
    """The streams too: A streams, B batch, S tokens, D hidden size."""

    def __init__(self, family: Family, config: Any) -> None:
        super().__init__(family, config, "Gemma3n")
        width, others = config.hidden_size, range(1, config.altup_num_inputs)
        self.altup_projections = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in others)
        self.altup_unembed_projections = nn.ModuleList(
            nn.Linear(width, width, bias=False) for _ in others
        )
        for name in ("per_layer_projection_scale", "per_layer_input_scale"):
            self.register_buffer(name, torch.empty(()), persistent=False)

    def settle(self, device: torch.device, dtype: torch.dtype) -> None:
        super().settle(device, dtype)
        for name, value in (
            ("per_layer_projection_scale", self.config.hidden_size**-0.5),
            ("per_layer_input_scale", 2**-0.5),
        ):
            setattr(self, name, torch.tensor(value, device=device, dtype=dtype))

    def enter(self, sequence: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings [B, S, D] and ids [B, S] -> embeddings for layers [B, S, L, P], streams
        [A, B, S, D].
        """
        per_layer, _ = super().enter(sequence, ids)
        size = torch.mean(sequence**2, dim=-1, keepdim=True) ** 0.5
        streams = [sequence]
        for projection in self.altup_projections:
            streams.append(_sized(projection(sequence), size))
        return per_layer, torch.stack(streams, dim=0)

    def leave(self, streams: Tensor) -> Tensor:
        """Streams [A, B, n, D] -> [B, n, D], before the final norm."""
        size = torch.mean(streams[0] ** 2, dim=-1, keepdim=True) ** 0.5
        rows = [streams[0]]
        for number, projection in enumerate(self.altup_unembed_projections, 1):
            with unmasked():  # A batched product where one sample's strides are another's.
                projected = projection(streams[number])
            rows.append(_sized(projected, size))
        return torch.mean(torch.stack(rows), dim=0)

    def enter_flops(self) -> int:
        return super().enter_flops() + self.leave_flops()

    def leave_flops(self) -> int:
        return 2 * self._others * self.config.hidden_size**2

    @property
    def _others(self) -> int:
        return len(self.altup_projections)


def _sized(stream: Tensor, size: Tensor) -> Tensor:
    """A stream [B, S, D] as large as the first, whose root mean square is ``size`` [B, S, 1]."""
    own = torch.sqrt(torch.mean(stream**2, dim=-1, keepdim=True).clamp(min=FLOOR))
    return stream * size / own


FAMILIES.add(
    "gemma3n",
    Gemma3n(
        "gemma3n_text",
        "gemma3n",
        "Gemma3n",
        gemma_like,
        config_name="Gemma3nTextConfig",
        scaled_embeddings=True,
        training=GEMMA,
    ),
)


def _model(size: str, **fields: Any) -> Model:
    return Model(
        "gemma3n",
        {
            "vocab_size": 262400,
            "vocab_size_per_layer_input": 262144,
            "hidden_size": 2048,
            "hidden_size_per_layer_input": 256,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "head_dim": 256,
            "hidden_activation": "gelu_pytorch_tanh",
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "sliding_window": 512,
            "final_logit_softcapping": 30.0,
            "altup_num_inputs": 4,
            "altup_active_idx": 0,
            "altup_coef_clip": 120.0,
            "altup_correct_scale": True,
            "laurel_rank": 64,
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
            "tie_word_embeddings": True,
            **fields,
        },
        f"transformers' conversion script of google/gemma-3n-{size} (convert_gemma3n_weights.py) "
        "and the defaults of Gemma3nTextConfig",
        tower="gemma3n",
        around={
            "model_type": "gemma3n",
            "vision_config": {
                "model_type": "gemma3n_vision",
                "architecture": "mobilenetv5_300m_enc",
                "hidden_size": 2048,
            },
            "tie_word_embeddings": True,
        },
    )


MODELS.add(
    "gemma-3n-e2b",
    _model(
        "E2B",
        intermediate_size=8192,
        num_hidden_layers=30,
        num_kv_shared_layers=10,
        activation_sparsity_pattern=[0.95] * 10 + [0.0] * 20,
    ),
)
MODELS.add(
    "gemma-3n-e4b",
    _model(
        "E4B",
        intermediate_size=16384,
        num_hidden_layers=35,
        num_kv_shared_layers=15,
        activation_sparsity_pattern=[0.95] * 10 + [0.0] * 25,
    ),
)
