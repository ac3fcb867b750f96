"""The reference campaign: what an H100-class card really does, in parts that resume.

``python probes/reference_campaign.py --part 3 --out reports/reference`` runs one part, or goes on
with it; without ``--part`` all but the eighth, in order. Each part keeps a store of its own and
stops itself before ``--minutes`` are over. ``--dry-run`` predicts the minutes, ``--rehearse`` runs
the same code on the CPU with a tiny model.

A card with more memory than an H100 is capped to it for thresholds. An H200's bandwidth is 1.43
times an H100's: times of matmul-bound work carry over, those of memory-bound work do not.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from workbench.devices import device as device_entry
from workbench.errors import Failure, RequestError
from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.kernels import KERNELS
from workbench.probe.machine.environment import device_name, environment, resolve_device
from workbench.probe.measuring.agreement import agreement
from workbench.probe.predicting.predict import predict
from workbench.probe.workers.client import Client
from workbench.probe.workers.estimate import Forecast
from workbench.probe.workers.measured_limit import measured_limit
from workbench.record import Record
from workbench.spec import Cell, Point, Protocol, make_cell, make_point
from workbench.store import Store

CARD, CAP = "h200-141gb", "h100-80gb"
"""What the dry run predicts for, and whose capacity thresholds have."""
REACHED = 0.5
"""Share of the datasheet's peak that the dry run plans with; part 1 measures the real one."""
CELL_S, START_S = 1.0, 15.0
"""Seconds beside the iterations of a cell, and of a fresh process, that the dry run plans with."""
CHUNKS = {False: 8192, True: 32}
PROVEN = "d_attn"
"""The system whose threshold all layers prove; a rehearsal has one system alone."""
FLASH = {"attention": "s_attn", "kernel": "flash"}
D_ATTN = {"attention": "d_attn", "kernel": "flash"}
STEP = {"scope": "decoder", "pass": "train", "checkpoint": True, "logits": "text"}
RANK = {**STEP, "zero": 3, "world_size": 32}


class OutOfTime(Exception):
    """The part's minutes are over; what ran is stored."""


@dataclass
class Campaign:
    """Sizes and places of one campaign, real or rehearsed."""

    out: Path
    rehearse: bool = False
    minutes: float = 8.0
    started: float = field(default_factory=time.monotonic)

    @property
    def device(self) -> str:
        return "cpu" if self.rehearse else "cuda"

    @cached_property
    def models(self) -> tuple[str, ...]:
        if not self.rehearse:
            return "mistral-7b-v0.3", "gemma-2-9b"
        from transformers import MistralConfig

        folder = self.out / "rehearsal-model"
        if not folder.exists():
            MistralConfig(
                vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=4,
                num_attention_heads=4, num_key_value_heads=2, head_dim=8, sliding_window=None,
            ).save_pretrained(folder)  # fmt: skip
        return (str(folder),)

    @property
    def sizes(self) -> tuple[int, ...]:
        """|V| of the layer sweeps: every other power of two first, which spans the range."""
        powers = range(5, 8) if self.rehearse else range(8, 17)
        return tuple(2**i for i in (*powers[::2], *powers[1::2]))

    @property
    def steps(self) -> tuple[int, ...]:
        """|V| of Table 2 of the D-Attn paper."""
        return (24, 96) if self.rehearse else (9_000, 74_000)

    @property
    def cap(self) -> int | str:
        return 2 * 10**8 if self.rehearse else CAP

    def cell(self, num_visual: int, **fields: Any) -> Cell:
        dtype = "float32" if self.rehearse else "bfloat16"
        text = 8 if self.rehearse else 400
        common = {"model": self.models[0], "num_text": text, "dtype": dtype}
        return make_cell(**{**common, "num_visual": num_visual, **fields})

    def point(self, cell: Cell, **protocol: Any) -> Point:
        if self.rehearse:
            protocol |= {"min_samples": 1, "precision": None}
        return make_point(cell=cell, source="measured", device=self.device, protocol=protocol)

    def systems(self) -> dict[str, dict[str, Any]]:
        """Of thresholds and steps: eager, the fused baseline, D-Attn whole and chunked."""
        if self.rehearse:
            return {PROVEN: {"attention": "s_attn", "kernel": "eager"}}
        return {
            "s_attn eager": {"attention": "s_attn", "kernel": "eager"},
            "s_attn fused": FLASH,
            PROVEN: D_ATTN,
            "d_attn chunked": {**D_ATTN, "chunk": CHUNKS[self.rehearse]},
        }

    def check_time(self) -> None:
        if time.monotonic() - self.started > self.minutes * 60:
            raise OutOfTime


