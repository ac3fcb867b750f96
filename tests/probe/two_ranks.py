"""One of two ranks: trains small models under every ZeRO stage; rank 0 writes what all found.

``torchrun --nproc-per-node 2 -m tests.probe.two_ranks CELLS.json OUT.json``
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from workbench.lvlm.attention import s_attn
from workbench.lvlm.build import build
from workbench.lvlm.scopes import decoder
from workbench.probe.engine import Rank, join, own_samples
from workbench.spec import make_cell


def found(fields: dict[str, Any]) -> dict[str, Any]:
    """Losses of three steps and the bytes of each rank's states."""
    torch.manual_seed(0)
    workload = build(make_cell(**fields))
    own_samples(workload, dist.get_rank())
    rank = Rank(workload)
    with workload.guard():
        mine: dict[str, Any] = rank.held()
        rank.step()
    ranks: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(ranks, {**mine, "losses": rank.losses})
    rank.engine.destroy()
    return {"ranks": ranks}


def main() -> None:
    cells, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    join("cpu")
    decoder.TILE = s_attn.TILE = 16  # Small enough for tiles in sequences of a test.
    results = {name: found(fields) for name, fields in cells.items()}
    if os.environ["RANK"] == "0":
        out.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
