"""What is measured or predicted of a cell: one entry a metric."""

from typing import NamedTuple

from workbench.vocabulary.registry import Registry


class Sensor(NamedTuple):
    """What NVML is asked for a metric of the card while a cell is timed; the median counts."""

    query: str
    """A function of NVML that takes the card, such as ``nvmlDeviceGetPowerUsage``."""
    arguments: tuple[int, ...] = ()
    """What it takes behind the card."""
    fact: str = ""
    """Its name in a record's ``details["telemetry"]``; the metric's own where it is empty."""
    divisor: float = 1
    """The driver's units in one of the fact's: 1,000 mW in a W."""
    factor: float = 1
    """The metric's units in one of the fact's."""


class Metric(NamedTuple):
    """What a metric means. Its value is a plain number: exact integers for counts and bytes."""

    unit: str
    label: str
    convention: str
    sensor: Sensor | None = None
    """Where NVML alone says it, how it is asked."""


METRICS: Registry[Metric] = Registry("metric")
for _name, *_metric in (
    ("flops", "FLOP", "FLOPs executed", "dense count, multiply-add = 2, recomputation included"),
    (
        "flops_causal",
        "FLOP",
        "FLOPs, allowed pairs",
        "as flops, query-key pairs under the mask only",
    ),
    (
        "model_flops",
        "FLOP",
        "Model FLOPs",
        "dense count without any recomputation; numerator of MFU",
    ),
    ("params", "1", "Parameters", "of the scope, tied weights once"),
    (
        "active_params",
        "1",
        "Active parameters",
        "params without the experts that one token does not meet; of models with experts",
    ),
    ("peak_bytes", "B", "Peak memory", "peak of allocated bytes, device context excluded"),
    ("reserved_bytes", "B", "Reserved memory", "peak that the caching allocator held, CUDA only"),
    (
        "device_bytes",
        "B",
        "Whole-card memory",
        "used bytes of the card by NVML after the iterations",
    ),
    ("weight_bytes", "B", "Weights", "bytes of parameters and buffers"),
    (
        "quantized_weight_bytes",
        "B",
        "Weights as quantised",
        "of the scope, in the layout of the checkpoint's quantization_config; nothing runs in it",
    ),
    ("gradient_bytes", "B", "Gradients", "bytes of gradients of weights"),
    (
        "optimizer_bytes",
        "B",
        "Optimizer states",
        "of one rank: what the optimizer keeps, and float32 master weights",
    ),
    (
        "optimizer_flops",
        "FLOP",
        "Optimizer FLOPs",
        "matmuls of an optimizer step (Muon's); not in flops, nor in model_flops",
    ),
    (
        "activation_bytes",
        "B",
        "Saved activations",
        "held from forward to backward, inputs excluded",
    ),
    (
        "offload_bytes",
        "B",
        "Offloaded activations",
        "on the host when the forward is over; not in peak_bytes, but on a CPU",
    ),
    (
        "working_bytes",
        "B",
        "Working set",
        "temporaries alive at the peak: what is left of it beside the other kinds",
    ),
    ("time_s", "s", "Seconds per iteration", "median of whole iterations after warm-up"),
    (
        "samples_per_s",
        "1/s",
        "Samples per second",
        "of all ranks, a training step's samples over time_s",
    ),
    (
        "tokens_per_s",
        "1/s",
        "Tokens per second",
        "as samples_per_s, visual and text tokens",
    ),
    (
        "all_to_all_bytes",
        "B",
        "Sequence exchange",
        "sent by one rank to those that share its sequence by heads, in an iteration",
    ),
    (
        "ring_bytes",
        "B",
        "Ring exchange",
        "sent by one rank to those that share its sequence by rows, in an iteration",
    ),
    (
        "communication_share",
        "1",
        "Share in collectives",
        "of one iteration of several ranks, overlap with computing included",
    ),
    (
        "device_time_s",
        "s",
        "Seconds of a replayed graph",
        "median of replays of the iteration as a CUDA graph: the card without the host",
    ),
    (
        "busy_share",
        "1",
        "Share in which the card was busy",
        "of time_s, the union of kernels and copies of one profiled iteration",
    ),
    (
        "prepare_s",
        "s",
        "Preparation",
        "from the first iteration to the first warm one: compilation, plans, the memory pass",
    ),
    ("time_q1_s", "s", "Time, first quartile", "of the same samples as time_s"),
    ("time_q3_s", "s", "Time, third quartile", "of the same samples as time_s"),
    ("forward_s", "s", "Forward", "median, a train pass's forward alone"),
    ("backward_s", "s", "Backward", "median, a train pass's backward alone"),
    ("optimizer_s", "s", "Optimizer step", "median, a train pass's optimizer step alone"),
    (
        "energy_j",
        "J",
        "Energy per iteration",
        "the card's total-energy counter over the timed samples, divided by their number",
    ),
    (
        "power_w",
        "W",
        "Power",
        "median of what the card drew while timed",
        Sensor("nvmlDeviceGetPowerUsage", divisor=1000),
    ),
    (
        "sm_clock_hz",
        "Hz",
        "SM clock",
        "median of the card's multiprocessors while timed",
        Sensor("nvmlDeviceGetClockInfo", (1,), "sm_clock_mhz", factor=1e6),
    ),
    (
        "power_cap_share",
        "1",
        "Share at the power cap",
        "of the looks while timed, those in which the card's power limit held its clock",
    ),
    ("num_samples", "1", "Timed iterations", "number of samples behind time_s"),
    ("kv_cache_bytes", "B", "KV cache", "keys and values of all tokens, before a decoded one"),
    (
        "bytes_moved",
        "B",
        "Bytes moved",
        "operator inputs read once and outputs written once, unfused",
    ),
    (
        "mfu_causal",
        "1",
        "MFU, allowed pairs",
        "as mfu, without the pairs that the mask hides: a fused kernel skips them",
    ),
    (
        "achieved_flops_s",
        "FLOP/s",
        "Achieved FLOP/s",
        "flops, without pairs that a mask hides where the kernel skips them, over time_s",
    ),
    ("achieved_bytes_s", "B/s", "Achieved bytes/s", "bytes_moved over time_s"),
    (
        "arithmetic_intensity",
        "FLOP/B",
        "Arithmetic intensity",
        "the FLOPs of achieved_flops_s over bytes_moved",
    ),
    (
        "ceiling_flops_s",
        "FLOP/s",
        "Measured ceiling, FLOP/s",
        "a large matmul in the cell's data type, once per environment",
    ),
    (
        "ceiling_bytes_s",
        "B/s",
        "Measured ceiling, bytes/s",
        "read and written by a large copy, once per environment",
    ),
    (
        "ceiling_fraction",
        "1",
        "Share of the measured roofline",
        "achieved_flops_s over what the measured ceilings allow at its intensity",
    ),
    ("mfu", "1", "MFU", "model_flops over time_s over the datasheet's dense bf16 peak"),
    (
        "mfu_at_clock",
        "1",
        "MFU at the clock that was there",
        "mfu with the peak scaled by sm_clock_hz over the clock that the peak is stated for",
    ),
):
    METRICS.add(_name, Metric(*_metric))
