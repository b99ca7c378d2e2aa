"""What the evaluate stage keeps for the report, against the model asked pair by pair."""

from pathlib import Path

import numpy as np
import pytest
import torch
from assertions import raises_naming

from crossmodal.captions.fit import fit_tokenizer
from crossmodal.datasets.splits import split_rows
from crossmodal.evidence import alignment
from crossmodal.evidence.alignment import keep_evidence, sample_scores
from crossmodal.evidence.evidence import EVIDENCE_FILE, Evidence
from crossmodal.evidence.occlusion import falls
from crossmodal.evidence.selection import gallery_queries
from crossmodal.evidence.words import words_of
from crossmodal.features.batches import read_regions, read_words
from crossmodal.features.store import FeatureStore, StoreWriter
from crossmodal.files.checked_arrays import load_arrays
from crossmodal.inference.scoring import SearchInputs, similarity_matrix
from crossmodal.models.base import InputSizes
from crossmodal.models.checkpoint import MatcherConfig
from crossmodal.models.registry import build_model
from crossmodal.retrieval.results import rank_pairs
from crossmodal.settings.params import load_params

PARAMS = load_params(Path(__file__).resolve().parents[2] / "params.yaml")


def build(name):
    torch.manual_seed(0)
    settings = getattr(PARAMS, name).model_copy(update={"embed_dim": 8})
    return build_model(name, settings, InputSizes(12, 12)).eval()


def keep(model, data, folder, *, explained=3, bert="bert"):
    dataset, regions, words = data
    test = split_rows(dataset, "test")
    inputs = SearchInputs(
        model, regions, words, test, 4, MatcherConfig("any", {}, InputSizes(12, 12), "key", "bert", {})
    )
    matrix = similarity_matrix(inputs)
    results = rank_pairs(matrix, test, top_k=2).results
    folder.mkdir()
    place = words.folder.parent / bert
    keep_evidence(folder, inputs, dataset, split_rows(dataset, "probe"), results, bert=place, explained=explained)
    return load_arrays(Evidence, folder / EVIDENCE_FILE), results, matrix


@torch.inference_mode()
def test_alignments_are_those_of_the_pairs_alone(data, tmp_path, monkeypatch):
    monkeypatch.setattr(alignment, "PAIR_CHUNK", 5)
    model, (dataset, regions, words) = build("scan"), data
    evidence, results, _ = keep(model, data, tmp_path / "out")
    texts = [caption for record in dataset.records for caption in record.captions]
    assert len(evidence.pairs) > 5
    for image, caption in evidence.pairs.tolist():
        alone = model.alignment(read_regions(regions, np.array([image])), read_words(words, np.array([caption])))[0]
        np.testing.assert_allclose(evidence.alignment(image, caption), alone, atol=1e-3)
        spelled = [texts[caption][first:last] for first, last in evidence.token_spans(caption)]
        assert spelled[0] == spelled[-1] == ""  # [CLS] and [SEP]
        assert "".join(spelled) == texts[caption].replace(" ", "")
    test = split_rows(dataset, "test")
    for number in gallery_queries(results, 3).t2i:
        caption, own = test.captions[number], test.images[test.caption_image[number]]
        assert evidence.alignment(own, caption) is not None
        assert all(evidence.alignment(test.images[found], caption) is not None for found in results.t2i_top[number])
    assert evidence.alignment(0, 0) is None and evidence.token_spans(0) is None


def test_the_same_bytes_twice(data, tmp_path):
    for folder in ("once", "twice"):
        keep(build("scan"), data, tmp_path / folder)
    assert (tmp_path / "once/evidence.npz").read_bytes() == (tmp_path / "twice/evidence.npz").read_bytes()


