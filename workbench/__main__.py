"""``python -m workbench``, which torchrun and deepspeed start once a rank."""

import os
import sys

from workbench.start import main

if "LOCAL_RANK" in os.environ:
    # deepspeed's launcher says it twice.
    sys.argv = [word for word in sys.argv if not word.startswith("--local_rank=")]
main()
