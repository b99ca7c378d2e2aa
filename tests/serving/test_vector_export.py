"""``crossmodal export --format parquet`` and ``lance``, and the recipes that search with Qdrant and LanceDB."""

import importlib.util
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from assertions import raises_naming

from crossmodal.datasets.records import read_dataset
from crossmodal.errors import UserError
from crossmodal.inference.scoring import encode_captions, encode_images, similarity_matrix
from crossmodal.serving import vector_export
from crossmodal.serving.vector_export import export_vectors

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def recipe(name):
    pytest.importorskip({"search_qdrant": "qdrant_client", "search_lancedb": "lancedb"}[name])
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def export(material, tmp_path, name, kind, split="train"):
    inputs = material(name, split)
    counts = export_vectors(inputs, read_dataset(tmp_path / "dataset"), split, tmp_path / "vectors", kind)
    assert counts == {"images": len(inputs.split.images), "captions": len(inputs.split.captions)}
    return inputs


@pytest.mark.parametrize("name", ["tern", "teran", "sgraf"])
def test_parquet_holds_what_the_matcher_compares(material, tmp_path, name):
    inputs = export(material, tmp_path, name, "parquet", "test")
    images, captions = (pq.read_table(tmp_path / f"vectors/{side}.parquet") for side in ("images", "captions"))
    encoded = {
        "images": encode_images(inputs.model, inputs.regions, inputs.split.images, 7),
        "captions": encode_captions(inputs.model, inputs.words, inputs.split.captions, 7),
    }
    for side, table in (("images", images), ("captions", captions)):
        expected = encoded[side]
        for number, row in enumerate(table.to_pylist()):
            if name == "tern":
                np.testing.assert_allclose(row["vector"], expected.vectors[number], atol=1e-6)
            else:
                own = expected.vectors[number][expected.mask[number]]
                np.testing.assert_allclose(row["vectors"], own, atol=1e-6)
    rows = images.to_pylist()
    assert [row["id"] for row in rows] == [f"test-{number}" for number in range(32, 40)]
    assert rows[0]["file"] == "images/32.jpg"
    np.testing.assert_array_equal(rows[3]["boxes"], inputs.regions.read(35, "boxes"))
    if name == "teran":
        assert [len(row["vectors"]) for row in rows] == [len(row["boxes"]) for row in rows]
    texts = captions.to_pylist()
    assert (texts[3]["id"], texts[3]["image"], texts[3]["text"]) == ("test-33#1", "test-33", "caption 33 b")
    assert captions.schema.names == ["id", "image", "text", "vector" if name == "tern" else "vectors"]
    assert b'"split": "test"' in images.schema.metadata[b"crossmodal"]


def expected_ranking(inputs, query, k):
    """Ids of the k best training images for a caption, by the pipeline's own scores."""
    matrix = similarity_matrix(inputs)
    return [f"train-{row}" for row in np.argsort(-matrix[:, query], kind="stable")[:k]], matrix[:, query]


@pytest.mark.parametrize(("name", "alignment"), [("teran", "MrSw"), ("teran", "MrAVGw"), ("tern", "")])
def test_qdrant_ranks_as_the_pipeline(material, tmp_path, name, alignment):
    module = recipe("search_qdrant")
    inputs = export(material, tmp_path, name, "parquet")
    inputs.model.mode = alignment
    client = module.QdrantClient(":memory:")
    assert module.fill(client, tmp_path / "vectors") == 24
    queries = list(module.rows(tmp_path / "vectors/captions.parquet"))
    for number in range(0, 48, 5):
        query = queries[number]["vectors" if name == "teran" else "vector"]
        found = module.search(client, query, 24)
        ranking, scores = expected_ranking(inputs, number, 24)
        assert [image for image, _ in found] == ranking
        words = len(query) if alignment == "MrAVGw" else 1
        np.testing.assert_allclose([score / words for _, score in found], np.sort(scores)[::-1], atol=1e-4)


@pytest.mark.parametrize("name", ["teran", "tern"])
def test_lancedb_ranks_as_the_pipeline(material, tmp_path, name):
    module = recipe("search_lancedb")
    inputs = export(material, tmp_path, name, "lance")
    database = module.lancedb.connect(tmp_path / "vectors")
    images, captions = database.open_table("images"), database.open_table("captions").to_arrow().to_pylist()
    for number in range(0, 48, 5):
        query = np.asarray(captions[number]["vectors" if name == "teran" else "vector"], dtype=np.float32)
        found = module.search(images, query, 24)
        assert [image for image, _ in found] == expected_ranking(inputs, number, 24)[0]
        assert [distance for _, distance in found] == sorted(distance for _, distance in found)


@pytest.mark.parametrize("name", ["vsepp", "scan"])
def test_the_command_writes_both_tables(workspace, run, name):
    folder = workspace(name)
    code, out, _ = run("export", "--format", "parquet", folder / "vectors")
    assert code == 0 and "8 images, 16 captions of test" in out
    assert pq.read_table(folder / "vectors/captions.parquet")["text"][2].as_py() == "a lime picture"
    assert pq.read_table(folder / "vectors/images.parquet")["file"][1].as_py() == "images/lime.png"
    again = run("export", "--format", "parquet", folder / "vectors")
    assert again[0] == 2 and "already there" in again[2]


@pytest.mark.parametrize("kind", ["parquet", "lance"])
def test_what_ends_in_an_error_is_not_there(material, tmp_path, monkeypatch, kind):
    """Images without their captions would be taken for all of it."""
    if kind == "lance":
        pytest.importorskip("lancedb")
    monkeypatch.setattr(vector_export, "_captions", spoiled)
    with raises_naming("NaN"):
        export(material, tmp_path, "tern", kind)
    assert not (tmp_path / "vectors").exists()
    monkeypatch.undo()
    export(material, tmp_path, "tern", kind)
    assert {path.name for path in (tmp_path / "vectors").iterdir()} == {f"images.{kind}", f"captions.{kind}"}
    assert not (tmp_path / "vectors.part").exists()


def spoiled(*_):
    raise UserError("a value is NaN")
    yield
