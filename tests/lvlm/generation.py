"""Small checkpoints of random weights, and what they generate greedily, token for token."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel

from tests.lvlm.test_oracles import relative
from workbench.lvlm.attention.per_layer import TAKES
from workbench.lvlm.build import build
from workbench.lvlm.pictures import fields_of
from workbench.lvlm.places import places_of
from workbench.lvlm.workload import Workload
from workbench.vocabulary.cell import Cell, make_cell
from workbench.vocabulary.pictures import Pictures

GREEDY: dict[str, Any] = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
"""Of transformers' ``generate``: the likeliest tokens, as many as are asked for."""


def shown(name: str, size: str, count: int = 1, **fields: Any) -> tuple[Cell, Pictures]:
    """A cell of a small model that shows so many images of a size, and them."""
    pictures = Pictures(resolution=size, count=count)
    cell = make_cell(
        model=name,
        scope="lvlm",
        kernel="eager",
        num_text=5,
        **{"dtype": "float64", **fields, **fields_of(name, pictures, "V,T")},
    )
    return cell, pictures


def write_weights(
    name: str, auto: Any = AutoModelForImageTextToText, **options: Any
) -> PreTrainedModel:
    """Give the folder of a small model random weights; transformers' own model of them.

    The options are those of ``write_random``.
    """
    return write_random(
        name, lambda: auto.from_config(AutoConfig.from_pretrained(name)), **options
    )


def write_random(
    name: str,
    make_model: Callable[[], PreTrainedModel],
    dtype: torch.dtype = torch.float64,
    std: float = 0.3,
    buffers: tuple[str, ...] = (),
    seed: int = 3,
) -> PreTrainedModel:
    """Draw every weight of transformers' model and save it to a folder; the model, to evaluate.

    ``buffers`` are the ends of names of buffers that a checkpoint has too. Some seeds generate one
    of the three last ids, which stand for pixels: transformers does not read them as words.
    """
    torch.manual_seed(seed)
    model = make_model()
    model = model.double() if dtype is torch.float64 else model.float()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std)
    for key, buffer in model.named_buffers():
        if key.endswith(buffers):
            buffer.uniform_(0.5, 1.5)
    model.save_pretrained(name)
    return model.eval()


def extend(
    ids: Tensor, count: int, workload: Callable[[int], Workload], visual: Tensor | None
) -> Tensor:
    """``ids``, [B, T], and ``count`` tokens more that a workload of each length finds likeliest.

    ``workload(T)`` is of T text tokens; ``visual`` are its pixels or visual tokens.
    """
    with torch.no_grad():
        for _ in range(count):
            logits = workload(ids.shape[1]).module(visual, ids)
            ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
    return ids


def step_after(cell: Cell, ids: Tensor) -> tuple[Tensor, Workload, Workload]:
    """Logits of a decode step for the last of ``ids``, [B, T], after a prefill of those before it;
    that prefill and that step.

    The step has the prefill's keys and values; layers that take those of others hold none.
    """
    first = ids.shape[1] - 1
    prefill = build(cell.replace(num_text=first, cache=True))
    prefill.module(None, ids[:, :first])
    step = build(cell.replace(num_text=first, pass_="decode"))
    caches = [cache.tensors for cache in prefill.context.caches]
    for layer, place, cache in zip(step.module.layers, places_of(cell), caches, strict=True):
        own = [getattr(layer.inner, name) for name in ("keys", "values") if place.role != TAKES]
        for buffer, tensor in zip(own, cache, strict=True):
            buffer.copy_(tensor)
    with torch.no_grad():
        return step.module(None, ids[:, first:]), prefill, step


def assert_follows(
    model: PreTrainedModel, loaded: Callable[[int], Workload], tolerance: float
) -> None:
    """Whole prefills, one longer each time, against transformers' own steps over its own cache.

    ``loaded`` makes a workload of so many text tokens with the weights of ``model``.
    """
    workload = loaded(5)
    visual, ids = workload.inputs
    with torch.no_grad():
        own = torch.cat([visual, model.model.embed_tokens(ids)], 1)
        step = model(inputs_embeds=own, use_cache=True)
        assert relative(workload.module(visual, ids), step.logits) <= tolerance
        for _ in range(4):
            word = step.logits[:, -1:].argmax(-1)
            ids = torch.cat([ids, word], 1)
            logits = loaded(ids.shape[1]).module(visual, ids)
            step = model(input_ids=word, past_key_values=step.past_key_values, use_cache=True)
            assert torch.equal(logits[:, -1:].argmax(-1), step.logits[:, -1:].argmax(-1))
            assert relative(logits[:, -1:], step.logits) <= tolerance