def test_models_without_alignment_have_falls_at_the_tokens_of_words(data, tmp_path):
    model, (dataset, regions, words) = build("vsepp"), data
    evidence, _, _ = keep(model, data, tmp_path / "out")
    assert evidence.occlusion and not keep(build("scan"), data, tmp_path / "scan")[0].occlusion
    texts = [caption for record in dataset.records for caption in record.captions]
    for image, caption in evidence.pairs[:5].tolist():
        groups = words_of(texts[caption], evidence.token_spans(caption))
        (found,) = falls(
            model,
            read_regions(regions, np.array([image])),
            read_words(words, np.array([caption])),
            [np.array(group) for group in groups],
        )
        weights = evidence.alignment(image, caption)
        for group, fall in zip(groups, found.regions, strict=True):
            shown = fall.max() > alignment.LITTLE * found.regions.max()
            for token in group:
                np.testing.assert_allclose(weights[:, token], np.maximum(fall, 0) * shown, atol=1e-3)
        assert not weights[:, [0, -1]].any()  # [CLS] and [SEP]
    assert evidence.weights.any()


@pytest.mark.parametrize("name", ["vsepp", "scan"])
def test_none_asked_for(data, tmp_path, name):
    """No tokenizer is looked for either."""
    evidence, _, _ = keep(build(name), data, tmp_path / "out", explained=0, bert="absent")
    assert len(evidence.pairs) == len(evidence.captions) == len(evidence.weights) == 0
    assert evidence.alignment(1, 1) is None
    assert len(evidence.matches) == 16  # 8 images with 2 captions


def test_regions_without_boxes_cannot_be_drawn(data, tmp_path):
    """SCAN's published features have none: the words of the report's pages are plain then."""
    dataset, regions, words = data
    writer = StoreWriter(tmp_path / "bare", {"features": ("float16", (12,))})
    for row in range(len(regions)):
        writer.append({"features": regions.read(row, "features")})
    writer.close()
    evidence, _, _ = keep(build("scan"), (dataset, FeatureStore(tmp_path / "bare"), words), tmp_path / "out")
    assert len(evidence.pairs) == 0
    assert len(evidence.matches) == 16


def test_sampled_scores_are_those_of_the_matrix(data, tmp_path, monkeypatch):
    model = build("scan")
    evidence, results, matrix = keep(model, data, tmp_path / "out")
    own = results.caption_image[None, :] == np.arange(8)[:, None]
    np.testing.assert_allclose(np.sort(evidence.matches), np.sort(matrix[own]), atol=1e-6)
    np.testing.assert_allclose(np.sort(evidence.non_matches), np.sort(matrix[~own]), atol=1e-6)
    monkeypatch.setattr(alignment, "SAMPLED_IMAGES", 3)
    monkeypatch.setattr(alignment, "NON_MATCHES", 5)
    dataset, regions, words = data
    matches, others = sample_scores(SearchInputs(model, regions, words, split_rows(dataset, "test"), 4))
    assert len(matches) == 6 and len(others) == 5
    assert all(np.isclose(matrix[own], score, atol=1e-6).any() for score in matches)
    assert all(np.isclose(matrix[~own], score, atol=1e-6).any() for score in others)


def test_token_ids_of_another_tokenizer_are_refused(data, tmp_path):
    _, _, words = data
    other = words.folder.parent / "other"
    other.mkdir()
    fit_tokenizer(["quite other words"], 40).save_pretrained(other)
    with raises_naming(words.folder, "token ids", "'caption 32 a'"):
        keep(build("scan"), data, tmp_path / "out", bert="other")
    with raises_naming("tokenizer.json"):
        keep(build("scan"), data, tmp_path / "again", bert="absent")


def test_evidence_that_is_none_is_refused(tmp_path):
    with raises_naming("evidence.npz"):
        load_arrays(Evidence, tmp_path / EVIDENCE_FILE)
    (tmp_path / "evidence.npz").write_bytes(b"no archive")
    with raises_naming("evidence.npz"):
        load_arrays(Evidence, tmp_path / EVIDENCE_FILE)
    np.savez(tmp_path / "evidence.npz", matches=np.zeros(3))
    with raises_naming("evidence.npz"):
        load_arrays(Evidence, tmp_path / EVIDENCE_FILE)
