"""What a checkpoint's ``quantization_config`` makes of its weights, in bytes.

Nothing here is run quantised: weights are priced in the cell's dtype, and a flag says so. Layouts
are those in which transformers keeps linear layers on the device:

- awq (gemm): packed weights and zero points, float16 scales a group.
- gptq: the same, and an int32 group index a row.
- bitsandbytes: 4 bits with a scale a block of 64 (nested: 8 bits, a float32 a 256 of them) and the
  tables of the codes; 8 bits with a float32 a row.
- fp8 (blocks of float32 or e8m0 scales, or one; static: one more for what enters), fbgemm_fp8 (a
  float32 a row).
- compressed-tensors: one group of 4 or 8 bits, bfloat16 scales.

Experts stand for linear layers each: gate, up and down under awq, gptq and compressed-tensors, as
their checkpoints hold them; under fp8 gate and up are one matrix, as in transformers' FP8Experts.
awq and gptq take no layer outside of the decoder.
"""

import re
from collections.abc import Hashable, Iterator, Mapping
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

from workbench.lvlm.configs import silent
from workbench.lvlm.kinds import model_kinds
from workbench.vocabulary.cell import Cell

if TYPE_CHECKING:
    from torch import nn

    from workbench.lvlm.models import Resolved

ITEM = {"float32": 4, "bfloat16": 2, "float16": 2}
SKIPPED = {
    "awq": "modules_to_not_convert",
    "gptq": "modules_to_not_convert",
    "bitsandbytes": "llm_int8_skip_modules",
    "fp8": "modules_to_not_convert",
    "fbgemm_fp8": "modules_to_not_convert",
    "compressed-tensors": "ignore",
}
"""Where each method names the modules that stay as they are."""
ONLY: Mapping[str, Mapping[str, tuple[object, ...]]] = {
    "awq": {"version": ("gemm", "GEMM")},
    "gptq": {"lm_head": (False,)},
    "fp8": {
        "scale_fmt": ("float", "ue8m0"),
        "expert_dtype": ("fp8",),
        "modules_to_convert": ([],),
        "dequantize": (False,),
    },
    "compressed-tensors": {"sparsity_config": ({},)},
}
"""Fields that decide a layout, and the values with which it is known; null leaves them out."""
HEAD_STAYS = ("awq", "gptq")
"""Methods that leave the LM head alone whatever their list says. The others take it where their
list is there and does not name it, as ``get_modules_to_not_convert`` of transformers has it."""
PREFIXES = ("", "model.", "language_model.", "model.language_model.", "language_model.model.")
ONE_EXPERT = re.compile(r"experts\W+\d")
EXPERTS = ("gate_proj", "up_proj", "down_proj")
"""The matrices of an expert, as a checkpoint that holds them apart names them."""


class Matrix(NamedTuple):
    """A linear layer, or one of each expert of a layer."""

    name: str
    rows: int
    columns: int
    bias: bool = False
    num_experts: int = 1
    """Experts that have one."""
    halves: int = 1
    """2 where gate and up are one matrix."""


class NotComputed(ValueError):
    """Why the bytes of a quantised checkpoint cannot be told."""


def quantization(model: "Resolved") -> Mapping[str, Any] | None:
    """The file's ``quantization_config``, its own or its text model's; None where it has none."""
    for fields in (model.stated, *(v for v in model.stated.values() if isinstance(v, dict))):
        config = fields.get("quantization_config")
        if isinstance(config, dict) and config:
            return config
    return None


def method_of(config: Mapping[str, Any]) -> str:
    """The name of the method, as transformers spells it."""
    method = str(config.get("quant_method", ""))
    if not method and (config.get("load_in_4bit") or config.get("load_in_8bit")):
        return "bitsandbytes"
    return method or "no named method"


def quantization_flags(model: "Resolved", cell: Cell) -> list[str]:
    """A flag that weights are priced in the cell's dtype, whatever the file says; or none."""
    config = quantization(model)
    if config is None:
        return []
    method = method_of(config)
    bits = config.get("bits", 4 if _is_four(config) else None)
    scheme = method if bits is None else f"{method}, {bits} bits"
    return [
        f"quantization: config.json says {scheme:.60}; this is not modelled: weights are priced "
        f"and run in the cell's {cell.dtype}"
    ]


def quantized_weights(
    model: "Resolved", cell: Cell, params: int | None
) -> tuple[dict[str, int | float | None], list[str]]:
    """The metric ``quantized_weight_bytes`` and why it is null; empty for a model without.

    ``params`` are those of the cell's scope.
    """
    config = quantization(model)
    if config is None:
        return {}, []
    try:
        if params is None:
            raise NotComputed("no parameters were counted")
        return {
            "quantized_weight_bytes": _bytes(model, cell, params, method_of(config), config)
        }, []
    except NotComputed as error:
        return {"quantized_weight_bytes": None}, [f"quantized_weight_bytes: {error}"]


def _is_four(config: Mapping[str, Any]) -> bool:
    return bool(config.get("load_in_4bit", config.get("_load_in_4bit")))


