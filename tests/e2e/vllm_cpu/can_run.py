"""Whether `make test-vllm` can run on this machine: prints why not, and ends with 1.

vLLM for CPUs is built for Linux on x86-64; its environment and models take 6 GB of disk while they are made, and the
suite runs up to two servers with 5 GB each.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path

DISK_GB = 8.0
MEMORY_GB = 12.0


def reason(folder: Path) -> str | None:
    """Why it cannot run. folder: where it is installed, or will be."""
    machine = f"{platform.system()} {platform.machine()}"
    if machine != "Linux x86_64":
        return f"vLLM for CPUs is built for Linux x86_64, and this is {machine}"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    if memory < MEMORY_GB:
        return f"it needs {MEMORY_GB:g} GB of memory, and this machine has {memory:.1f} GB"
    disk = shutil.disk_usage(Path.cwd()).free / 1e9
    if not folder.exists() and disk < DISK_GB:
        return f"it needs {DISK_GB:g} GB of disk, and {disk:.1f} GB are free"
    return None


if __name__ == "__main__":
    why = reason(Path(sys.argv[1]))
    if why is not None:
        print(f"make test-vllm: skipped: {why}")
        raise SystemExit(1)
