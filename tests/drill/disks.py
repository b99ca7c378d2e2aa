"""Full and read-only disks, files that may not grow: what a stage's process sets up to stand in its own way."""

import resource
import subprocess
from pathlib import Path

import forks
import pytest

mounts = pytest.mark.skipif(not forks.can_mount(), reason="needs to mount, as root may")


def small_disk(size):
    """Unfinished work goes to a disk of ``size`` bytes."""
    Path(".resume").mkdir(exist_ok=True)
    forks.own_mounts()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", ".resume"], check=True)


def short_files(size):
    """No file may grow beyond ``size`` bytes (ulimit -f); what is written stays on the disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def read_only(*folders):
    """Nothing can be written below these."""
    forks.own_mounts()
    for folder in folders:
        Path(folder).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--bind", folder, folder], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
