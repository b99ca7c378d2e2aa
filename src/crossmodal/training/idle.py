"""Settings of a training that come to nothing in it: no error, since a trial of a few epochs may have them."""

from __future__ import annotations

from crossmodal.files.checked_yaml import Section
from crossmodal.settings.derived import trains_backbone
from crossmodal.settings.params import Params


def idle_settings(params: Params) -> list[str]:
    """A sentence for each of the settings that cannot take effect, with the keys that keep them from it."""
    loss, epochs = params.loss, params.train.epochs
    found = []
    if loss.name == "crcl" and loss.label_epochs >= epochs:
        found.append(f"loss.label_epochs {loss.label_epochs}: train.epochs {epochs} end before a soft label counts")
    if loss.name == "hinge" and loss.negatives == "hard" and 0 < loss.all_negatives_epochs >= epochs:
        found.append(
            f"loss.all_negatives_epochs {loss.all_negatives_epochs}: train.epochs {epochs} end before hard negatives "
            "(loss.negatives) begin"
        )
    if loss.views > 1 and _views_are_alike(params):
        found.append(
            f"loss.views {loss.views}: all views of a pair are equal; train.region_dropout, word_dropout and "
            "input_dropout are 0, and the model drops nothing"
        )
    frozen = params.grid_finetune.frozen_epochs
    if trains_backbone(params) and frozen >= epochs:
        found.append(
            f"grid_finetune.frozen_epochs {frozen}: train.epochs {epochs} end before the stages of grid.trained "
            f"{params.grid.trained} are trained"
        )
    return found


def _views_are_alike(params: Params) -> bool:
    """Whether that is certain: a trained backbone crops, and a BERT that is trained has dropout of its own."""
    train = params.train
    if train.region_dropout or train.word_dropout or train.input_dropout or trains_backbone(params):
        return False
    encoder = params.captions.encoder
    if encoder == "bert_finetune":
        return False
    return not _drops(params.model_settings) and not (encoder == "bigru" and _drops(params.bigru))


def _drops(section: Section) -> bool:
    return any(value for key, value in section.model_dump().items() if "dropout" in key)
