"""Nothing of this folder is collected without its packages: another test runs it with them."""

from importlib.util import find_spec

from tests.packages.schemas import define_operators

if find_spec("torchvision") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    define_operators()
