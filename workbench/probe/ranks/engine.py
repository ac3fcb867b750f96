"""One rank of a training step under deepspeed: its engine, its iteration, what it holds."""

import gc
import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, cuda

from workbench.lvlm.layers import Checkpointed
from workbench.lvlm.loss import IGNORED
from workbench.lvlm.scopes.decoder import Run
from workbench.lvlm.sharing import meeting
from workbench.lvlm.workload import Workload
from workbench.probe.counting.closed import forward_flops
from workbench.probe.counting.parameters import parameters_of
from workbench.probe.counting.tracker import storage_bytes
from workbench.probe.machine.launch import search_path
from workbench.probe.measuring.busy import events_of, union
from workbench.probe.ranks.deepspeed_config import engine_config


def join(place: str) -> None:
    """Meet the other ranks: NCCL between cards, gloo between processes on the CPU."""
    on_cpu = place == "cpu"
    # Before the import, which would otherwise look for an accelerator by itself.
    os.environ["DS_ACCELERATOR"] = "cpu" if on_cpu else "cuda"
    os.environ["PATH"] = search_path()
    if not on_cpu:
        cuda.set_device(torch.device(place))
    import deepspeed
    from deepspeed.utils import logger

    logger.setLevel("ERROR")
    # deepspeed's, once for each collective and rank.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    deepspeed.init_distributed("gloo" if on_cpu else "nccl", verbose=False)


def own_samples(workload: Workload, rank: int) -> None:
    """Other samples on each rank, the same on those that share a sequence.

    Random visual inputs and random text; what files show, every sample shows.
    """
    seed = 1 + rank // workload.cell.sharing
    torch.manual_seed(seed)
    visual, *text = workload.inputs
    pictures = workload.context.pictures
    if pictures is None or not pictures.has_files:
        visual.data.normal_()
    if workload.cell.ring > 1:
        torch.manual_seed(seed)  # Ranks with other numbers of visual rows have the same text.
    for ids in text:
        if ids.is_floating_point():  # What a reducer reads beside the embeddings.
            ids.normal_()
            continue
        ignored = ids == IGNORED
        ids.random_(workload.context.model.config.vocab_size).masked_fill_(ignored, IGNORED)


