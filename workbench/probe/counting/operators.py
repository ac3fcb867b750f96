"""Every operator that a traced iteration runs: what CUDA does there, and where torch has it.

``docs/method.md`` shows this table (a test holds the two together), and a test traces every
system and family and fails for an operator that is not in it. Files are below torch's
``aten/src/ATen/native``.
"""

from typing import NamedTuple

SAME = "its tensors alone"
POINTWISE = "one pointwise kernel: its tensors alone"


class Row(NamedTuple):
    """How a card runs some operators of the same kind."""

    operators: tuple[str, ...]
    """Names as a trace has them: torch's without ``aten.``."""
    card: str
    """What CUDA allocates there, beside shapes on ``meta``, and what the trace does about it."""
    source: str
    read: bool = False
    """Whether the named file was read for this table, in a stored version of torch's repository
    (which need not be the newest); else it is only where torch has the operator."""


def names(text: str) -> tuple[str, ...]:
    """The words of ``text``."""
    return tuple(text.split())


ROWS = (
    Row(
        names("_softmax_backward_data"),
        "grad · output, and a copy of a strided grad: in the trace (`temporaries`)",
        "cuda/SoftMax.cu, softmax_backward_cuda_out",
        True,
    ),
    Row(
        names("_softmax"),
        "its tensors alone; float16 is widened within the kernel, as the trace has it",
        "cuda/SoftMax.cu, softmax_cuda_out",
        True,
    ),
    Row(
        names("_log_softmax _log_softmax_backward_data"),
        "its tensors alone: no product as in softmax's backward",
        "cuda/SoftMax.cu, log_softmax_backward_cuda_out",
        True,
    ),
    Row(
        names(
            "_scaled_dot_product_efficient_attention "
            "_scaled_dot_product_efficient_attention_backward"
        ),
        "its tensors; the backward's workspace, row sums of output and its gradient and the bias "
        "padded to a multiple of 16 are left out (towers with a mask or a bias)",
        "transformers/cuda/attention_backward.cu, _efficient_attention_backward",
        True,
    ),
    Row(
        names("upsample_linear1d upsample_linear1d_backward"),
        "its tensors; a copy of a strided gradient is left out (a tower's)",
        "cuda/UpSampleLinear1d.cu, upsample_linear1d_backward_out_cuda_template",
        True,
    ),
    Row(
        names("upsample_bilinear2d upsample_bilinear2d_backward"),
        "its tensors; a copy of a strided gradient is left out (DeepSeek-VL's two towers)",
        "cuda/UpSampleBilinear2d.cu",
    ),
    Row(
        names("upsample_nearest2d upsample_nearest2d_backward"),
        "its tensors; a copy of a strided gradient is left out (Gemma 3n's tower)",
        "cuda/UpSampleNearest2d.cu",
    ),
    Row(
        names("_safe_softmax"),
        "taken apart on a card: comparison, softmax and where make some "
        "three tensors; the trace has one (kernel `math`, and Gemma 3n's tower under sdpa)",
        "transformers/attention.cpp, _safe_softmax",
    ),
    Row(
        names("workbench.fused_rms_norm workbench.fused_rms_norm_backward"),
        "one kernel of "
        "`_fused_rms_norm` for what `meta` takes apart: in the trace (`card_operators`); partial "
        "sums of the weight's gradient are left out",
        "layer_norm.cpp; cuda/layer_norm_kernel.cu",
    ),
    Row(
        names("native_layer_norm native_layer_norm_backward"),
        "its tensors; a strided input is "
        "copied and partial sums of the weight's gradient are held: left out (a tower's)",
        "cuda/layer_norm_kernel.cu, layer_norm_backward_cuda",
        True,
    ),
    Row(
        names("native_batch_norm native_batch_norm_backward"),
        "its tensors, and a mean and a variance a channel; what cuDNN reserves for the backward "
        "is left out (FastVLM's tower)",
        "Normalization.cpp; cuda/Normalization.cu; cudnn/BatchNorm.cpp",
    ),
    Row(
        names("logsumexp"),
        "exp(x − max), as large as x: in the trace (`temporaries`)",
        "ReduceOps.cpp, logsumexp_out_impl",
    ),
    Row(
        names("index_put index_put_"),
        "sorted and linear indices, copies of expanded values, "
        "where it accumulates: in the trace (`temporaries`)",
        "cuda/Indexing.cu, index_put_with_sort_kernel",
    ),
    Row(
        names("embedding_dense_backward"),
        "sorted above 3,072 rows, with float32 sums of runs: in the trace (`temporaries`)",
        "cuda/Embedding.cu; cuda/EmbeddingBackwardKernel.cu",
    ),
    Row(
        names("sum mean"),
        "a float32 accumulator beyond 32-bit offsets: in the trace "
        "(`temporaries`); partial sums between blocks of threads (some KB) are left out",
        "cuda/Reduce.cuh, AccumulationBuffer",
    ),
    Row(
        names(
            "_scaled_dot_product_flash_attention_for_cpu "
            "_scaled_dot_product_flash_attention_for_cpu_backward"
        ),
        "the kernel that the cell names, not this one: outputs and log-sum-exp are the same, the "
        "backward's temporaries are the kernel's own (`Kernel.temporaries`)",
        "each file of `workbench/lvlm/kernels`",
    ),
    Row(
        names("mm addmm bmm baddbmm"),
        "cuBLAS and its workspace (kind `workspace`); an operand whose "
        "strides cuBLAS does not take is copied: left out",
        "cuda/Blas.cpp, prepare_matrix_for_cublas",
        True,
    ),
    Row(
        names("_grouped_mm"),
        "one kernel of CUTLASS for bfloat16 from Hopper on, with some KB of "
        "pointers; elsewhere a matmul for each expert: its tensors",
        "cuda/GroupedBlas.cpp",
    ),
    Row(names("div_"), POINTWISE, "TensorIterator.cpp; cuda/Loops.cuh"),
    Row(
        names("histc cumsum"),
        "counts of rows and their sums, one number an expert; CUB's "
        "buffers (some KB) are left out",
        "cuda/SummaryOps.cu; cuda/ScanKernels.cpp",
    ),
    Row(
        names("convolution convolution_backward"),
        "cuDNN's plans have workspaces of their own, and channel by channel a strided input is "
        "copied: left out (a tower's patches, all of Gemma 3n's and FastVLM's towers, a linear "
        "layer's few taps)",
        "Convolution.cpp; cudnn/ConvShared.cpp",
    ),
    Row(
        names("avg_pool2d avg_pool2d_backward"),
        "its tensors; a strided input is copied: left out (Gemma 3's projector)",
        "cuda/AveragePool2d.cu",
        True,
    ),
    Row(
        names("_adaptive_avg_pool2d _adaptive_avg_pool2d_backward"),
        "its tensors; a copy of a strided gradient is left out (PerceptionLM's projector)",
        "cuda/AdaptiveAveragePooling.cu",
    ),
    Row(
        names("nll_loss_forward nll_loss_backward"),
        "its tensors; strided rows would be copied, but a log-softmax has none",
        "cuda/Loss.cu, nll_loss_forward_out_cuda_template",
        True,
    ),
    Row(
        names("native_dropout native_dropout_backward"),
        "one kernel and a mask of bools, where other devices multiply by noise: in the trace "
        "(`card_operators`)",
        "Dropout.cpp; cuda/Dropout.cu",
    ),
    Row(
        names("workbench.widen_cache"),
        "a product of codes and scales, or a copy, into the tensor that holds the new token too: "
        "its tensors alone",
        "TensorIterator.cpp; cuda/Loops.cuh",
    ),
    Row(names("amax all"), SAME, "ReduceOps.cpp; cuda/Reduce.cuh"),
    Row(names("cat stack"), SAME, "cuda/Shape.cu, cat_out_cuda", True),
    Row(names("repeat"), SAME, "TensorShape.cpp, repeat"),
    Row(
        names("im2col col2im"),
        "its output: patches of a tower or of its adapter",
        "cuda/Im2Col.cu; cuda/Col2Im.cu",
    ),
    Row(
        names("constant_pad_nd"),
        "its output, filled and copied into: its tensors alone",
        "PadNd.cpp, constant_pad_nd",
        True,
    ),
    Row(names("triu tril"), SAME, "cuda/TriangularOps.cu, triu_tril_cuda_template", True),
    Row(names("gelu gelu_backward"), POINTWISE, "cuda/ActivationGeluKernel.cu", True),
    Row(names("silu silu_backward"), POINTWISE, "cuda/ActivationSiluKernel.cu", True),
    Row(names("lerp"), POINTWISE, "cuda/Lerp.cu", True),
    Row(names("logaddexp"), POINTWISE, "cuda/LogAddExpKernel.cu", True),
    Row(
        names(
            "add add_ sub sub_ rsub mul mul_ div neg exp log log1p floor pow rsqrt sigmoid "
            "sigmoid_backward tanh tanh_backward ge gt lt eq clamp clamp_min sin cos "
            "bitwise_and bitwise_or logical_not where masked_fill abs clamp_ round_ erfinv le "
            "logical_and logical_and_ masked_fill_ reciprocal relu relu_ sqrt threshold_backward"
        ),
        POINTWISE,
        "TensorIterator.cpp; cuda/Loops.cuh",
    ),
    Row(
        names("_to_copy clone copy_"),
        "its tensors alone: on one device types and strides change within the kernel",
        "cuda/Copy.cu, copy_kernel_cuda",
    ),
    Row(
        names("to_host from_host"),
        "a copy to pinned memory and back: on a card the host is "
        'another place (see "Activation offload")',
        "cuda/Copy.cu, copy_kernel_cuda",
    ),
    Row(names("index embedding"), SAME, "cuda/IndexKernel.cu; TensorAdvancedIndexing.cpp"),
    Row(
        names("topk"),
        "its tensors; results of more than some thousand a slice are sorted beside "
        "copies of them: left out (choices of regions and tokens)",
        "cuda/TensorTopK.cpp, topk_out_cuda",
        True,
    ),
    Row(
        names("sort"),
        "CUB's buffers for keys and indices, some four times the result: left out "
        "(places of rows, a few bytes a row)",
        "cuda/Sort.cpp; cuda/SortStable.cu",
    ),
    Row(
        names("searchsorted bucketize arange remainder floor_divide bitwise_not"),
        "their tensors alone: places and masks of rows",
        "cuda/Bucketization.cu; TensorIterator.cpp",
    ),
    Row(
        names("max"),
        "its values and indices; partial results between blocks of threads (some "
        "KB) are left out (choices of tokens)",
        "cuda/ReduceMaxValuesKernel.cu",
    ),
    Row(
        names("std"),
        "its tensors; partial moments between blocks of threads (some KB) are left out (gates of "
        "Gemma 3n's first layers)",
        "cuda/ReduceMomentKernel.cu",
    ),
    Row(
        names("linalg_vector_norm"),
        "its tensors; partial sums between blocks of threads (some KB) are left out",
        "cuda/ReduceNormKernel.cu",
    ),
    Row(
        names("index_select index_copy index_add scatter scatter_ scatter_reduce"),
        SAME,
        "cuda/Indexing.cu; cuda/IndexKernel.cu; cuda/ScatterGatherKernel.cu",
    ),
    Row(
        names("gather scatter_add"),
        "its tensors alone: the backward adds by atomics into zeros",
        "cuda/ScatterGatherKernel.cu, cuda_scatter_gather_base_kernel",
        True,
    ),
    Row(
        names("select_backward"),
        "zeros as large as the input, written in place",
        "TensorShape.cpp, select_backward",
    ),
    Row(
        names("slice_backward"),
        "zeros as large as the input, written in place",
        "TensorShape.cpp, slice_backward",
    ),
    Row(
        names("grid_sampler_2d grid_sampler_2d_backward"),
        "its tensors alone: the backward adds by atomics into zeros (GLM-4.1V's positions)",
        "cuda/GridSampler.cu",
    ),
    Row(
        names("_upsample_bilinear2d_aa _upsample_bilinear2d_aa_backward"),
        "its tensors alone: the backward adds by atomics into zeros (LFM2-VL's positions)",
        "cuda/UpSampleBilinear2d.cu",
    ),
    Row(
        names("_embedding_bag _embedding_bag_backward"),
        "its tensors; the backward sorts its indices, some tens of bytes each: left out (Kimi "
        "K2.5's positions)",
        "cuda/EmbeddingBag.cu; cuda/EmbeddingBackwardKernel.cu",
    ),
    Row(
        names("linalg_solve_triangular"),
        "its tensors; cuBLAS takes a pointer for each matrix (some "
        "hundred KB), and an operand whose strides it does not take is copied: left out (Gated "
        "DeltaNet's chunks)",
        "BatchLinearAlgebra.cpp, linalg_solve_triangular_out",
    ),
    Row(
        names("softplus softplus_backward"),
        POINTWISE,
        "cuda/ActivationSoftplusKernel.cu",
    ),
    Row(names("flip"), SAME, "cuda/TensorTransformations.cu"),
    Row(
        names("rand"),
        "its tensors alone (layers that are left out by chance)",
        "cuda/DistributionUniform.cu",
    ),
    Row(names("_unsafe_view"), "a view: nothing", "TensorShape.cpp"),
    Row(
        names(
            "empty empty_like fill_ full full_like new_empty new_empty_strided new_full new_ones "
            "new_zeros ones ones_like scalar_tensor zeros zeros_like"
        ),
        "its tensors alone: a request, and a fill",
        "TensorFactories.cpp; cuda/FillKernel.cu",
    ),
)
"""All of them. An operator stands in one row."""

KNOWN = frozenset(name for row in ROWS for name in row.operators)
"""The names of all operators that were gone through."""


def markdown() -> str:
    """The table as ``docs/method.md`` has it."""
    lines = ["| operators | on a card | torch's source | read |", "|---|---|---|---|"]
    for row in ROWS:
        listed = ", ".join(f"`{name}`" for name in row.operators)
        answer = "yes" if row.read else "no"
        lines.append(f"| {listed} | {row.card} | {row.source} | {answer} |")
    return "\n".join(lines) + "\n"
