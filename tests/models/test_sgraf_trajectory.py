"""SAF's running statistics after a run of the published training, had each step counted once.

Reads sgraf_saf.npz of the folder TRAJECTORY_DIR: weights, batches and settings of a run of Paranioar/SGRAF's train.py.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from crossmodal.batch import Regions, Words
from crossmodal.losses.pair import hinge_loss
from crossmodal.models.base import InputSizes
from crossmodal.models.sgraf.model import sgraf
from crossmodal.models.text import BiGru
from crossmodal.published.state_dicts import sgraf_state
from crossmodal.settings.models import Sgraf


@pytest.fixture(scope="module")
def run():
    path = Path(os.environ.get("TRAJECTORY_DIR", "")) / "sgraf_saf.npz"
    if "TRAJECTORY_DIR" not in os.environ or not path.is_file():
        pytest.skip("TRAJECTORY_DIR names no folder with sgraf_saf.npz")
    with np.load(path, allow_pickle=False) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files if file[name].dtype.kind in "if"}


def model_of(run):
    weights = {name: value for name, value in run.items() if name.startswith(("img_enc.", "txt_enc.", "sim_enc."))}
    dim = int(run["embed_dim"])
    settings = Sgraf(
        module="saf",
        embed_dim=dim,
        sim_dim=int(run["sim_dim"]),
        sgr_steps=1,
        lambda_softmax=9.0,
        word_map="none",
        region_norms=len(weights["sim_enc.v_global_w.embedding_local.1.weight"]),
        dropout=0.0,
        similarity_dropout=0.0,
        precision="fp32",
    )
    model = sgraf(settings, InputSizes(regions=run["regions"].shape[2], words=dim))
    model.text = BiGru(*weights["txt_enc.embed.weight"].shape, hidden=dim, dropout=0.0)
    model.load_state_dict(sgraf_state(weights))
    return model


def images_of(run, rows):
    regions = run["regions"][rows]
    return Regions(regions, None, torch.ones(regions.shape[:2], dtype=torch.bool))


def captions_of(run, rows):
    mask = torch.arange(run["token_ids"].shape[1]) < run["token_lengths"][rows, None]
    longest = int(mask.sum(dim=1).max())
    return Words(None, mask[:, :longest], run["token_ids"][rows, :longest])


def train(run, model):
    """The run's steps; captions in four parts of similar length, as the training loop encodes them."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters())
    for rows, rate in zip(run["batch_captions"], run["learning_rate"], strict=True):
        optimizer.param_groups[0]["lr"] = float(rate)
        by_length = run["token_lengths"][rows].argsort()
        parts = [captions_of(run, rows[part]) for part in by_length.chunk(4)]
        images, captions = model(images_of(run, run["caption_image"][rows]), parts)
        scores = model.batch_similarity(images, captions, sparse=3 * len(images))[:, by_length.argsort()]
        optimizer.zero_grad()
        hinge_loss(scores, margin=float(run["margin"]), hardest=True).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), float(run["clip"]))
        optimizer.step()


def test_statistics_are_the_mean_over_the_captions_of_each_step(run):
    model = model_of(run)
    train(run, model)
    norm = model.scorer.reasoning.norm
    assert norm.num_batches_tracked == len(run["batch_captions"])
    torch.testing.assert_close(norm.running_mean, run["saf_mean_of_captions.running_mean"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(norm.running_var, run["saf_mean_of_captions.running_var"], atol=1e-4, rtol=1e-3)
    model.eval()
    with torch.inference_mode():
        images = model.encode_regions(images_of(run, run["evaluation_images"]))
        captions = model.encode_text(captions_of(run, run["evaluation_captions"]))
        scores = model.similarity(images, captions)
    torch.testing.assert_close(scores, run["similarity_after_mean_of_captions"], atol=1e-3, rtol=0)
    assert (scores - run["similarity_after"]).abs().max() > 2e-3
