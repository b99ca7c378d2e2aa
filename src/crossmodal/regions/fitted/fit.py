"""Fits the detector of ``faster_rcnn`` from scratch on a dataset's boxes, in minutes on a CPU."""

from __future__ import annotations

import math
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
from crossmodal.regions.fitted.network import NO_ATTRIBUTE, RegionDetector, build_detector, save_detector
from crossmodal.runtime import pick_device, progress, seed_everything
from crossmodal.settings.params import Detector
from crossmodal.workspace import load_state, save_state

WARMUP = 0.15  # share of the steps in which the learning rate rises
CACHE_BYTES = 500 * 2**20  # of decoded training images; further ones are read again in every epoch


class Annotated:
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
        """Image (3, H, W) in 0..1 and its target (see ``RegionDetector``), mirrored left to right or not."""
        pixels, target = torch.from_numpy(self.image(index)), self.targets[index]
        if flip:
            pixels = pixels.flip(1)
            x1, y1, x2, y2 = target["boxes"].unbind(dim=1)
            width = pixels.shape[1]
            target = target | {"boxes": torch.stack((width - x2, y1, width - x1, y2), dim=1)}
        pixels = pixels.to(device).permute(2, 0, 1).float() / 255
        return pixels, {name: tensor.to(device) for name, tensor in target.items()}


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


def fit_detector(dataset: Dataset, settings: Detector, folder: Path, resume: Path | None = None) -> None:
    """Train on the split "train", measure on "val", write the detector and metrics.json into ``folder``.

    AdamW with one cycle of the learning rate; images are mirrored at random. The four losses of Faster R-CNN
    (arXiv 1506.01497, equation 1, for proposals and for boxes) and that of the attributes count the same.

    Args:
        dataset: with boxes, classes and, if it knows any, attributes.
        settings: section ``detector`` of params.yaml.
        folder: made if missing; receives model.safetensors, config.json and metrics.json: AP50 of "val", its
            part of each class (null: not in "val"), and the share of the right detections whose attribute is
            right too. The same bytes for the same dataset and settings on a machine.
        resume: folder of the state after the last finished epoch, from which a killed fit goes on to the
            same weights. The caller keys it by dataset and settings and removes it when done. None: nothing
            is kept.

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
    train, val = Annotated(dataset, "train"), Annotated(dataset, "val")
    model = build_detector(dataset.classes, dataset.attributes, settings).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    steps = math.ceil(len(train) / settings.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.lr, total_steps=steps * settings.epochs, pct_start=WARMUP
    )
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    done = _restore(resume, parts)
    with progress(total=steps * settings.epochs, initial=steps * done, desc="detector", unit="step") as bar:
        for epoch in range(done, settings.epochs):
            _train_epoch(model, optimizer, schedule, train, settings, epoch, bar)
            _keep(resume, parts, epoch + 1)
    save_detector(folder, model)
    metrics = {**evaluate_detector(model, val), "epochs": settings.epochs}
    write_json(folder / "metrics.json", metrics)


def _train_epoch(
    model: RegionDetector,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    data: Annotated,
    settings: Detector,
    epoch: int,
    bar: Any,
) -> None:
    """One pass over the training images; what is random follows from seed and epoch number alone."""
    model.train()
    device = next(model.parameters()).device
    rng = np.random.default_rng((settings.seed, epoch))
    torch.manual_seed(int(rng.integers(2**63)))
    order = rng.permutation(len(data)).tolist()
    for start in range(0, len(order), settings.batch_size):
        batch = order[start : start + settings.batch_size]
        samples = [data.sample(index, bool(rng.random() < 0.5), device) for index in batch]
        images, targets = (list(column) for column in zip(*samples, strict=True))
        loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        bar.update()


def _keep(resume: Path | None, parts: dict[str, Any], done: int) -> None:
    """Write the state after ``done`` epochs; a kill meanwhile leaves the former one."""
    if resume is None:
        return
    resume.mkdir(parents=True, exist_ok=True)
    state = {name: part.state_dict() for name, part in parts.items()}
    save_state(resume / "state.pt", state | {"epochs": done})


def _restore(resume: Path | None, parts: dict[str, Any]) -> int:
    """Load the state that ``_keep`` wrote, if there is one; the number of finished epochs."""
    state = resume and load_state(resume / "state.pt")
    if not state:
        return 0
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state["epochs"]


@torch.inference_mode()
def evaluate_detector(model: RegionDetector, data: Annotated) -> dict[str, Any]:
    """``ap50``, ``ap50_per_class``, ``attribute_accuracy``, 0..1; None where there is nothing to count."""
    model.eval()
    device = next(model.parameters()).device
    found, true, right = [], [], []
    for index in range(len(data)):
        image, target = data.sample(index, False, device)
        output = {name: tensor.cpu().numpy() for name, tensor in model([image])[0].items()}
        truth = {name: tensor.cpu().numpy() for name, tensor in target.items()}
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
