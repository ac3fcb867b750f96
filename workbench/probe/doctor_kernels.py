"""The half of the doctor that runs torch: which kernels work here, how fast the CPU multiplies."""

import re
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from workbench.probe.finding import Finding

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
MATMUL_SIZE = 1024
MATMUL_SECONDS = 0.2


def _heads(device: str) -> Tensor:
    """Small random heads [1, 4, 128, 64] in the type that kernels are made for."""
    return torch.randn(1, 4, 128, 64, device=device, dtype=torch.bfloat16, requires_grad=True)


def _backend(name: str, device: str) -> str:
    q_bhtk = _heads(device)
    with sdpa_kernel(BACKENDS[name]):
        F.scaled_dot_product_attention(q_bhtk, q_bhtk, q_bhtk, is_causal=True).sum().backward()
    return "forward and backward ran"


def _flex(device: str) -> str:
    from torch.nn.attention.flex_attention import flex_attention

    q_bhtk = _heads(device)
    if device == "cpu":
        q_bhtk = q_bhtk.detach()
        flex_attention(q_bhtk, q_bhtk, q_bhtk)
        return "forward ran; torch has no backward for it on a CPU"
    torch.compile(flex_attention)(q_bhtk, q_bhtk, q_bhtk).sum().backward()
    return "forward and backward ran"


def _try(name: str, device: str, run: Callable[[], str]) -> Finding:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            ok, detail = True, run()
        except RuntimeError as error:
            # Torch refuses with a general error and says why in warnings.
            reasons = [str(warning.message).split(" (Triggered")[0] for warning in warned]
            ok, detail = False, "; ".join(reasons) or str(error).splitlines()[0]
    cost = f"cells with --kernel {name} are 'unsupported' on {device}"
    return Finding(f"kernel {name}", ok, detail, cost, "another kernel, or another device")


def kernels(device: str) -> list[Finding]:
    """Run every SDPA back end and flex once on ``cpu`` or ``cuda``."""
    findings = [
        _try(name, device, lambda name=name: _backend(name, device))  # type: ignore[misc]
        for name in BACKENDS
    ]
    return [*findings, _try("flex", device, lambda: _flex(device))]


def _matmul_rate(dtype: torch.dtype) -> float:
    """FLOP/s of a square linear layer of ``MATMUL_SIZE`` on the CPU: the median of some calls.

    A layer's own layout, weights transposed: without bfloat16 instructions others are far slower.
    """
    a_mk = torch.randn(MATMUL_SIZE, MATMUL_SIZE).to(dtype)
    F.linear(a_mk, a_mk)
    seconds: list[float] = []
    while sum(seconds) < MATMUL_SECONDS:
        start = time.perf_counter()
        F.linear(a_mk, a_mk)
        seconds.append(time.perf_counter() - start)
    return 2.0 * MATMUL_SIZE**3 / sorted(seconds)[len(seconds) // 2]


def cpu_arithmetic() -> list[Finding]:
    """Whether the CPU multiplies bfloat16 in hardware, and the measured rate beside float32's."""
    text = Path("/proc/cpuinfo").read_text(errors="replace")
    instructions = sorted(set(re.findall(r"\b(?:avx512_bf16|amx_bf16|bf16|sve_bf16)\b", text)))
    float32, bfloat16 = _matmul_rate(torch.float32), _matmul_rate(torch.bfloat16)
    rates = (
        f"a linear layer of {MATMUL_SIZE}² runs at {float32 / 1e9:,.0f} GFLOP/s in float32 and at"
        f" {bfloat16 / 1e9:,.0f} in bfloat16"
    )
    detail = f"{', '.join(instructions) or 'no bfloat16 instructions'}; {rates}"
    cost = "times of bfloat16 cells on this CPU say little"
    return [
        Finding("cpu bfloat16", bool(instructions), detail, cost, "--dtype float32 for CPU cells")
    ]
