"""Nine pairs of six images, and settings of a loss of their vectors."""

from pathlib import Path

import torch
import torch.nn.functional as F

from crossmodal.settings.params import load_params
from crossmodal.settings.training import Loss

ROOT = Path(__file__).resolve().parents[2]
LOSS = load_params(ROOT / "params.yaml").loss
IMAGE_OF = torch.tensor([0, 0, 1, 2, 2, 2, 3, 4, 5])
MARGIN, TEMPERATURE, ALPHA, BETA, BASE = 0.3, 0.2, 3.0, 10.0, 0.4


def settings_of(name, **changes):
    fixed = {"margin": MARGIN, "temperature": TEMPERATURE, "alpha": ALPHA, "beta": BETA, "base": BASE}
    return Loss.model_validate(LOSS.model_dump() | {"name": name} | fixed | changes)


def nine_pairs():
    """Unit vectors of 9 pairs of 6 images, each row a leaf of its own; the rows of an image with several are alike."""
    generator = torch.Generator().manual_seed(0)
    images = F.normalize(torch.randn(6, 5, generator=generator), dim=1)[IMAGE_OF]
    captions = F.normalize(images + 0.7 * torch.randn(9, 5, generator=generator), dim=1)
    return images.clone().requires_grad_(), captions.requires_grad_()
