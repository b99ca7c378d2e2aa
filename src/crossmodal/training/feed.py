"""How batches come to the device: from the files or kept there (``train.features``), and by which processes
(``train.workers``)."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import torch

from crossmodal.errors import UserError, first_of_several
from crossmodal.features.on_device import DeviceRegions
from crossmodal.runtime import free_memory, in_units
from crossmodal.terminal import warn
from crossmodal.training.batches import TrainingData

AUTO_SHARE = 0.5  # of a GPU's free memory, that train.features: auto fills at most; the rest is for training
AUTO_WORKERS = 4  # processes that read batches for a GPU, at most


def with_features(data: TrainingData, where: str, device: torch.device) -> TrainingData:
    """The data with the regions of its images on the device, if ``train.features`` says so.

    Args:
        where: host | device | auto: on a GPU if they fit into AUTO_SHARE of its free memory. On a CPU, whose memory
            is the host's, they stay in their files, which the system keeps in memory as far as there is room.

    Raises:
        UserError: device, and they do not fit.
    """
    if where == "host" or device.type == "cpu":
        if where == "device" and first_of_several():
            warn("train.features device: there is no GPU; features are read from their files, as with host")
        return data
    rows = np.union1d(data.caption_image[data.train.captions], data.val.images)
    needed, free = DeviceRegions.size(data.regions, rows), free_memory(device)
    if where == "auto" and needed > AUTO_SHARE * free:
        return data
    if needed > free:
        raise UserError(
            f"params.yaml: train.features device: the region features take {needed:,} bytes ({in_units(needed)}), "
            f"{free:,} ({in_units(free)}) are free on {device}; use host or auto"
        )
    return replace(data, on_device=DeviceRegions(data.regions, rows, device))


def loader_workers(workers: int | str, data: TrainingData, device: torch.device, processes: int = 1) -> int:
    """Processes that read batches; ``auto``: none on a CPU, whose cores compute, or for features on the device.

    Args:
        processes: that train on this machine and share its cores.
    """
    if workers != "auto":
        return workers
    if device.type == "cpu" or data.on_device is not None:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(AUTO_WORKERS, cores // processes - 1))
