"""Training as published: the same weights, batches and settings give the losses and weights of the published train.py.

Reads every .npz of the folder TRAJECTORY_DIR (default: the one beside this file, which has VSE-infinity's BiGRU alone).
The file's name chooses the recipe of reproduction.yaml, whose training runs through the project's own Trainer, feature
stores, losses, optimiser and schedule; sizes, steps and rates come from the arrays.

trajectories/vse_infty_bigru.npz is 20 steps of the encoders, loss and optimiser of woodfrog/vse_infty 8600f89 (branch
bigru), whose images have different numbers of regions, padded with zeros.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from crossmodal.datasets.splits import Split
from crossmodal.features.store import FeatureStore, StoreWriter
from crossmodal.inference.scoring import SearchInputs, similarity_matrix
from crossmodal.models.base import InputSizes
from crossmodal.models.registry import build_model
from crossmodal.models.text import build_text
from crossmodal.published.files import PublishedFile
from crossmodal.published.projects import PROJECTS
from crossmodal.recipes.recipes import read_reproduction, resolved
from crossmodal.settings.params import Params
from crossmodal.training import loop
from crossmodal.training.batches import TrainingData

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("TRAJECTORY_DIR", Path(__file__).parent / "trajectories"))
RECIPES = {  # file: recipe, project of the weights
    "sgraf_sgr": ("sgr-flickr30k", "sgraf"),
    "sgraf_saf": ("saf-flickr30k", "sgraf"),
    "vse_infty": ("vse_infty-bert-flickr30k", "vse_infty"),
    "vse_infty_bigru": ("vse_infty-bigru-flickr30k", "vse_infty"),
    "tern": ("tern-flickr30k", "tern"),
    "teran": ("teran-flickr30k", "teran"),
}
PUBLISHED = ("img_enc.", "txt_enc.", "sim_enc.", "img_txt_enc.")
FOLLOWS = {  # running means of what a bias without a gradient shifts
    "img_enc.mlp.layers.0.bias": "img_enc.mlp.bns.0.running_mean",
    "sim_enc.v_global_w.embedding_global.0.bias": "sim_enc.v_global_w.embedding_global.1.running_mean",
}
SAF_NORM = "sim_enc.SAF_module.bn."
RUNNING = ("running_mean", "running_var")


def found():
    there = sorted(path.stem for path in FOLDER.glob("*.npz"))
    missing = [name for name in RECIPES if name not in there]
    reason = f"no such file in {FOLDER.name}, the folder that TRAJECTORY_DIR names"
    return there + [pytest.param(name, marks=pytest.mark.skip(reason=reason)) for name in missing]


class Replay(loop.Trainer):
    """A trainer that is given its batches, and keeps what every step was made with."""

    def __init__(self, batches, model, *arguments, **options):
        self.given, self.seen = batches, []
        super().__init__(model, *arguments, **options)

    def _epoch(self, epoch):
        batches = super()._epoch(epoch)
        batches.batches = list(self.given[epoch])
        return batches

    def _loss(self, batch, epoch):
        loss = super()._loss(batch, epoch)
        self.seen.append({"loss": loss.item()})
        return loss

    def _step(self):
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        rates = {id(p): group["lr"] for group in self.optimizer.param_groups for p in group["params"]}
        self.seen[-1]["gradient_norm"] = torch.nn.utils.get_total_norm(gradients).item()
        self.seen[-1]["learning_rate"] = self.optimizer.param_groups[0]["lr"]
        self.seen[-1]["learning_rate_bert"] = next((rates[id(p)] for p in self.model.text.parameters()), None)
        super()._step()


class Trajectory:
    """A file: data, settings, weights by our names, and what the published run came to."""

    def __init__(self, name):
        with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
            self.arrays = {key: file[key] for key in file.files}
        self.recipe, self.project = RECIPES[name]
        self.cls_slot = "boxes" in self.arrays

    def __getitem__(self, key):
        return self.arrays[key]

    def part(self, state):
        """Model, settings, text encoder and weights of published entries, as an import makes them."""
        entries = {name: torch.from_numpy(np.asarray(value)) for name, value in state.items()}
        return PROJECTS[self.project](PublishedFile(Path(self.project), entries, {}))

    def weights(self, prefix=""):
        names = tuple(prefix + name for name in PUBLISHED)
        return {name.removeprefix(prefix): v for name, v in self.arrays.items() if name.startswith(names)}

    def ours(self, state):
        """Published entries under our names, the text encoder's too."""
        part = self.part(state)
        return part.state | {f"text.{name}": value for name, value in part.text.state.items()}

    def compared(self):
        """Where the weights of our names are to be compared: those that have a gradient."""
        left_out = set(self["no_gradient"].tolist())
        left_out |= {FOLLOWS[name] for name in left_out & FOLLOWS.keys()}
        masks = {}
        for name, value in self.weights().items():
            masks[name] = np.full(value.shape, name not in left_out, dtype=np.float32)
            if name.endswith("in_proj_bias"):  # of the keys
                masks[name][len(value) // 3 : 2 * len(value) // 3] = 0
            if name.startswith((SAF_NORM + "running", SAF_NORM + "num")):  # see test_saf_statistics
                masks[name][...] = 0
        return {name: mask > 0 for name, mask in self.ours(masks).items()}

    def model(self):
        part = self.part(self.weights())
        text = part.text
        text_settings = dict(text.settings)
        if text.encoder == "bigru":
            text_settings["dropout"] = 0.0
        elif text.encoder == "bert_finetune":
            text_settings["config"] = text_settings["config"] | {
                "num_attention_heads": int(self["bert_heads"]),
                "hidden_dropout_prob": 0.0,
                "attention_probs_dropout_prob": 0.0,
            }
        file = {"dropout": 0.0, "heads": int(self.arrays.get("heads", 0))}
        settings = part.settings | {key: value for key, value in file.items() if key in part.settings}
        section = Params.model_fields[part.model].annotation.model_validate(settings)
        sizes = InputSizes(regions=self["regions"].shape[2], words=text.size)
        model = build_model(part.model, section, sizes, lambda: build_text(text.encoder, text_settings))
        missing, unknown = model.load_state_dict(self.ours(self.weights()), strict=False)
        assert not missing and not unknown
        return model

    def data(self, folder):
        """Stores and splits: training on the captions of the batches, validation on what no step has seen."""
        slot = int(self.cls_slot)
        boxes = self.arrays.get("boxes", np.zeros((*self["regions"].shape[:2], 4)))
        regions = StoreWriter(
            folder / "regions", {"features": ("float16", self["regions"].shape[2:]), "boxes": ("float32", (4,))}
        )
        for features, places, length in zip(self["regions"], boxes, self["region_lengths"], strict=True):
            regions.append({"features": features[slot:length], "boxes": places[slot:length]})
        regions.close()
        known = "token_features" in self.arrays
        tokens = self["token_features" if known else "token_ids"]
        array = {"features": ("float16", tokens.shape[2:])} if known else {"token_ids": ("int32", ())}
        words = StoreWriter(folder / "captions", array)
        for values, length in zip(tokens, self["token_lengths"], strict=True):
            words.append({next(iter(array)): values[:length]})
        words.close()
        images, captions = self["evaluation_images"], self["evaluation_captions"]
        trained = np.unique(self["batch_captions"])
        owner = self["caption_image"]
        return TrainingData(
            FeatureStore(folder / "regions"),
            FeatureStore(folder / "captions"),
            owner,
            Split(np.unique(owner[trained]), trained, np.unique(owner[trained], return_inverse=True)[1]),
            Split(images, captions, np.searchsorted(images, owner[captions])),
        )

    def params(self):
        """The recipe's training and loss, with the numbers of the file."""
        params = resolved(
            (ROOT / "params.yaml").read_text(),
            read_reproduction(ROOT / "reproduction.yaml").recipe(self.recipe).overrides(),
        )
        train = params.train.model_copy(
            update={
                "epochs": int(self["epoch"].max()) + 1,
                "batch_size": self["batch_captions"].shape[1],
                "lr": float(self["base_learning_rate"]),
                "clip": float(self["clip"]),
                "weight_decay": float(self["weight_decay"]),
                "gamma": float(self["gamma"]),
                "step_epochs": int(self["step_epochs"]),
                "warmup_steps": int(self["warmup_steps"]),
                "region_dropout": 0.0,
                "word_dropout": 0.0,
                "best": "rsum",
            }
        )
        update = {"margin": float(self["margin"]), "all_negatives_epochs": int(self["all_negatives_epochs"])}
        return train, params.loss.model_copy(update=update)


@pytest.fixture(scope="module", params=found())
def replayed(request, tmp_path_factory):
    """A file, our trainer after its steps, and the similarities before."""
    name, folder = request.param, tmp_path_factory.mktemp("trajectory")
    assert name in RECIPES, f"{name}.npz has no check"
    file = Trajectory(name)
    data, (train, loss), model = file.data(folder), file.params(), file.model()
    epochs = [file["batch_captions"][file["epoch"] == epoch] for epoch in range(train.epochs)]
    assert {len(batches) for batches in epochs[:-1]} <= {len(epochs[0])}  # the schedule counts on it
    before = scores(model, data)
    factor = float(file.arrays.get("bert_learning_rate_factor", 1.0))
    how = loop.TrainerSettings(train, loss, seed=0, text_lr=factor)
    trainer = Replay(epochs, model, data, how, resume=folder / "state")
    with pytest.MonkeyPatch.context() as patch:  # the last epoch is the best
        rsums = iter(range(train.epochs))
        patch.setattr(loop, "validate", lambda *_: {"rsum": float(next(rsums))})
        patch.setattr(Replay, "_save", lambda self: None)
        trainer.fit(lambda metrics, step: None)
    return file, trainer, before


def scores(model, data):
    return similarity_matrix(SearchInputs(model.eval(), data.regions, data.words, data.val, 64))


def test_every_step(replayed):
    file, trainer, _ = replayed
    steps = {key: np.array([step[key] for step in trainer.seen]) for key in trainer.seen[0]}
    np.testing.assert_allclose(steps["loss"], file["loss"], rtol=1e-4)
    np.testing.assert_allclose(steps["gradient_norm"], file["gradient_norm"], rtol=1e-2)
    np.testing.assert_allclose(steps["learning_rate"], file["learning_rate"], rtol=1e-6)
    if "learning_rate_bert" in file.arrays:
        np.testing.assert_allclose(steps["learning_rate_bert"], file["learning_rate_bert"], rtol=1e-6)


def test_weights_after(replayed):
    file, trainer, _ = replayed
    state, published = trainer.model.state_dict(), file.ours(file.weights("final."))
    masks = file.compared()
    assert published.keys() == masks.keys() == state.keys()
    gaps = {name: (state[name] - published[name]).abs()[masks[name]] for name in published}
    assert max(gaps[name].max() for name in gaps if gaps[name].numel()) < 5e-4
    assert torch.cat(list(gaps.values())).mean() < 2e-6


def saf_norm(file, trainer):
    if "saf_mean_of_captions.running_mean" not in file.arrays:
        pytest.skip("of SAF alone")
    running = {name: torch.from_numpy(np.asarray(file[f"saf_mean_of_captions.{name}"])) for name in RUNNING}
    return running, trainer.model.get_submodule("scorer.reasoning.norm")


def test_saf_statistics_are_taken_in_once_a_step(replayed):
    """Of the mean over a batch's captions; the published ones are of the last dozen captions."""
    file, trainer, _ = replayed
    running, norm = saf_norm(file, trainer)
    torch.testing.assert_close(norm.running_var, running["running_var"], atol=0, rtol=1e-3)
    # The bias of the gates has no gradient and moves by rounding; the mean moves with it.
    torch.testing.assert_close(norm.running_mean, running["running_mean"], atol=1e-2, rtol=0)


def test_scores(replayed):
    file, trainer, before = replayed
    np.testing.assert_allclose(before, file["similarity_before"], atol=1e-4)
    after = "similarity_after"
    if "similarity_after_mean_of_captions" in file.arrays:
        after = "similarity_after_mean_of_captions"
        running, norm = saf_norm(file, trainer)
        norm.load_state_dict(running, strict=False)
    np.testing.assert_allclose(scores(trainer.model, trainer.data), file[after], atol=1e-3)
