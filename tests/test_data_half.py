"""The half that reads results works on a laptop without torch."""

import ast
import subprocess
import sys

IMPORT_ALL = """
import importlib, pkgutil, sys
for name in ("store", "analysis", "figures", "report", "dashboard"):
    module = importlib.import_module("workbench." + name)
    for found in pkgutil.walk_packages(getattr(module, "__path__", []), module.__name__ + "."):
        importlib.import_module(found.name)
print(sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_the_data_half_imports_neither_torch_nor_what_brings_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, check=True
    )
    loaded = set(ast.literal_eval(done.stdout))
    assert "plotly" in loaded
    assert not loaded & {"torch", "transformers", "deepspeed"}
