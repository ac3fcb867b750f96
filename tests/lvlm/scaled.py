"""Parts whose queries are scaled by their positions, for definitions that know of no factor."""

from dataclasses import fields

import torch

from workbench.lvlm.parts import LayerParts


def ministral3(config, place):
    """1 + β·log(1 + ⌊place / context⌋) in float32, as transformers has it."""
    rope = config.rope_parameters
    step = torch.tensor(1.0 + place // rope["original_max_position_embeddings"])
    return 1 + rope["llama_4_scaling_beta"] * step.log()


def llama4(config, place):
    """1 + s·log(1 + ⌊(place + 1) / floor⌋) in float32, as transformers has it."""
    step = torch.tensor(1.0 + (place + 1) // config.floor_scale)
    return 1 + config.attn_scale * step.log()


FACTORS = {"ministral3": ministral3, "llama4_text": llama4}
"""By the type of the text model: what a query at a place of the sequence is multiplied with."""


def factors(config, places):
    """Of places [n], float64 [n]."""
    factor = FACTORS[config.model_type]
    return torch.tensor([factor(config, p).item() for p in places.tolist()], dtype=torch.float64)


class Scaled(LayerParts):
    """Parts whose ``query`` knows by the number of its rows which stream they are."""

    def query(self, x_bsd, factor=None):
        assert factor is None
        return super().query(x_bsd) * self.by_length[x_bsd.shape[1]][:, None]


def scaled_parts(workload):
    """The workload, whose layers' parts scale queries where the model's layers do.

    Definitions read these in place of the module's own.
    """
    model, layout = workload.context.model, workload.context.layout
    streams = [layout.positions(True), layout.positions(False), layout.sequence]
    for number, (parts, place, *rest) in enumerate(workload.layers):
        scaled = model.family.scales_queries(model.config, place.index)
        if not scaled or type(parts) is not LayerParts:  # Others scale them by themselves.
            continue
        made = Scaled(**{f.name: getattr(parts, f.name) for f in fields(parts)})
        by_length = {len(places): factors(model.config, places) for places in streams}
        object.__setattr__(made, "by_length", by_length)
        workload.layers[number] = (made, place, *rest)
    return workload
