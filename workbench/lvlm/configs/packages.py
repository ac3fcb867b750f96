"""What some towers and image processors need beside transformers: the packages of one extra.

torchvision's compiled part is built for one release and one build of torch (CPU, or one CUDA).
Beside another it is not loaded, and the import of torchvision fails where it describes operators
that this part would have defined.
"""

from functools import cache
from importlib import import_module
from importlib.util import find_spec

from workbench.lvlm.configs import one_line
from workbench.vocabulary.errors import RequestError

INSTALL = "pip install 'visual-token-workbench[towers]'"
IMPORTS = {"timm": "torchvision"}
"""By package, another that it cannot be imported without."""


@cache
def obstacle(package: str) -> str:
    """Why a package cannot be used here, words behind its name; empty where it can."""
    before = IMPORTS.get(package)
    if find_spec(package) is None:
        return f"is not installed: {INSTALL}"
    if before is not None and obstacle(before):
        return f"needs {before}, which {obstacle(before)}"
    try:
        import_module(package)
    except (ImportError, OSError, RuntimeError) as error:
        import torch

        return (
            f"is installed, but does not pair with torch {torch.__version__} "
            f"({one_line(error)}); both have to come from one index, as those of {INSTALL} do"
        )
    return ""


def require(model: str, what: str, package: str) -> None:
    """Raise RequestError, one line, where a package of a model's cannot be used.

    ``what`` is whatever of the model needs it, a verb behind it.
    """
    reason = obstacle(package)
    if reason:
        raise RequestError(f"model {model!r}: {what} {package}, which {reason}")