class Shelf:
    """The store of one part, and the run in it that is continued."""

    def __init__(self, campaign: Campaign, part: int) -> None:
        self.campaign, self.path = campaign, campaign.out / f"part-{part}.db"
        resolve_device(campaign.device)
        self.store = Store.open(self.path, "w")
        self.run = self.store.begin_run(
            f"reference-part-{part}", {"rehearsed": campaign.rehearse},
            environment(campaign.device),
        )  # fmt: skip
        self.name, self.close = device_name(campaign.device), self.store.close

    def has(self, cell: Cell) -> bool:
        status = self.store.identities(self.run).get((cell.key, "measured", self.name))
        return status is not None and status.done

    def keep(self, record: Record) -> None:
        self.store.add(self.run, record)
        seconds = record.metrics.get("time_s")
        took = "" if seconds is None else f" {seconds:.4g} s"
        print(f"{record.status}{took}  {record.cell.title}", flush=True)

    def fill(self, points: Iterable[Point], client: Client) -> None:
        """Run what is missing; raises OutOfTime between two cells."""
        client.ceilings = self.ceilings()
        for point in points:
            if not self.has(point.cell):
                self.campaign.check_time()
                self.keep(client.run(point))

    def ceilings(self) -> Any:
        """What part 1 found this card to reach."""
        path = self.campaign.out / "part-1.db"
        if not path.exists():
            return {}
        with Store.open(path) as first:
            return first.ceilings(environment(self.campaign.device).fingerprint, self.name)


def part_1(campaign: Campaign) -> None:
    """Ceilings: a large matmul and a large copy, kept beside one layer's forward."""
    point = campaign.point(campaign.cell(campaign.sizes[0]), max_seconds=5)
    with closing(Shelf(campaign, 1)) as shelf, Client() as client:
        if shelf.has(point.cell):
            return
        dtype = point.cell.dtype
        client.ceilings = {dtype: client.ceiling(dtype, campaign.device)}
        shelf.keep(client.run(point))


def part_2(campaign: Campaign) -> None:
    """Correctness: every system and kernel against its own eager form in float64."""
    with closing(Shelf(campaign, 2)) as shelf:
        tried = {key for key, *_ in shelf.store.identities(shelf.run)}
        # What failed before goes last: it may take the card's context with it.
        for cell in sorted(correctness_cells(campaign), key=lambda cell: cell.key in tried):
            if not shelf.has(cell):
                campaign.check_time()
                shelf.keep(agreement(cell, campaign.device))


def correctness_cells(campaign: Campaign) -> Iterator[Cell]:
    visual, text = (33, 9) if campaign.rehearse else (1531, 63)
    kernels = ("eager", "flash", "flex") if campaign.rehearse else tuple(KERNELS)
    for model in campaign.models:
        for attention in SYSTEMS:
            for kernel in kernels:
                yield campaign.cell(
                    visual, model=model, attention=attention, kernel=kernel, num_text=text,
                    **{"pass": "train"},
                )  # fmt: skip


def part_3(campaign: Campaign) -> None:
    """Layer sweeps, forward and train."""
    with closing(Shelf(campaign, 3)) as shelf, Client() as client:
        shelf.fill(layer_points(campaign), client)


def layer_points(campaign: Campaign) -> Iterator[Point]:
    s_attn = ("eager", "flash") if campaign.rehearse else ("eager", "flash", "cudnn", "flex")
    for visual in campaign.sizes:
        for model in campaign.models:
            # FlexAttention alone is fused and has Gemma 2's soft-capping.
            fused = "flex" if "gemma" in model else "flash"
            systems: list[dict[str, Any]] = [{"kernel": kernel} for kernel in s_attn]
            systems.append({"kernel": fused, "tiled": True})
            for options in ({}, {"fold": True}, {"chunk": CHUNKS[campaign.rehearse]}):
                systems.append({"attention": "d_attn", "kernel": fused, **options})
            systems.append({"attention": "himix", "kernel": fused})
            for system in systems:
                for pass_ in ("forward", "train"):
                    cell = campaign.cell(visual, model=model, **system, **{"pass": pass_})
                    yield campaign.point(cell, max_seconds=1)


def part_4(campaign: Campaign) -> None:
    """Thresholds of one ZeRO-3 rank of 32, two layers and ballast; one proven with all layers."""
    path = campaign.out / "part-4.json"
    done = json.loads(path.read_text()) if path.exists() else {}
    with closing(Shelf(campaign, 4)) as shelf:
        for name, system in campaign.systems().items():
            if name not in done:
                campaign.check_time()
                done[name] = threshold(campaign, shelf, system)
                path.write_text(json.dumps(done, indent=1))
        if "all layers" not in done:
            done["all layers"] = [
                all_layers(campaign, done[PROVEN][end]) for end in ("max_visual", "fails_at")
            ]
            path.write_text(json.dumps(done, indent=1))


