"""Fitting of the detector in network.py from scratch on a dataset's boxes, in minutes on a CPU."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossmodal.datasets.decode import kept_size, read_image
from crossmodal.datasets.records import Dataset
from crossmodal.errors import UserError
from crossmodal.evaluation.detection import Objects, average_precisions, match_detections
from crossmodal.files.checked_json import write_json
from crossmodal.regions.fitted.network import NO_ATTRIBUTE, RegionDetector, save_detector
from crossmodal.runtime import pick_device, progress, seed_everything
from crossmodal.settings.features import Detector
from crossmodal.workspace import load_state, save_state

WARMUP = 0.15  # share of the steps in which the learning rate rises
CACHE_BYTES = 500 * 2**20  # of decoded training images; further ones are read again in every epoch


class Samples:
    """Images and detection targets of one split; decoded images are kept, up to ``CACHE_BYTES``."""

    def __init__(self, dataset: Dataset, split: str) -> None:
        self.dataset, self.rows = dataset, dataset.rows(split)
        self.targets = [_target(dataset, row) for row in self.rows]
        self._decoded: dict[int, np.ndarray] = {}
        self._free = CACHE_BYTES

    def __len__(self) -> int:
        return len(self.rows)

    def image(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8."""
        if index in self._decoded:
            return self._decoded[index]
        pixels = np.array(read_image(self.dataset.image_path(self.rows[index])))  # a copy: torch wants to write
        if pixels.nbytes <= self._free:
            self._free -= pixels.nbytes
            self._decoded[index] = pixels
        return pixels

    def sample(self, index: int, flip: bool, device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        """Image (3, H, W) in 0..1 and its target (see ``RegionDetector``), mirrored left to right if ``flip``."""
        pixels, target = torch.from_numpy(self.image(index)), self.targets[index]
        if flip:
            pixels = pixels.flip(1)
            x1, y1, x2, y2 = target["boxes"].unbind(dim=1)
            width = pixels.shape[1]
            target = target | {"boxes": torch.stack((width - x2, y1, width - x1, y2), dim=1)}
        pixels = pixels.to(device).permute(2, 0, 1).float() / 255
        return pixels, {name: tensor.to(device) for name, tensor in target.items()}

    def batches(self, settings: Detector, epoch: int, device: torch.device) -> Iterator[tuple[list, list]]:
        """Images and targets in random order, mirrored at random; torch's generator is seeded for the epoch."""
        rng = np.random.default_rng((settings.seed, epoch))
        torch.manual_seed(int(rng.integers(2**63)))
        order = rng.permutation(len(self)).tolist()
        for start in range(0, len(order), settings.batch_size):
            batch = order[start : start + settings.batch_size]
            samples = [self.sample(index, bool(rng.random() < 0.5), device) for index in batch]
            images, targets = zip(*samples, strict=True)
            yield list(images), list(targets)


def _target(dataset: Dataset, row: int) -> dict[str, Tensor]:
    """Boxes (G, 4) inside the image as decoded, labels (G,) from 1, attributes (G,) from 0 of one record."""
    record = dataset.records[row]
    width, height = kept_size(record.width, record.height)
    scale = torch.tensor([width / record.width, height / record.height] * 2)
    boxes, labels, attributes = [], [], []
    for item in record.objects:
        x1, y1, x2, y2 = item.box
        box = max(x1, 0.0), max(y1, 0.0), min(x2, record.width), min(y2, record.height)
        if item.label not in dataset.classes:
            raise UserError(f"{dataset.folder}: image {record.id} shows a {item.label!r}, not a class of the manifest")
        if box[2] - box[0] < 1 or box[3] - box[1] < 1:
            continue
        boxes.append(box)
        labels.append(dataset.classes.index(item.label) + 1)
        known = item.attribute in dataset.attributes
        attributes.append(dataset.attributes.index(item.attribute) if known else NO_ATTRIBUTE)
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4) * scale,
        "labels": torch.tensor(labels, dtype=torch.int64),
        "attributes": torch.tensor(attributes, dtype=torch.int64),
    }