def _bytes(
    model: "Resolved", cell: Cell, params: int, method: str, config: Mapping[str, Any]
) -> int:
    if method not in SKIPPED:
        raise NotComputed(f"{method}: its layout is not known; known: {', '.join(SKIPPED)}")
    for field, values in ONLY.get(method, {}).items():
        value = config.get(field)
        if value is not None and value not in values:
            raise NotComputed(f"{method}: its layout under {field} {value!r:.40} is not known")
    stay = config.get(SKIPPED[method])
    if stay is None and method == "fp8":
        stay = config.get("ignored_layers")  # transformers takes the word, too.
    listed, stay = stay is not None or method == "compressed-tensors", stay or []
    if not (isinstance(stay, list) and all(isinstance(word, str) for word in stay)):
        raise NotComputed(f"{SKIPPED[method]} is no list of names")
    if method == "gptq":
        stay = [*stay, *_left_out(config.get("dynamic"))]
    rest, total = params, 0
    matrices = [*_linears(model, cell, method)]
    if cell.scope != "layer" and listed and method not in HEAD_STAYS:
        matrices.append(Matrix("lm_head", model.config.vocab_size, model.config.hidden_size))
    is_whole = "quantization_config" in model.stated  # In a section it is of the text model alone.
    if cell.scope == "lvlm" and is_whole and method not in ("awq", "gptq"):
        matrices += _outside(model, cell, method)
    for matrix in matrices:
        if any(stays(prefix + matrix.name, stay) for prefix in PREFIXES):
            continue
        if matrix.name == "lm_head" and model.config.tie_word_embeddings:
            raise NotComputed(
                f"{method}: {SKIPPED[method]} does not name lm_head, and what becomes of a head "
                "that is the embedding is not known"
            )
        rows, columns = matrix.rows, matrix.columns
        total += matrix.num_experts * linear_bytes(method, config, rows, columns, matrix.halves)
        rest -= matrix.num_experts * rows * columns
        if matrix.bias and method in ("awq", "gptq"):
            total, rest = total + 2 * rows, rest - rows
    if any(matrix.num_experts > 1 for matrix in matrices) and any(map(ONE_EXPERT.search, stay)):
        raise NotComputed(f"{SKIPPED[method]} names single experts, of which no count is made")
    return total + rest * _item(model, cell)


def _left_out(dynamic: object) -> Iterator[str]:
    """The modules that GPTQModel's ``dynamic`` leaves alone, patterns after ``-:``.

    Settings of their own for some modules are another layout.
    """
    if dynamic is not None and not isinstance(dynamic, Mapping):
        raise NotComputed(f"gptq: its layout under dynamic {dynamic!r:.40} is not known")
    for pattern, own in (dynamic or {}).items():
        if pattern.startswith("-:"):
            yield f"re:{pattern[2:]}"
        elif own:
            raise NotComputed(
                f"gptq: its layout under dynamic {pattern!r:.40} {own!r:.40} is not known"
            )


def _item(model: "Resolved", cell: Cell) -> int:
    """Bytes of a number that stays: the file's dtype, else the cell's."""
    for fields in (model.stated, *(v for v in model.stated.values() if isinstance(v, dict))):
        dtype = fields.get("dtype", fields.get("torch_dtype"))
        if isinstance(dtype, str) and dtype in ITEM:
            return ITEM[dtype]
    return ITEM.get(cell.dtype, 8)


def stays(name: str, words: list[str]) -> bool:
    """Whether a list of modules to leave alone names this one, or what it is part of."""
    for word in words:
        if word.startswith("re:"):
            try:
                if re.match(word[3:], name):
                    return True
            except re.error:
                raise NotComputed(f"{word!r:.60} is no pattern") from None
        elif f".{word}." in f".{name}.":
            return True
    return False


def _linears(model: "Resolved", cell: Cell, method: str) -> Iterator[Matrix]:
    """The linear layers and experts of the decoder's layers in the scope."""
    import torch
    from torch import nn

    config = model.config
    count = config.num_hidden_layers
    layer = model.global_layer if cell.layer is None else cell.layer
    indices = [layer] if cell.scope == "layer" else range(count)
    modules: dict[Hashable, nn.Module] = {}
    kinds = model_kinds(model)
    for index in indices:
        kind = kinds[index]
        if kind not in modules:
            with torch.device("meta"):
                modules[kind] = model.family.layer(config, index)
        for name, module in modules[kind].named_modules():
            path = f"layers.{index}.{name}"
            if type(module) is nn.Linear:  # A router of that kind is none, here as for them.
                yield _matrix(path, module)
            elif name.rpartition(".")[2] == "experts":
                yield from _experts(path, module, config.hidden_size, method)


def _matrix(path: str, linear: "nn.Linear") -> Matrix:
    rows, columns = linear.weight.shape
    return Matrix(path, rows, columns, linear.bias is not None)


