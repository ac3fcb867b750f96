"""The names of torchvision's operators, where its compiled part is of another build than torch.

PyPI's torchvision is built for CUDA's torch. Beside a CPU build its compiled part (``_C.so``) does
not load, and the import of its Python part fails at one place: it says what shapes and gradients
the operators have that this part would have defined. Once operators of these names exist, all of
the Python part works: transforms, which resize with torch's own operators, and all that timm and
transformers import. Nothing here calls the operators themselves (NMS, RoI and the like).
"""

import re
from importlib.util import find_spec
from pathlib import Path

import torch
from torch.library import Library

NAMED = re.compile(r'(?:register_meta\("|"torchvision::|torch\.ops\.torchvision\.)(\w+)')
_library: list[Library] = []


def define_operators() -> None:
    """Define what torchvision's own files name, unless its compiled part loads and does."""
    spec = find_spec("torchvision")
    assert spec is not None, "on the path"
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    try:
        torch.ops.load_library(str(folder / "_C.so"))
    except OSError:
        files = (
            folder / f"{name}.py" for name in ("_meta_registrations", "_autograd_registrations")
        )
        names = {name for file in files for name in NAMED.findall(file.read_text())}
        _library.append(Library("torchvision", "DEF"))
        for name in sorted(names):
            _library[0].define(f"{name}(Tensor x) -> Tensor")