def fit_detector(dataset: Dataset, settings: Detector, folder: Path, resume: Path) -> None:
    """Train on the split "train", measure on "val", write the detector and metrics.json into ``folder``.

    AdamW with one cycle of the learning rate; images are mirrored at random. The four losses of Faster R-CNN
    (arXiv 1506.01497, equation 1, for proposals and for boxes) and that of the attributes have equal weight.

    Args:
        dataset: with boxes, classes and, if known, attributes.
        folder: made if missing; receives model.safetensors, config.json and metrics.json: AP50 of "val", that of each
            class (null: not in "val"), and the fraction of correct detections whose attribute is correct too. The
            same bytes for the same dataset and settings on a machine.
        resume: folder for the state after the last finished epoch, made if missing; a killed fit resumes from it with
            the same result.

    Raises:
        UserError: the dataset has no boxes, an image cannot be read, or a label is unknown.
    """
    if not any(dataset.records[row].objects for row in dataset.rows("train")):
        raise UserError(
            f"{dataset.folder}: dataset {dataset.name} has no boxes, and regions.backend torchvision needs "
            "boxes; set regions.backend=grid"
        )
    seed_everything(settings.seed)
    device = pick_device()
    train, val = Samples(dataset, "train"), Samples(dataset, "val")
    model = RegionDetector(dataset.classes, dataset.attributes, settings.width, settings.feature_dim).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    steps = math.ceil(len(train) / settings.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.lr, total_steps=steps * settings.epochs, pct_start=WARMUP
    )
    resume.mkdir(parents=True, exist_ok=True)
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    done = 0
    if state := load_state(resume / "state.pt"):
        done = state["epochs"]
        for name, part in parts.items():
            part.load_state_dict(state[name])
    with progress(total=steps * settings.epochs, initial=steps * done, desc="detector", unit="step") as bar:
        for epoch in range(done, settings.epochs):
            model.train()
            for images, targets in train.batches(settings, epoch, device):
                loss = sum(model(images, targets).values())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
                bar.update()
            state = {name: part.state_dict() for name, part in parts.items()}
            save_state(resume / "state.pt", state | {"epochs": epoch + 1})
    save_detector(folder, model)
    write_json(folder / "metrics.json", {**evaluate_detector(model, val), "epochs": settings.epochs})


@torch.inference_mode()
def evaluate_detector(model: RegionDetector, data: Samples) -> dict[str, Any]:
    """``ap50``, ``ap50_per_class``, ``attribute_accuracy``, 0..1; None where there is nothing to count."""
    model.eval()
    device = next(model.parameters()).device
    found, true, right = [], [], []
    for index in range(len(data)):
        image, _ = data.sample(index, False, device)
        output = {name: tensor.cpu().numpy() for name, tensor in model([image])[0].items()}
        truth = {name: tensor.numpy() for name, tensor in data.targets[index].items()}
        found.append(Objects(output["boxes"], output["labels"] - 1, output["scores"]))
        true.append(Objects(truth["boxes"], truth["labels"] - 1))
        matched = match_detections(found[-1], true[-1])
        attributes = truth["attributes"][matched[matched >= 0]]
        guesses = output["attributes"][matched >= 0]
        if len(model.attributes):
            right += (guesses.argmax(axis=1) == attributes)[attributes != NO_ATTRIBUTE].tolist()
    per_class = average_precisions(found, true, len(model.classes))
    return {
        "ap50": _mean(per_class[~np.isnan(per_class)]),
        "ap50_per_class": {
            name: None if np.isnan(value) else float(value)
            for name, value in zip(model.classes, per_class, strict=True)
        },
        "attribute_accuracy": _mean(right),
    }


def _mean(values: Any) -> float | None:
    return float(np.mean(values)) if len(values) else None
