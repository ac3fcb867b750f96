"""How long ``sweep --dry-run`` takes over 100,000 cells on 256 workers, from start to end."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT_S = 10.0
SPEC = {
    "visual": list(range(1000, 251_000, 1000)),
    "device": "cpu",
    "models": ["mistral-7b-v0.3", "qwen2-7b"],
    "passes": ["forward", "train"],
    "attentions": ["s_attn", "d_attn", "d_attn_sum", "d_attn_biased", "d_attn_full"],
    "text": [16, 32, 64, 128, 256],
    "batches": [1, 2, 4, 8],
}
"""250 sizes of each of 400 kinds of cells."""


def measure() -> float:
    """Seconds of the whole command."""
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "spec.yaml"
        spec.write_text(json.dumps(SPEC))
        words = ["sweep", str(spec), "--dry-run", "--workers", "256"]
        words += ["--store", str(Path(folder) / "s.db")]
        command = [sys.executable, "-m", "workbench.cli", *words]
        start = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        return time.perf_counter() - start
