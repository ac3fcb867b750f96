"""What is modelled, what is refused and what is flagged: rows that the code itself fills in.

``python -m workbench.lvlm.pages.boundaries`` prints the table of docs/method.md, and a test holds
the page to it. A part of the workbench adds a row by an entry in ROWS.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import NamedTuple, get_args

import torch

from workbench.inputs.model_files import PREPROCESSORS
from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.attention.linear import has_linear
from workbench.lvlm.configs.fields import MAX_LAYERS, SIZES
from workbench.lvlm.configs.refused import REFUSED
from workbench.lvlm.kernels import KERNELS, Kernel
from workbench.lvlm.models import FAMILIES, MODELS, Resolved, resolve
from workbench.lvlm.parts import LayerParts
from workbench.lvlm.parts.rope import MOVING, rope_types
from workbench.lvlm.towers import PAPER, TOWERS
from workbench.lvlm.weights.quantized import SKIPPED
from workbench.visual import VISIONS, Limits
from workbench.vocabulary.agreement import SUB_GROUP_SIZE
from workbench.vocabulary.fields import MAX_TOKENS, LossRows


class Boundary(NamedTuple):
    """One row: a subject, and where its modelling ends."""

    subject: str
    modelled: str
    refused: str
    flagged: str


ROWS: list[Callable[[], Iterator[Boundary]]] = []
"""Each makes its rows from what the code has when the table is asked for."""


def table() -> str:
    """The table in Markdown."""
    rows = [row for make in ROWS for row in make()]
    lines = ["| | modelled | refused | flagged |", "|---|---|---|---|"]
    lines += ["| " + " | ".join(cell or "–" for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _words(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _configs() -> Iterator[Boundary]:
    yield Boundary(
        "model families",
        _words(sorted(family.model_type for family in FAMILIES.values())),
        f"by name, with the reason: {_words(sorted(REFUSED))}; every other `model_type`; a model "
        "that needs code of its own, which is never run",
        "",
    )
    yield Boundary(
        "sizes of a config",
        f"{_words(SIZES)}, flat or in the section that transformers reads",
        "a size that is not what was built; a section that nothing reads; values that are not "
        f"whole, positive, bounded or dividing; more than {MAX_LAYERS:,} layers",
        "a size that only transformers' default supplies; tied embeddings that transformers "
        "would read otherwise; code that an `auto_map` names for the model",
    )
    yield Boundary(
        "rotary embeddings",
        f"{_words(rope_types())}; {_words(MOVING)} by the last position of the whole sequence",
        "an unknown `rope_type`; a table of another size than the family turns",
        "",
    )
    yield Boundary(
        "quantised weights",
        f"their bytes under {_words(SKIPPED)}, as `quantized_weight_bytes`",
        "",
        "always: weights are priced and run in the cell's dtype; where a layout is not known and "
        "the bytes are null, why",
    )


def _pictures() -> Iterator[Boundary]:
    yield Boundary(
        "vision towers",
        f"{_words(sorted(TOWERS))}; `{PAPER}`, the paper's, for text models",
        f"any other tower of a config, unless `--tower {PAPER}` asks for the paper's; images that "
        "are cut to another size than that of a tower whose config leaves it out",
        "the paper's in place of a config's; sizes that only transformers' default supplies; "
        "layers that feed no token",
    )
    yield Boundary(
        "images and video to \\|V\\|",
        f"{_words(sorted(VISIONS))}, under {_words(PREPROCESSORS)}",
        "a model whose front end is none of these; settings that make no sense; `do_resize` "
        "false; a limit that a front end does not have; video without time stamps, or whose time "
        "stamps jump",
        "every limit and its origin; a video's budget that a reference pipeline would apply",
    )
    yield Boundary(
        "limits of a request",
        _words(f"--{name.replace('_', '-')}" for name in Limits.__dataclass_fields__),
        "frames beyond `--max-frames`",
        "",
    )
    yield Boundary(
        "tokens",
        f"up to {MAX_TOKENS:,} visual and as many text tokens",
        "at scope `lvlm`, a \\|V\\| that is no whole number of images",
        "",
    )


def _training() -> Iterator[Boundary]:
    yield Boundary(
        "loss of a training step",
        f"over {_words(get_args(LossRows))} rows, the last as transformers' own",
        "`all` where the LM head has text rows alone, in other passes, and where no row predicts "
        "a text token",
        "`text` where the LM head has all rows: what transformers' own loss would make beside it",
    )
    yield Boundary(
        "ZeRO under deepspeed",
        f"stages 0 to 3 on several ranks, sub-groups of {SUB_GROUP_SIZE:,} elements unless "
        "`--sub-group-size` says otherwise; on one GPU with `--offload-optimizer`",
        "one process without `--offload-optimizer`; `float16`, `float64`; an iteration without an "
        "optimizer",
        "an optimizer on the host, whose seconds are left out; collectives over links that no "
        "source states",
    )


def _kernels() -> Iterator[Boundary]:
    """Which families each kernel serves, as it says itself of the layers of their models."""
    families = {family: list(_attending(family)) for family in sorted(FAMILIES)}
    for name, kernel in sorted(KERNELS.items()):
        refused = {
            decomposed: {
                family: [model for model, parts in models if _refuses(kernel, parts, decomposed)]
                for family, models in families.items()
            }
            for decomposed in (False, True)
        }
        served = [f for f, models in families.items() if len(refused[False][f]) < len(models)]
        whose = "" if kernel.limits_whole else "of systems with branches "
        others = [f"predictions {whose}for a card in other types than {_words(kernel.dtypes)}"]
        yield Boundary(
            f"kernel `{name}`",
            f"S-Attn of {_words(served)}",
            "; ".join(
                [
                    f"{what} of {words}"
                    for what, decomposed in (("S-Attn", False), ("other systems", True))
                    if (words := _refusals(families, refused[decomposed]))
                ]
                + (others if kernel.dtypes else [])
            ),
            kernel.traced_as() or "",
        )


def _attending(family: str) -> Iterator[tuple[str, list[LayerParts]]]:
    """Each model of a family in the catalogue, with a layer of every kind that has keys."""
    models = {name: resolve(name) for name, entry in MODELS.items() if entry.family == family}
    for name, model in (models or {family: _examples()[family]}).items():
        with torch.device("meta"):
            kinds = {
                model.layer_type(i): i for i in reversed(range(model.config.num_hidden_layers))
            }
            parts = [
                FAMILIES[family].parts(FAMILIES[family].layer(model.config, index))
                for index in kinds.values()
            ]
        yield name, [each for each in parts if each.linear is None]


def _refuses(kernel: Kernel, parts: list[LayerParts], decomposed: bool) -> bool:
    return not all(kernel.serves(each, decomposed, each.window is not None) for each in parts)


def _refusals(
    families: dict[str, list[tuple[str, list[LayerParts]]]], refused: dict[str, list[str]]
) -> str:
    """Families that are refused, with the names of the models where not all of them are."""
    words = [
        f"`{family}`" + (f" ({_words(names)})" if len(names) < len(families[family]) else "")
        for family, names in refused.items()
        if names
    ]
    return ", ".join(words)


def _systems() -> Iterator[Boundary]:
    from workbench.lvlm.attention import STREAM_OPTIONS

    by_options: dict[tuple[str, ...], list[str]] = {}
    for name, system in sorted(SYSTEMS.items()):
        by_options.setdefault(tuple(system.options), []).append(name)
    for options, names in by_options.items():
        without = [option for option in STREAM_OPTIONS if option not in options]
        yield Boundary(
            f"systems {_words(names)}",
            f"with {_words(options)}" if options else "",
            _words(without),
            "",
        )


def _deepstack() -> Iterator[Boundary]:
    families = _words(sorted(name for name, family in FAMILIES.items() if family.deepstack))
    served = {name for name, system in SYSTEMS.items() if system.stacks}
    yield Boundary(
        f"deepstack of {families}",
        f"at scope `lvlm`, {_words(sorted(served))}",
        f"{_words(sorted(set(SYSTEMS) - served))}; reducers; `checkpoint_every` above 1",
        "at scope `decoder`, where nothing is added",
    )


def _linear() -> Iterator[Boundary]:
    examples = _examples()
    mixed = _words(f for f in sorted(FAMILIES) if has_linear(examples[f]))
    served = {name for name, system in SYSTEMS.items() if system.mixes}
    yield Boundary(
        f"layers without query-key pairs of {mixed}",
        f"as released, between the layers that {_words(sorted(served))} change",
        f"{_words(sorted(set(SYSTEMS) - served))}; `fold` where the others' output is gated; "
        "`ulysses`, `ring`",
        "predictions: torch's operators, where a card with flash-linear-attention or "
        "causal-conv1d holds less",
    )


def _parallel() -> Iterator[Boundary]:
    names = [name for name, parts in _parts().items() if parts.parallel]
    refused = {name for name, system in SYSTEMS.items() if system.between}
    yield Boundary(
        f"attention and MLP side by side of {_words(names)}",
        _words(sorted(set(SYSTEMS) - refused)),
        _words(sorted(refused)),
        "",
    )


def _constants() -> Iterator[Boundary]:
    examples = _examples()
    named = {name: family.logit_scale(examples[name].config) for name, family in FAMILIES.items()}
    scaled = [name for name, scale in sorted(named.items()) if scale is not None]
    yield Boundary(
        f"logits times a scale of {_words(scaled)}",
        "by a text model's own class, and by those around it that read it",
        "",
        "where transformers' class around the text model does not",
    )
    yield Boundary(
        "dropout",
        "",
        "where it stands between layers",
        "a config's `attention_dropout`, and a Q-Former's, which are not run in training",
    )


def _latent() -> Iterator[Boundary]:
    names = sorted(name for name, family in FAMILIES.items() if family.latent)
    refused = {name for name, system in SYSTEMS.items() if system.projections}
    yield Boundary(
        f"latent attention of {_words(names)}",
        f"{_words(sorted(set(SYSTEMS) - refused))}; a cache of latents and rotated parts",
        f"{_words(sorted(refused))}, which have projections of their own; `ulysses`; `ring` where "
        "it passes keys on",
        "keys and values that a decode step makes anew",
    )


def _per_layer() -> Iterator[Boundary]:
    names = [n for n in MODELS if FAMILIES[MODELS[n].family].per_layer(resolve(n).config)]
    altup = {name for name in names if FAMILIES[MODELS[name].family].altup}
    lacking = {name for name, system in SYSTEMS.items() if system.lacks} - {"s_attn"}
    yield Boundary(
        "embeddings for every layer, keys and values that later layers take: "
        f"{_words(sorted(set(names) - altup))}",
        _words(sorted(set(SYSTEMS) - lacking)),
        f"{_words(sorted(lacking))}, each by what it lacks; `ulysses`, `ring`",
        "",
    )
    yield Boundary(
        f"the same with several hidden states of a token (AltUp): {_words(sorted(altup))}",
        "as released, `s_attn`",
        f"{_words(sorted(set(SYSTEMS) - {'s_attn'}))}; `ulysses`, `ring`; `weights_dtype` where "
        "adapters of AltUp are trained",
        "",
    )


def _modal() -> Iterator[Boundary]:
    names = [n for n in MODELS if FAMILIES[MODELS[n].family].modal]
    served = sorted(name for name, system in SYSTEMS.items() if system.modal)
    yield Boundary(
        f"experts of visual rows and of text apart: {_words(sorted(names))}",
        f"under {_words(['s_attn', *served])}, each row by its kind, spread evenly over the "
        "experts of that",
        f"{_words(sorted(set(SYSTEMS) - {'s_attn', *served}))}; `experts_skew`; `ulysses`, and "
        "under `s_attn` `ring` and `tiled`",
        "always: whose experts are counted, and of which token `active_params` are",
    )


def _turned() -> Iterator[Boundary]:
    names = [name for name, parts in _parts().items() if parts.norms_turned]
    served = {name for name, system in SYSTEMS.items() if system.norms_turned}
    yield Boundary(
        f"learned norms of queries and keys behind RoPE of {_words(names)}",
        _words(sorted(served)),
        _words(sorted(set(SYSTEMS) - served)),
        "",
    )


@cache
def _parts() -> dict[str, LayerParts]:
    """Of a layer that sees everything, without values, for every family."""
    parts = {}
    for name, model in sorted(_examples().items()):
        with torch.device("meta"):
            layer = model.family.layer(model.config, model.global_layer)
        parts[name] = model.family.parts(layer)
    return parts


def _examples() -> dict[str, Resolved]:
    """A model of the catalogue for every family; where it has none, transformers' defaults."""
    names = {MODELS[name].family: name for name in sorted(MODELS, reverse=True)}
    return {
        name: resolve(names[name])
        if name in names
        else Resolved(name, family, family.from_transformers(family.config_name)())
        for name, family in FAMILIES.items()
    }


ROWS += [_configs, _pictures, _deepstack, _linear, _parallel, _constants, _latent, _per_layer]
ROWS += [_modal, _turned]
ROWS += [_training, _kernels, _systems]

if __name__ == "__main__":
    print(table())