class Rank:
    """A workload whose iterations run through deepspeed's engine."""

    def __init__(self, workload: Workload) -> None:
        import deepspeed

        self.workload, self.cell = workload, workload.cell
        self.losses: list[float] = []
        settings = workload.hyper
        groups = [
            {"params": trained, "lr": settings.rate(part)}
            for part, trained in workload.groups().items()
        ]
        # Fused: the others make copies of whole partitions while they step.
        optimizer = torch.optim.AdamW(
            groups,
            lr=settings.rates["adapter"],
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        if self.cell.zero == 3 and (self.cell.chunk or self.cell.tiled):
            # Chunks take a layer's weights as arguments, so that all of them must be gathered.
            deepspeed.utils.set_z3_leaf_modules(workload.module, leaf_classes(workload))
        self.engine, self.optimizer, *_ = deepspeed.initialize(
            model=workload.module,
            optimizer=optimizer,
            mpu=meeting(self.cell.sharing) if self.cell.sharing > 1 else None,
            config=engine_config(self.cell, parameters_of(workload)),
        )

    def step(self) -> None:
        """One iteration: every micro-batch, the reduction of gradients, the optimizer step."""
        self._micro_batches(self.engine.step)

    def held(self) -> dict[str, int]:
        """Bytes of this rank's weights, gradients after a backward, and optimizer states.

        Runs an iteration and looks before its optimizer steps. Another has to come before, which
        makes some of it.
        """
        sizes: dict[str, int] = {}

        def look() -> None:
            if self.engine.is_gradient_accumulation_boundary():
                sizes.update(self._states())
            self.engine.step()

        self._micro_batches(look)
        sizes["optimizer"] = storage_bytes(self._optimizer_states())
        return sizes

    def _micro_batches(self, step: Callable[[], object]) -> None:
        for tensor in self.workload.inputs:
            tensor.grad = None
        for _ in range(self.cell.accumulate):
            loss = self.engine(*self.workload.inputs)
            self.engine.backward(loss)
            step()
        self.losses.append(float(loss.detach()))

    def _states(self) -> dict[str, int]:
        parameters = list(self.workload.module.parameters())
        shards = [p.ds_tensor for p in parameters if hasattr(p, "ds_tensor")]
        flat = getattr(self.optimizer, "bit16_groups_flat", [])
        weights = storage_bytes([*flat, *shards, *(p.data for p in parameters)])
        if self.cell.zero == 0:
            gradients: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
        elif self.cell.zero == 3:
            gradients = [self.optimizer.grad_partitions_flat_buffer]
        elif self.cell.offload_optimizer:
            gradients = [p.grad for p in self.optimizer.single_partition_of_fp32_groups]
        else:
            gradients = [g for gs in self.optimizer.averaged_gradients.values() for g in gs]
            gradients = [g for g in gradients if not getattr(g, "_zero_padding", False)]
        return {"weights": weights, "gradients": storage_bytes(gradients)}

    def _optimizer_states(self) -> list[Tensor]:
        inner = getattr(self.optimizer, "optimizer", self.optimizer)
        moments = [
            value
            for state in inner.state.values()
            for value in state.values()
            if isinstance(value, Tensor) and value.ndim
        ]
        masters = [
            *getattr(self.optimizer, "single_partition_of_fp32_groups", []),
            *getattr(self.optimizer, "fp32_partitioned_groups_flat", []),
            *(m for group in getattr(self.optimizer, "fp32_groups", []) for m in group),
        ]
        return [*moments, *masters]


def leaf_classes(workload: Workload) -> list[type]:
    """The classes of this workload's layers, innermost: what a checkpoint wraps."""
    classes = []
    for layer in workload.module.get_submodule("layers").children():
        while isinstance(layer, (Checkpointed, Run)):
            layer = layer.inner if isinstance(layer, Checkpointed) else layer.blocks[0]
        classes.append(type(layer))
    return list(dict.fromkeys(classes))


def peak_bytes(rank: Rank) -> tuple[int, int | None]:
    """Peak of allocated bytes of one iteration, and of reserved ones on a card."""
    device = rank.workload.context.device
    if device.type == "cpu":
        gc.collect()
        resident = storage_bytes(reachable())
        return resident + cpu_rise(rank.step), None
    cuda.synchronize(device)
    cuda.reset_peak_memory_stats(device)
    rank.step()
    cuda.synchronize(device)
    return cuda.max_memory_allocated(device), cuda.max_memory_reserved(device)


def cpu_rise(step: Callable[[], None]) -> int:
    """How far the CPU allocator's live bytes rise above where they stand, by its own events.

    What an iteration frees of an earlier one's counts too.
    """
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        step()
    changes = [e for e in events_of(profiler) if e.name() == "[memory]"]
    live = best = 0
    for event in sorted(changes, key=lambda event: event.start_ns()):
        live += event.nbytes()
        best = max(best, live)
    return best


def reachable() -> list[Tensor]:
    """Every tensor on the CPU that Python holds, gradients among them."""
    # By type: asking an object for its class may run a library's lazy import.
    tensors = [x for x in gc.get_objects() if issubclass(type(x), Tensor)]
    tensors += [x.grad for x in tensors if x.is_leaf and x.grad is not None]
    return [x for x in tensors if x.device.type == "cpu"]


COLLECTIVES = ("gloo:", "ncclDevKernel", "ncclKernel")


def communication_share(step: Callable[[], None], device: torch.device) -> float:
    """Share of one iteration's time in which a collective was under way, overlap included."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    profiler = torch.profiler.profile(activities=activities)
    with profiler, torch.profiler.record_function("iteration"):
        step()
        if device.type == "cuda":
            cuda.synchronize(device)
    events = events_of(profiler)
    (whole,) = (e.duration_ns() for e in events if e.name() == "iteration")
    spans = [
        (e.start_ns(), e.start_ns() + e.duration_ns())
        for e in events
        if e.name().startswith(COLLECTIVES)
    ]
    return min(1.0, union(spans) / whole)


def profiled_flops(workload: Workload) -> dict[str, Any]:
    """A forward's FLOPs by deepspeed's profiler, beside this workbench's closed form."""
    from deepspeed.profiling.flops_profiler import FlopsProfiler

    profiler = FlopsProfiler(workload.module)
    profiler.start_profile()
    with torch.no_grad(), workload.guard():
        workload.module(*workload.inputs)
    counted = int(profiler.get_total_flops())
    profiler.end_profile()
    if workload.cell.lora is not None:  # There is no closed form of adapters.
        return {"forward_flops": counted}
    expected = forward_flops(workload)
    return {
        "forward_flops": counted,
        "forward_flops_here": expected,
        "ratio": counted / expected,
    }