def threshold(campaign: Campaign, shelf: Shelf, system: dict[str, Any]) -> dict[str, Any]:
    """The document of ``workbench limit --measure``; what the store holds is not run again."""
    cell = campaign.cell(0, **RANK, **system, memory_cap=campaign.cap)
    known = {
        record.cell.num_visual: (record.status, int(record.metrics.get("num_samples") or 0))
        for record in shelf.store.records(shelf.run)
        if record.cell.replace(num_visual=0).key == cell.key
    }

    def keep(record: Record) -> None:
        shelf.keep(record)
        campaign.check_time()

    protocol = Protocol(emulate=2, timeout_s=300)
    return measured_limit(cell, campaign.device, protocol, keep, known).document()


def all_layers(campaign: Campaign, num_visual: int) -> dict[str, Any]:
    """One iteration of every layer at an end of the threshold that two layers found."""
    system = campaign.systems()[PROVEN]
    cell = campaign.cell(num_visual, **RANK, **system, memory_cap=campaign.cap)
    with Client() as client:
        point = campaign.point(cell, emulate="all", iterations=1, timeout_s=400)
        return client.run(point).document()


def part_5(campaign: Campaign) -> None:
    """Seconds of a training step at the sizes of Table 2, one rank of 32."""
    with closing(Shelf(campaign, 5)) as shelf, Client() as client:
        shelf.fill(step_points(campaign), client)


def step_points(campaign: Campaign) -> Iterator[Point]:
    for visual in campaign.steps:
        for system in campaign.systems().values():
            cell = campaign.cell(visual, **RANK, **system, memory_cap=campaign.cap)
            yield campaign.point(cell, emulate="all", min_samples=3, precision=None, timeout_s=400)


def part_6(campaign: Campaign) -> None:
    """Predicted against measured, and the calibration where scipy is there to fit it."""
    from workbench.sweep.validate import validation

    stores = [campaign.out / f"part-{n}.db" for n in (3, 5, 7)]
    there = [path for path in stores if path.exists()]
    found = [validation(path) for path in there]
    (campaign.out / "part-6.json").write_text(json.dumps(found, indent=1))
    try:
        from workbench.sweep.calibrate import calibrate
        from workbench.sweep.carry import carried

        found_rates = calibrate(there)
        found_rates.write(campaign.out / f"{found_rates.device}.json")
        if found_rates.device == CARD:
            carried(found_rates, CAP).write(campaign.out / f"{CAP}.json")
    except ModuleNotFoundError as error:
        print(f"no calibration here ({error}): workbench calibrate does it where scipy is")
    except (Failure, RequestError) as error:
        print(f"no calibration: {error}")


def part_7(campaign: Campaign) -> None:
    """Whole-model prefill and decode with their energy; traces of four telling layers."""
    with closing(Shelf(campaign, 7)) as shelf, Client() as client:
        shelf.fill(model_points(campaign), client)
        client.trace = campaign.out / "traces"
        client.trace.mkdir(exist_ok=True)
        shelf.fill(telling_points(campaign), client)


def model_points(campaign: Campaign) -> Iterator[Point]:
    for visual in campaign.steps:
        for system in (FLASH, D_ATTN):
            for pass_ in ("forward", "decode"):
                fields = {**system, "scope": "decoder", "logits": "text", "pass": pass_}
                yield campaign.point(campaign.cell(visual, **fields), max_seconds=5)


def telling_points(campaign: Campaign) -> Iterator[Point]:
    small, large = campaign.sizes[0], max(campaign.sizes) // 2
    chunked = {**D_ATTN, "chunk": CHUNKS[campaign.rehearse]}
    eager = {"kernel": "eager"}
    for visual, system in ((small, eager), (large, FLASH), (large, D_ATTN), (large, chunked)):
        cell = campaign.cell(visual, **system, checkpoint=True, **{"pass": "train"})
        yield campaign.point(cell, max_seconds=2)


def part_8(campaign: Campaign) -> None:
    """The far goal, where time is left: a training step over a million visual tokens."""
    with closing(Shelf(campaign, 8)) as shelf, Client() as client:
        cell = far_cell(campaign)
        for layers in ("all", 2 if campaign.rehearse else 8):
            # The boundaries of all layers need some 115 GiB of the host; of eight, a quarter.
            if not shelf.has(cell):
                protocol = {"emulate": layers, "iterations": 1, "timeout_s": 500}
                shelf.fill([campaign.point(cell, **protocol)], client)


