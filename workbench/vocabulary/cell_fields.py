"""The fields of a cell: each with its type, its default, and what is said of it.

Options of the command line, grids, YAML, controls and captions are made of these entries. What
follows from several fields, and a cell's key, is in ``cell.py``.
"""

from typing import Annotated

from pydantic import AliasChoices, BeforeValidator, Field

from workbench.vocabulary.agreement import SUB_GROUP_SIZE
from workbench.vocabulary.fields import (
    AllocatorSetting,
    CacheDtype,
    Count,
    Description,
    Dtype,
    Logits,
    LossRows,
    MasterWeights,
    Name,
    Pass,
    Positive,
    RingOrder,
    Scope,
    WeightsDtype,
    Whole,
    bytes_of,
)
from workbench.vocabulary.rules import Ruled


class CellFields(Ruled):
    """What a point of a sweep says of what is run. ``pass`` is a keyword: ``pass_`` in Python."""

    model: Annotated[
        Name,
        Description(
            "a name that `workbench list models` has, a hub id, or a folder with a "
            "`config.json` of a supported family",
            role="subject",
        ),
    ] = "mistral-7b-v0.3"
    attention: Annotated[Name, Description("an attention system", role="system")] = "s_attn"
    kernel: Annotated[Name, Description("an attention kernel", role="system")] = "sdpa"
    scope: Annotated[
        Scope,
        Description(
            "`layer`: one decoder layer; `decoder`: all layers, norm, LM head, loss; `lvlm`: with "
            "vision tower and adapter",
            role="subject",
        ),
    ] = "layer"
    # As ``alias`` it would be what type checkers take for the only name of the argument.
    pass_: Annotated[
        Pass,
        Description(
            "`forward` (prefill), `train` (forward, backward; at scope `decoder` the optimizer "
            "too), `decode` (one token against a cache)",
            role="subject",
        ),
    ] = Field(
        default="forward",
        validation_alias=AliasChoices("pass", "pass_"),
        serialization_alias="pass",
    )
    num_visual: Annotated[
        Count,
        Description(
            "number of visual tokens |V|; at scope `lvlm` also from `--image FILE` (repeatable) "
            "or `--video FILE --fps F`, or of a size: `--resolution WxH --images N`",
            option="--visual",
            role="size",
        ),
    ]
    num_text: Annotated[
        Count,
        Description(
            "number of text tokens",
            label="Text tokens |T|",
            option="--text",
            caption="|T| = {:,}",
        ),
    ] = 64
    batch: Annotated[
        int,
        Field(ge=1, le=1_000_000, strict=True),
        Whole,
        Description("samples in an iteration", caption="batch {:,}"),
    ] = 1
    dtype: Annotated[
        Dtype,
        Description(
            "`float64`, `float32`, `bfloat16`, `float16`", label="Data type", caption="{}"
        ),
    ] = "bfloat16"
    layout: Annotated[
        str,
        Description(
            "how images and text alternate, as in `T,V,T` or `V,T,V,T`; segments are alike "
            "unless sizes are given, as in `V729,T,V1458,T`",
            caption="layout {}",
        ),
    ] = "V,T"
    logits: Annotated[
        Logits,
        Description(
            "rows of the LM head: `all` or `text`; systems of which no visual row reaches it have "
            "only `text`",
            label="Logits on",
        ),
    ] = "all"
    loss_rows: Annotated[
        LossRows,
        Description(
            "rows that the loss of a training step runs over: the `text` rows, or `all` with "
            "labels -100 elsewhere, as transformers' own",
            label="Loss over",
        ),
    ] = "text"
    zero: Annotated[
        int,
        Field(ge=0, le=3, strict=True),
        Whole,
        Description("DeepSpeed ZeRO stage 0 to 3", label="ZeRO stage"),
    ] = 0
    world_size: Annotated[
        int,
        Field(ge=1, le=1_000_000, strict=True),
        Whole,
        Description("number of ranks, one a GPU, that share the states"),
    ] = 1
    sub_group_size: Annotated[
        int,
        Field(ge=1, le=10**12, strict=True),
        Whole,
        Description(
            "elements of a rank's share that ZeRO 3 steps at a time, at least; deepspeed's default"
        ),
    ] = SUB_GROUP_SIZE
    accumulate: Annotated[
        int,
        Field(ge=1, le=1_000_000, strict=True),
        Whole,
        Description(
            "micro-batches (of `--batch` samples) that one optimizer step adds up",
            label="Micro-batches a step",
        ),
    ] = 1
    frozen: Annotated[
        str | None,
        Description(
            "components of scope `lvlm` that are not trained: `decoder,tower`",
            label="Frozen components",
            unset="none",
        ),
    ] = None
    lora: Annotated[
        str | None,
        Description(
            "a train pass of LoRA adapters beside the decoder's frozen linear layers: "
            "`r=16,alpha=32,targets=all-linear` (or `q_proj+v_proj`, `dtype=float32`, "
            "`dropout=0.05`); everything else is frozen",
            label="LoRA",
            unset="none",
            operators=True,
        ),
    ] = None
    weights_dtype: Annotated[
        WeightsDtype | None,
        Description(
            "how the frozen matrices of the decoder's layers are held: `int4` (NF4, double "
            "quantisation; measured with bitsandbytes), `int8`, `fp8` (a float32 a row); in "
            "training with `--lora`",
            label="Frozen weights in",
            unset="the dtype",
            operators=True,
        ),
    ] = None
    optimizer: Annotated[
        Name,
        Description(
            "what a training step of a whole model ends in, an optimizer of docs/reference.md; "
            "under deepspeed AdamW alone",
            operators=True,
        ),
    ] = "adamw"
    master_weights: Annotated[
        MasterWeights,
        Description(
            "what the optimizer steps on where weights are bfloat16: `float32` copies of them, or "
            "`bfloat16`, the weights themselves",
            operators=True,
        ),
    ] = "float32"
    ulysses: Annotated[
        int,
        Field(ge=1, le=1_000_000, strict=True),
        Whole,
        Description(
            "GPUs that share one sequence by heads (DeepSpeed-Ulysses; S-Attn, training at scope "
            "`decoder`, SDPA kernels, no window)",
            role="system",
        ),
    ] = 1
    ring: Annotated[
        int,
        Field(ge=1, le=1_000_000, strict=True),
        Whole,
        Description(
            "GPUs that share one sequence by rows, whose keys and values go around (S-Attn, also "
            "with `--ulysses`; the decomposed systems share their visual tokens; training at "
            "scope `decoder`, fused kernels, no window)",
            role="system",
        ),
    ] = 1
    ring_order: Annotated[
        RingOrder,
        Description(
            "which rows a rank of a ring has: two chunks that even out causality (`zigzag`), or "
            "one run (`contiguous`)",
            label="Rows of a ring",
            role="system",
        ),
    ] = "zigzag"
    layer: Annotated[
        Annotated[int, Field(ge=0, le=10_000, strict=True), Whole] | None,
        Description(
            "which layer scope `layer` builds",
            unset="the first with global attention",
            caption="layer {:.0f}",
        ),
    ] = None
    fold: Annotated[
        bool,
        Description("output projection folded over the query groups (D-Attn)", role="system"),
    ] = False
    chunk: Annotated[
        Positive | None,
        Description(
            "visual stream in chunks of N tokens, recomputed in backward (D-Attn)",
            unset="off",
            role="system",
        ),
    ] = None
    skip_last: Annotated[
        bool,
        Description(
            "no visual output that nothing reads, as of the last layer (D-Attn)",
            role="system",
        ),
    ] = False
    tiled: Annotated[bool, Description("MLP and logits in tiles", role="system")] = False
    cache: Annotated[
        bool,
        Description(
            "a forward pass keeps the keys and values of every layer, as inference does (S-Attn, "
            "FastV, PyramidDrop, the D-Attn family, HiMix, SAISA); `limit` of a whole model's "
            "forward does so by itself, `--no-cache` leaves it out",
            role="system",
        ),
    ] = False
    cache_dtype: Annotated[
        CacheDtype | None,
        Description(
            "how keys and values are held: `bfloat16` (under float32), `fp8`, `int8` with their "
            "scales; in a decode step, and in a prefill, which then keeps them (S-Attn, FastV, "
            "PyramidDrop)",
            label="Cache in",
            unset="the dtype",
            operators=True,
        ),
    ] = None
    experts_skew: Annotated[
        bool,
        Description(
            "all tokens are sent to the same experts of a layer, the worst that a router does; "
            "evenly without it",
            operators=True,
        ),
    ] = False
    checkpoint: Annotated[
        bool, Description("gradient checkpointing of every layer", role="system")
    ] = False
    checkpoint_every: Annotated[
        Annotated[int, Field(ge=1, le=10_000, strict=True), Whole] | None,
        Description("gradient checkpointing of every K layers", unset="off", role="system"),
    ] = None
    offload: Annotated[
        bool,
        Description(
            "what the decoder's checkpoints keep waits in host memory; a train pass with "
            "`--checkpoint` at scope `decoder` or `lvlm`",
            role="system",
        ),
    ] = False
    offload_optimizer: Annotated[
        bool,
        Description(
            "AdamW's states and step on the host (ZeRO 1 to 3, also on one GPU)", role="system"
        ),
    ] = False
    visual_positions: Annotated[
        bool,
        Description("learnable positions added to the visual embeddings", role="system"),
    ] = False
    tower: Annotated[
        Name | None,
        Description(
            "at scope `lvlm`: `siglip` asks for the paper's tower and adapter",
            unset="the model's own",
        ),
    ] = None
    compile: Annotated[bool, Description("through `torch.compile`", role="system")] = False
    memory_cap: Annotated[
        Annotated[int, Field(ge=1, strict=True)] | Name | None,
        BeforeValidator(bytes_of),
        Description(
            "bytes, or a device whose capacity is emulated on a larger card",
            unset="off",
            caption="memory capped at {} (emulated)",
        ),
    ] = None
    allocator: Annotated[
        AllocatorSetting,
        Description(
            "the setting of CUDA's caching allocator: `default` or `expandable_segments`, which "
            "trainers use; replayed in a prediction, set in the worker of a measurement"
        ),
    ] = "default"
    weights: Annotated[
        Name | None,
        Description(
            "a hub id or a folder whose weights are loaded",
            unset="random",
            caption="weights {}",
        ),
    ] = None
    reduce: Annotated[
        Name | None,
        Description(
            "a reducer, which makes |V'| visual tokens of |V|, between the tower (scope "
            "`decoder`: the visual embeddings) and the layers",
            label="Reducer",
            unset="none",
            role="system",
            operators=True,
        ),
    ] = None
    settings: Annotated[
        str | None,
        Description(
            "a setting of the system or the reducer, `name=value`; may be repeated. Where both "
            "declare a name, `owner.name=value`",
            option="--set",
            unset="none",
            role="system",
        ),
    ] = None