def _experts(path: str, module: Any, hidden: int, method: str) -> Iterator[Matrix]:
    """The matrices of a layer's experts, which transformers stacks."""
    count = module.down_proj.shape[0]
    inner = module.down_proj[0].numel() // hidden
    if method == "fp8":
        yield Matrix(path, 2 * inner, hidden, num_experts=count, halves=2)
        yield Matrix(path, hidden, inner, num_experts=count)
    elif method in ("awq", "gptq", "compressed-tensors"):
        for name in EXPERTS:
            rows, columns = (hidden, inner) if name == "down_proj" else (inner, hidden)
            yield Matrix(f"{path}.0.{name}", rows, columns, num_experts=count)
    else:
        raise NotComputed(f"{method}: how it holds experts is not known")


def _outside(model: "Resolved", cell: Cell, method: str) -> Iterator[Matrix]:
    """The linear layers of vision tower and adapter, by their path in transformers' whole model.

    The head is the text model's.
    """
    import torch
    from torch import nn
    from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoModelForImageTextToText

    known = type(model.whole) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    if not known or cell.tower is not None:
        raise NotComputed(f"{method}: which layers of this tower it takes is not known")
    with torch.device("meta"), silent():
        whole = AutoModelForImageTextToText.from_config(model.whole)
    text = {id(module) for module in whole.get_decoder().modules()}
    text.add(id(whole.get_output_embeddings()))
    for name, module in whole.named_modules():
        if type(module) is nn.Linear and id(module) not in text:
            path = name.removeprefix("model.")
            yield _matrix(path, module)


def linear_bytes(
    method: str, config: Mapping[str, Any], rows: int, columns: int, halves: int = 1
) -> int:
    """Bytes of one linear layer's weight [rows, columns] with its scales, biases left out.

    ``halves`` is 2 where gate and up of an expert are one matrix, each with scales of its own.
    """
    count = rows * columns
    if method in ("awq", "gptq"):
        bits, size = _whole(config, "bits", 4), _whole(config, "group_size", 128)
        size = columns if size == -1 else size
        if bits not in (2, 3, 4, 8) or size < 1 or columns % size or count * bits % 32:
            raise NotComputed(f"{method}: {bits} bits in groups of {size} do not fit {columns}")
        groups = columns // size
        zeros = groups * ceil(rows * bits / 32) * 4
        return count * bits // 8 + zeros + 2 * groups * rows + 4 * columns * (method == "gptq")
    if method == "bitsandbytes":
        if not _is_four(config):
            return count + 4 * rows
        blocks = ceil(count / 64)
        codes = 4 * 16
        if config.get("bnb_4bit_use_double_quant"):
            return ceil(count / 2) + blocks + 4 * ceil(blocks / 256) + 4 + codes + 4 * 256
        return ceil(count / 2) + 4 * blocks + codes
    if method == "fp8":
        block = config.get("weight_block_size", [128, 128])
        entering = 4 * (config.get("activation_scheme") == "static")
        if block is None:
            return count + 4 * halves + entering
        if not (isinstance(block, list) and len(block) == 2 and all(_positive(b) for b in block)):
            raise NotComputed(f"fp8: weight_block_size {block!r:.40} is no pair of numbers")
        scales = max(ceil(rows / block[0]), halves) * ceil(columns / block[1])
        return count + (1 if config.get("scale_fmt") == "ue8m0" else 4) * scales + entering
    if method == "fbgemm_fp8":
        return count + 4 * rows + 4
    return _compressed(config, rows, columns)


def _compressed(config: Mapping[str, Any], rows: int, columns: int) -> int:
    groups = config.get("config_groups")
    if not (isinstance(groups, dict) and len(groups) == 1):
        raise NotComputed("compressed-tensors: one group of layers is known, not several")
    (group,) = groups.values()
    weights = group.get("weights") if isinstance(group, dict) else None
    if not isinstance(weights, dict):
        raise NotComputed("compressed-tensors: its group says nothing of the weights")
    targets = group.get("targets")
    if targets not in (None, ["Linear"]):
        raise NotComputed(f"compressed-tensors: targets {targets!r:.40}, not ['Linear']")
    bits, strategy = _whole(weights, "num_bits", 8), str(weights.get("strategy", "tensor"))
    kind = weights.get("type")
    if bits not in (4, 8) or (bits == 4 and kind not in (None, "int")):
        raise NotComputed(
            f"compressed-tensors: {bits} bits of {kind or 'int'} are not known; 4 of int and 8"
        )
    if strategy == "group":
        size = _whole(weights, "group_size", 128)
        if size < 1 or columns % size:
            raise NotComputed(f"compressed-tensors: groups of {size} do not fit {columns}")
        scales = rows * columns // size
    elif strategy in ("channel", "tensor"):
        scales = rows if strategy == "channel" else 1
    else:
        raise NotComputed(f"compressed-tensors: strategy {strategy!r:.40} is not known")
    form = group.get("format") or config.get("format")
    is_packed = bits == 4 or form == "pack-quantized"
    packed = rows * ceil(columns * bits / 32) * 4 + 16 if is_packed else rows * columns
    zeros = 0 if weights.get("symmetric", True) else ceil(scales * bits / 32) * 4
    return packed + 2 * scales + zeros


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _whole(config: Mapping[str, Any], field: str, default: int) -> int:
    value = config.get(field, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise NotComputed(f"{field} {value!r:.40} is no whole number")
    return value