def far_cell(campaign: Campaign) -> Cell:
    size = 384 if campaign.rehearse else 1_000_000
    chunked = {**D_ATTN, "chunk": CHUNKS[campaign.rehearse]}
    kept = {"checkpoint_every": 2, "offload": True, "memory_cap": campaign.cap}
    return campaign.cell(size, **RANK, **chunked, **kept)


PARTS: dict[int, Callable[[Campaign], None]] = {
    1: part_1, 2: part_2, 3: part_3, 4: part_4, 5: part_5, 6: part_6, 7: part_7, 8: part_8,
}  # fmt: skip
PLANNED = range(1, 8)
"""What a call without ``--part`` does."""


def planned_minutes(campaign: Campaign) -> dict[int, float]:
    """Minutes of the card that each part should take: predicted FLOPs and fixed costs."""
    peak = (device_entry(CARD).peak_flops or {})["bfloat16"] * REACHED
    steps = seconds_of(list(step_points(campaign)), peak, iterations=5)
    whole = seconds_of([*model_points(campaign), *telling_points(campaign)], peak, iterations=20)
    far = seconds_of([campaign.point(far_cell(campaign), timeout_s=500)], peak, iterations=2)
    trials = 6 * len(campaign.systems())
    two_of_32 = 2 / 32 * 2 * steps / 5
    return {
        1: (START_S + 2) / 60,
        2: (START_S + CELL_S * len(list(correctness_cells(campaign)))) / 60,
        3: (START_S + seconds_of(list(layer_points(campaign)), peak, iterations=15)) / 60,
        4: (trials * (START_S / 2 + two_of_32) + 2 * START_S + steps / 5) / 60,
        5: (START_S + steps) / 60,
        6: 0.0,
        7: (START_S + whole) / 60,
        8: (START_S + far) / 60,
    }


def seconds_of(points: list[Point], peak: float, iterations: int) -> float:
    """Of all points at that rate; a cell beyond the card's memory costs its start alone."""
    kinds: dict[str, list[Point]] = {}
    for point in points:
        kinds.setdefault(point.cell.replace(num_visual=1).key, []).append(point)
    capacity, total = device_entry(CARD).capacity_bytes or 0, 0.0
    for members in kinds.values():
        by_size = sorted({point.cell.num_visual for point in members})
        known = []
        for size in sorted({by_size[0], by_size[len(by_size) // 2], by_size[-1]}):
            found = predict(members[0].cell.replace(num_visual=size), CARD).metrics
            if found:
                known.append((size, float(found["flops"] or 0), float(found["peak_bytes"] or 0)))
        sizes = np.array([point.cell.num_visual for point in members], dtype=np.float64)
        costs = zip(*Forecast(known, 0.0).at(sizes), strict=True)
        for point, (flops, peak_bytes) in zip(members, costs, strict=True):
            runs = iterations if peak_bytes <= capacity else 0
            total += CELL_S + min(runs * flops / peak, 3 * point.protocol.max_seconds)
    return total


def main(arguments: list[str] | None = None) -> int:
    """0 when the parts are done, 3 when minutes were over: the same command goes on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", type=int, choices=PARTS, action="append", help="default: 1 to 7")
    parser.add_argument("--out", type=Path, default=Path("reports/reference"))
    parser.add_argument("--minutes", type=float, default=8.0, help="for each part of this call")
    parser.add_argument("--dry-run", action="store_true", help="predict the minutes of each part")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with a tiny model")
    given = parser.parse_args(arguments)
    chosen = given.part or list(PLANNED)
    if given.dry_run:
        minutes = planned_minutes(Campaign(given.out))
        for part in chosen:
            print(f"part {part}: {minutes[part]:5.1f} min  {PARTS[part].__doc__}")
        print(f"in all: {sum(minutes[part] for part in chosen):.1f} min, at {REACHED:.0%} of "
              f"the peak of {CARD}")  # fmt: skip
        return 0
    given.out.mkdir(parents=True, exist_ok=True)
    code = 0
    for part in chosen:
        print(f"part {part}: {PARTS[part].__doc__}", flush=True)
        try:
            PARTS[part](Campaign(given.out, given.rehearse, given.minutes))
        except OutOfTime:
            print(f"part {part}: {given.minutes:g} minutes are over; the same command goes on")
            code = 3
        except (Failure, RequestError) as error:
            print(f"part {part}: {error}", file=sys.stderr)
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
