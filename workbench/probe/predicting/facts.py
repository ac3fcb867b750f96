"""What a measured record and a predicted one say alike: counts, what a model is, what is shown."""

from typing import Any

from workbench.lvlm.models import Resolved, resolve
from workbench.lvlm.pictures import look
from workbench.lvlm.towers import tower_of
from workbench.lvlm.towers.built import default_flags
from workbench.lvlm.weights.quantized import quantization_flags, quantized_weights
from workbench.probe.counting.trace import Trace
from workbench.probe.predicting.contribution import Metrics
from workbench.probe.predicting.roofline import Times, seconds_by_component
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.pictures import Pictures


def counts(traced: Trace) -> Metrics:
    """The metrics that are counted, not measured: the same for a measured and a predicted cell."""
    return {
        "flops": traced.flops,
        "flops_causal": traced.flops_causal,
        "model_flops": traced.model_flops,
        "params": traced.params,
        **(
            {}
            if traced.active_params == traced.params
            else {"active_params": traced.active_params}
        ),
        "weight_bytes": traced.timeline.of_kind("weights"),
        "bytes_moved": traced.bytes_moved,
        **(
            {}
            if traced.all_to_all_bytes is None
            else {"all_to_all_bytes": traced.all_to_all_bytes}
        ),
        **({} if traced.ring_bytes is None else {"ring_bytes": traced.ring_bytes}),
        **({} if traced.kv_cache_bytes is None else {"kv_cache_bytes": traced.kv_cache_bytes}),
    }


def utilisation(traced: Trace, seconds: float | None, rate: float | None) -> Metrics:
    """MFU by both counts; None without a time or a peak in FLOP/s."""
    if not seconds or not rate:
        return {"mfu": None, "mfu_causal": None}
    return {
        "mfu": traced.model_flops / seconds / rate,
        "mfu_causal": traced.model_flops_causal / seconds / rate,
    }


def model_facts(cell: Cell, params: int | None) -> tuple[Metrics, list[str]]:
    """Metrics of a model that is read from files, its flags, and why a metric is null."""
    quantized, why = quantized_weights(resolve(cell.model), cell, params)
    return quantized, [*model_flags(cell), *why]


def model_flags(cell: Cell) -> list[str]:
    """Flags of a model that is read from files, and of its tower."""
    model = resolve(cell.model)
    towers: list[str] = []
    if cell.scope == "lvlm":
        tower = tower_of(model, cell.tower)
        towers = [*tower.flags, *(default_flags(model, tower.other_names) if tower.serves else ())]
    flags = []
    if model.family.deepstack and cell.scope == "decoder" and cell.pass_ != "decode":
        flags = ["deepstack: features of the tower, which enter at scope lvlm, are not added"]
    flags += model.family.notes(model.config)
    scale = model.family.logit_scale(model.config)
    if scale is not None and model.whole is not None and model.logit_scale is None:
        flags.append(
            f"logit_scale {scale:g}: its text model's own class multiplies logits with it, "
            f"transformers' class of {model.whole.model_type} does not, and so does nothing here"
        )
    flags += expert_flags(model, cell)
    return [*model.flags, *towers, *flags, *quantization_flags(model, cell)]


def expert_flags(model: Resolved, cell: Cell) -> list[str]:
    """What is counted of a model with experts, whose routing only data decides."""
    experts = model.family.experts(model.config)
    if experts is None:
        return []
    # peft and bitsandbytes take linear layers; the matrices of experts are stacked.
    left_alone = [name for name in ("lora", "weights_dtype") if getattr(cell, name) is not None]
    if experts.every:
        return [
            *(
                f"{name}: experts and their router, which gives scores of them all, are no linear "
                "layers, and are left as they are"
                for name in left_alone
            ),
            f"experts: every token is multiplied with all {experts.total}, as transformers has "
            f"it, of which the router chooses {experts.active}: FLOPs, seconds and bytes are of "
            "all; active_params are of those that are chosen",
        ]
    spread = "tokens were spread over all evenly"
    if cell.experts_skew:
        spread = (
            "all tokens were sent to the same, the fewest bytes; on one card FLOPs and memory "
        )
        spread += "are those of any routing"
    return [
        *(
            f"{name}: experts are no linear layers, and are left as they are"
            for name in left_alone
        ),
        f"experts: FLOPs are of the {experts.active} of {experts.total} that a token "
        f"meets, bytes held of all; bytes_moved as if {spread}",
    ]


def component_details(traced: Trace, times: Times | None) -> dict[str, dict[str, int | float]]:
    """Parameters, FLOPs and seconds of tower, adapter and decoder, if there are any."""
    seconds = {} if times is None else seconds_by_component(times)
    components: dict[str, dict[str, int | float]] = {}
    for name, params in traced.params_by_component.items():
        flops = sum(op.flops * n for op, n in traced.operators.items() if op.component == name)
        components[name] = {"params": params, "flops": flops}
        if times is not None:
            components[name]["time_s"] = seconds.get(name, 0.0)
    return components


def picture_details(cell: Cell, pictures: Pictures | None) -> dict[str, Any]:
    """What the cell shows and what became of it, for a record's details."""
    if pictures is None:
        return {}
    tower = tower_of(resolve(cell.model), cell.tower, pictures.limits)
    request = pictures.model_dump(mode="json", exclude_defaults=True, exclude={"images", "video"})
    return {"pictures": [*look(tower, pictures).facts], "pictures_asked": request}
