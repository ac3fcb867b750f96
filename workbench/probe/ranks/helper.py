"""The helper that deepspeed compiles for ranks on the CPU: whether another build holds it."""

import time
from pathlib import Path

NAME = "deepspeed_shm_comm"
"""Its extension's name, which ``ShareMemCommBuilder`` of deepspeed gives."""
POLL_S = 0.2


def lock_file() -> Path:
    """What a build of it holds while it runs, and leaves behind where it is killed."""
    from torch.utils.cpp_extension import _get_build_directory

    return Path(_get_build_directory(NAME, verbose=False)) / "lock"


def wait_for_helper(seconds: float) -> str | None:
    """Wait at most so long for another build; None once there is none, else what to do.

    deepspeed itself would wait for ever, without a word.
    """
    lock, start = lock_file(), time.monotonic()
    while lock.exists():
        elapsed = time.monotonic() - start
        if elapsed >= seconds:
            return (
                f"deepspeed's helper for the CPU has been locked for {elapsed:.0f} s: another "
                f"build of it runs, or one that was killed left {lock}, which can then be removed"
            )
        time.sleep(POLL_S)
    return None
