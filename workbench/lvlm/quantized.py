"""What a checkpoint's ``quantization_config`` makes of its weights, in bytes.

Nothing here is run quantised: weights are priced in the cell's dtype, and a flag says so. Layouts
are those in which transformers keeps the linear layers of a decoder on the device:

- awq (gemm): packed weights and zero points, float16 scales a group.
- gptq: the same, and an int32 group index a row.
- bitsandbytes: 4 bits with a scale a block of 64 (nested: 8 bits, a float32 a 256 of them) and the
  tables of the codes; 8 bits with a float32 a row.
- fp8 (blocks of float32 scales), fbgemm_fp8 (a float32 a row).
- compressed-tensors: one group of 4 or 8 bits, bfloat16 scales.
"""

import re
from collections.abc import Hashable, Iterator, Mapping
from math import ceil
from typing import TYPE_CHECKING, Any

from workbench.lvlm.kinds import model_kinds
from workbench.vocabulary.cell import Cell

if TYPE_CHECKING:
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
PREFIXES = ("", "model.", "language_model.", "model.language_model.", "language_model.model.")


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
    stay = config.get(SKIPPED[method]) or []
    if not (isinstance(stay, list) and all(isinstance(word, str) for word in stay)):
        raise NotComputed(f"{SKIPPED[method]} is no list of names")
    if cell.scope == "lvlm" and method not in ("awq", "gptq"):
        towers = ("visual", "vision_tower", "vision_model")
        if not any(stays(tower, stay) for tower in towers):
            raise NotComputed(f"{method}: which layers of a vision tower it takes is not known")
    rest, total = params, 0
    for name, rows, columns, bias in _linears(model, cell):
        if any(stays(prefix + name, stay) for prefix in PREFIXES):
            continue
        total += linear_bytes(method, config, rows, columns)
        rest -= rows * columns
        if bias and method in ("awq", "gptq"):
            total, rest = total + 2 * rows, rest - rows
    return total + rest * _item(model, cell)


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


def _linears(model: "Resolved", cell: Cell) -> Iterator[tuple[str, int, int, bool]]:
    """Name, rows, columns and bias of the linear layers of the decoder's layers in the scope."""
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
            if isinstance(module, nn.Linear):
                rows, columns = module.weight.shape
                yield f"layers.{index}.{name}", rows, columns, module.bias is not None


def linear_bytes(method: str, config: Mapping[str, Any], rows: int, columns: int) -> int:
    """Bytes of one linear layer's weight [rows, columns] with its scales, biases left out."""
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
        if block is None:
            return count + 4
        if not (isinstance(block, list) and len(block) == 2 and all(_positive(b) for b in block)):
            raise NotComputed(f"fp8: weight_block_size {block!r:.40} is no pair of numbers")
        return count + 4 * ceil(rows / block[0]) * ceil(columns / block[1])
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
    bits, strategy = _whole(weights, "num_bits", 8), str(weights.get("strategy", "tensor"))
    if bits not in (4, 8):
        raise NotComputed(f"compressed-tensors: {bits} bits are not known; 4 and 8")
    if strategy == "group":
        size = _whole(weights, "group_size", 128)
        if size < 1 or columns % size:
            raise NotComputed(f"compressed-tensors: groups of {size} do not fit {columns}")
        scales = rows * columns // size
    elif strategy in ("channel", "tensor"):
        scales = rows if strategy == "channel" else 1
    else:
        raise NotComputed(f"compressed-tensors: strategy {strategy!r:.40} is not known")
    packed = rows * ceil(columns * bits / 32) * 4 + 16 if bits == 4 else rows * columns
    zeros = 0 if weights.get("symmetric", True) else ceil(scales * bits / 32) * 4
    return packed + 2 * scales + zeros


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _whole(config: Mapping[str, Any], field: str, default: int) -> int:
    value = config.get(field, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise NotComputed(f"{field} {value!r:.40} is no whole number")
    return value
