"""A query at a time finds what the evaluation of the whole split found."""

import json
import shutil

import faiss
import numpy as np
import pytest

from crossmodal.features.batches import read_regions, read_words
from crossmodal.retrieval.gallery import save_info
from crossmodal.retrieval.index import save_index
from crossmodal.retrieval.search_split import describe, search_split
from crossmodal.serving.engine import SearchEngine
from tests.assertions import raises_naming

WAYS = [
    ("tern", "embeddings"),
    ("tern", "exact_pairwise"),
    ("teran", "exact_pairwise"),
    ("teran", "shortlist_rerank"),
    ("sgraf", "shortlist_rerank"),
]


@pytest.fixture
def engine(tmp_path, material, params):
    """Evaluates a model in one way and opens the gallery: engine, material, results."""

    def _engine(name, mode, **changes):
        searched = material(name)
        settings = params.evaluate.model_copy(update={"mode": mode, "shortlist": 6, "top_k": 5, **changes})
        gallery = tmp_path / "gallery"
        shutil.rmtree(gallery, ignore_errors=True)
        gallery.mkdir()
        results = search_split(searched, settings, gallery).results
        save_info(gallery, describe(searched, settings))
        return open_engine(gallery, searched, name), searched, results

    return _engine


def open_engine(gallery, searched, name, split=None):
    matcher = searched.regions.folder.parent / name
    return SearchEngine(gallery, matcher, split or searched.split, lambda: searched.regions, lambda: searched.words)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(("name", "mode"), WAYS)
def test_queries_find_what_the_evaluation_found(engine, name, mode):
    opened, searched, results = engine(name, mode)
    for query in (0, 7, 23):
        found = opened.images(read_words(searched.words, searched.split.captions[query : query + 1]), 5)
        assert [result.item for result in found] == results.t2i_top[query].tolist()
        np.testing.assert_allclose([result.score for result in found], results.t2i_scores[query], atol=1e-5)
        found = opened.captions(read_regions(searched.regions, searched.split.images[query : query + 1]), 5)
        assert [result.item for result in found] == results.i2t_top[query].tolist()
        np.testing.assert_allclose([result.score for result in found], results.i2t_scores[query], atol=1e-5)


def test_another_matcher_finds_the_shortlist(engine, material):
    finder = material("tern")
    folder = finder.regions.folder.parent / "tern"
    opened, searched, results = engine("teran", "shortlist_rerank", shortlist_by=str(folder))
    found = opened.images(read_words(searched.words, searched.split.captions[:1]), 5)
    assert [result.item for result in found] == results.t2i_top[0].tolist()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "key": "later"}))
    with raises_naming(opened.gallery, "matcher, key)", folder, "(tern, later)"):
        open_engine(opened.gallery, searched, "teran")


def test_images_like_an_image_are_by_its_own_vectors_where_another_matcher_finds_the_shortlist(engine, material):
    folder = material("vsepp").regions.folder.parent / "vsepp"
    opened, searched, _ = engine("tern", "shortlist_rerank", shortlist_by=str(folder), shortlist=24)
    vectors = searched.vectors()[0]
    query = opened.stored_image(5)
    np.testing.assert_allclose(query.own.vectors[0].numpy(), vectors[5], atol=1e-5)
    for mode in ("shortlist", "exact"):
        found = opened.similar(query, 5, mode).found
        assert [one.item for one in found] == np.argsort(-vectors @ vectors[5], kind="stable")[:5].tolist()
        np.testing.assert_allclose([one.score for one in found], np.sort(-vectors @ vectors[5])[:5] * -1, atol=1e-5)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("name", ["teran", "sgraf"])
def test_encodings_of_sets_find_the_shortlist(engine, name):
    opened, searched, results = engine(name, "shortlist_rerank", shortlist_by="muvera")
    assert opened.info.muvera.planes == 3
    for query in (0, 7, 23):
        found = opened.images(read_words(searched.words, searched.split.captions[query : query + 1]), 5)
        assert [result.item for result in found] == results.t2i_top[query].tolist()
        found = opened.captions(read_regions(searched.regions, searched.split.images[query : query + 1]), 5)
        assert [result.item for result in found] == results.i2t_top[query].tolist()


def test_a_gallery_of_another_matcher_is_refused(engine, save_model):
    opened, searched, _ = engine("tern", "embeddings")
    save_model(searched.regions.folder.parent / "other", "vsepp", key="other key")
    with raises_naming("(tern, key)", "(vsepp, other key)"):
        open_engine(opened.gallery, searched, "other")


def test_a_gallery_of_another_dataset_is_refused(engine, material):
    opened, searched, _ = engine("tern", "embeddings")
    with raises_naming("24", "48", "8 and 16"):
        open_engine(opened.gallery, searched, "tern", material("tern", "test").split)


def kept(vectors):
    """A flat index of vectors."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors, dtype=np.float32))
    return index


def numbered(vectors):
    """An index whose items have other numbers than their places."""
    index = faiss.IndexIDMap(faiss.IndexFlatIP(vectors.shape[1]))
    index.add_with_ids(vectors, np.arange(len(vectors)) + 3)
    return index


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (lambda v: kept(v[4:]), ["20 vectors", "24"]),
        (lambda v: kept(np.concatenate([-v, v])), ["48 vectors", "24"]),
        (lambda v: kept(v[:, :4]), ["size 4"]),
        (numbered, ["26", "24"]),
    ],
)
def test_an_index_that_is_not_the_gallerys_is_refused(engine, changed, named):
    """It would find other images than those it names, or end in an error of FAISS's or NumPy's."""
    before, searched, _ = engine("tern", "embeddings")
    save_index(changed(searched.vectors()[0]), before.gallery / "images.faiss")
    opened = open_engine(before.gallery, searched, "tern")
    with raises_naming(before.gallery / "images.faiss", *named):
        opened.images(read_words(searched.words, searched.split.captions[:1]), 24)
    assert len(opened.captions(read_regions(searched.regions, searched.split.images[:1]), 5)) == 5


@pytest.mark.parametrize("wrong", [lambda v: v[1:], lambda v: v[:, 1:], lambda v: v[0], lambda v: v.astype(int)])
def test_vectors_that_are_not_the_gallerys_are_refused(engine, wrong):
    opened, searched, _ = engine("tern", "embeddings")
    vectors, path = searched.vectors()[0], opened.gallery / "embeddings.npy"
    np.save(path, wrong(vectors))
    with raises_naming(path, vectors.shape):
        opened.stored_image(0)
    np.save(path, vectors[::-1])
    fresh = open_engine(opened.gallery, searched, "tern")
    np.testing.assert_array_equal(fresh.stored_image(0).own.vectors.numpy(), vectors[-1:])
