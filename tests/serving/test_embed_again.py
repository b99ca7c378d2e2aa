"""``crossmodal embed``: what is computed, what is kept, and that every way there gives the bytes of a new gallery."""

import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from assertions import assert_names, raises_naming
from PIL import Image

from crossmodal.models.checkpoint import load_matcher
from crossmodal.retrieval.index import read_index
from crossmodal.retrieval.muvera import FixedEncoder
from crossmodal.serving.embed import _indexed_size, embed
from crossmodal.serving.embedding import run, shards, tasks
from crossmodal.serving.session import Folders, SearchSession
from crossmodal.settings.params import load_params


@pytest.fixture
def decoded(monkeypatch):
    """Names of the files that were decoded, which comes before everything that takes time."""
    names, real = [], shards.decode_sized

    def noted(path):
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(shards, "decode_sized", noted)
    return names


def write_photographs(folder, numbers):
    """Pictures of noise, of three sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        pixels = np.random.default_rng(number).integers(0, 255, (24 + 8 * (number % 3), 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def make(source, out, **options):
    return embed(str(source), Path(out), load_params(), Folders(), **options)


@pytest.mark.parametrize(("name", "form"), [("vsepp", "gallery"), ("scan", "gallery"), ("scan", "parquet")])
def test_new_photographs_alone_are_computed_and_the_bytes_are_those_of_a_new_gallery(
    workspace, tmp_path, decoded, monkeypatch, name, form
):
    workspace(name)
    monkeypatch.setattr(tasks, "SHARD_ROWS", 4)
    photographs = tmp_path / "photographs"
    write_photographs(photographs, range(9))
    (photographs / "broken.jpg").write_bytes(b"no image")
    assert make(photographs, "made", form=form).known == 0
    assert len(decoded) == 10
    decoded.clear()
    write_photographs(photographs, [9, 10])
    (photographs / "03.png").unlink()
    (photographs / "05.png").rename(photographs / "zz.png")
    shutil.copy(photographs / "01.png", photographs / "copy.png")
    done = make(photographs, "made", form=form)
    assert (done.images, done.known) == (11, 9)
    assert sorted(decoded) == ["09.png", "10.png", "broken.jpg"]
    assert make(photographs, "new", form=form).known == 0
    assert contents(Path("made")) == contents(Path("new"))
    assert not list(Path().glob("made.*"))
    ids = [row for path in sorted(Path("made/vectors").iterdir()) for row in pq.read_table(path)["id"].to_pylist()]
    assert ids == sorted(path.name for path in photographs.glob("*.png"))


@pytest.mark.parametrize("name", ["vsepp", "scan"])
def test_one_photograph_has_the_bits_that_it_has_among_others(workspace, tmp_path, name):
    workspace(name)
    write_photographs(tmp_path / "many", range(40))
    write_photographs(tmp_path / "one", [17])
    vectors = {}
    for which in ("many", "one"):
        make(tmp_path / which, which)
        vectors[which] = np.load(f"{which}/embeddings.npy")
    np.testing.assert_array_equal(vectors["many"][17], vectors["one"][0])


def cut_off_after(monkeypatch, count):
    """An embed that ends, as at Ctrl-C, when it comes to its shard ``count``."""
    real, begun = shards.ShardMaker._write_table, []

    def write(self, *arguments):
        begun.append(1)
        if len(begun) > count:
            raise KeyboardInterrupt
        real(self, *arguments)

    monkeypatch.setattr(shards.ShardMaker, "_write_table", write)
    return lambda: monkeypatch.setattr(shards.ShardMaker, "_write_table", real)


@pytest.mark.parametrize("name", ["vsepp", "scan"])
def test_what_was_cut_off_goes_on_at_its_shard(workspace, tmp_path, decoded, monkeypatch, name):
    workspace(name)
    monkeypatch.setattr(tasks, "SHARD_ROWS", 3)
    photographs = tmp_path / "photographs"
    write_photographs(photographs, range(1, 10))
    restore = cut_off_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        make(photographs, "made")
    restore()
    decoded.clear()
    make(photographs, "made")
    assert sorted(decoded) == ["07.png", "08.png", "09.png"]
    make(photographs, "new")
    assert contents(Path("made")) == contents(Path("new"))
    # A photograph that came meanwhile moves all others to other shards; they are not computed again.
    shutil.rmtree("made")
    restore = cut_off_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        make(photographs, "made")
    restore()
    decoded.clear()
    write_photographs(photographs, [0])
    make(photographs, "made")
    assert sorted(decoded) == ["00.png", "07.png", "08.png", "09.png"]
    shutil.rmtree("new")
    make(photographs, "new")
    assert contents(Path("made")) == contents(Path("new"))


def test_another_matcher_computes_everything_again(workspace, tmp_path, decoded):
    folder = workspace("vsepp")
    write_photographs(tmp_path / "photographs", range(3))
    make(tmp_path / "photographs", "made")
    config = folder / "models/matcher/config.json"
    config.write_text(config.read_text().replace('"key": "', '"key": "another '))
    decoded.clear()
    assert make(tmp_path / "photographs", "made").known == 0
    assert len(decoded) == 3


def write_tar(path, photographs, further=()):
    with tarfile.open(path, "w") as archive:
        for photograph in photographs:
            archive.add(photograph, photograph.name)
            text = b"a caption"
            info = tarfile.TarInfo(f"{photograph.stem}.txt")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
        for name, content in further:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def test_tars_are_a_gallery_that_is_searched_without_them(workspace, tmp_path, decoded, monkeypatch):
    workspace("vsepp")
    monkeypatch.setattr(shards, "SHARD_ROWS", 2)
    photographs = tmp_path / "photographs"
    write_photographs(photographs, range(7))
    files = sorted(photographs.iterdir())
    write_tar(tmp_path / "x-000.tar", files[:5], [("bad.jpg", b"no image")])
    make(tmp_path / "x-{000..000}.tar", "made")
    write_tar(tmp_path / "x-001.tar", files[5:])
    decoded.clear()
    done = make(tmp_path / "x-*.tar", "made")
    assert (done.images, done.known) == (7, 5)
    assert [(item.item, item.reason) for item in done.skipped] == [("x-000/bad.jpg", "no image")]
    assert sorted(decoded) == ["05.png", "06.png", "bad.jpg"]
    make(tmp_path / "x-*.tar", "new")
    assert contents(Path("made")) == contents(Path("new"))
    make(photographs, "from a folder")
    np.testing.assert_array_equal(np.load("made/embeddings.npy"), np.load("from a folder/embeddings.npy"))
    for path in tmp_path.glob("*.tar"):
        path.unlink()
    session = SearchSession(Path("made"), load_params(), Folders())
    (found,) = session.find_images("a red picture", 1)
    name = session.dataset.records[session.split.images[found.item]].id
    assert session.image_path(found.item).read_bytes() == (photographs / Path(name).name).read_bytes()
    assert sorted(path.name for path in Path("made/dataset/images").rglob("*.*")) == [path.name for path in files]


def test_tars_are_shards_whose_files_fsspec_opens(workspace, tmp_path):
    import fsspec

    workspace("scan")
    write_photographs(tmp_path / "photographs", range(3))
    write_tar(tmp_path / "x.tar", sorted((tmp_path / "photographs").iterdir()))
    make(tmp_path / "x.tar", "made", form="parquet")
    assert sorted(path.name for path in Path("made").rglob("*")) == [
        *("00000-00000.parquet", "embed.json", "skipped.json", "vectors"),
    ]
    rows = pq.read_table("made/vectors").to_pylist()
    assert [row["id"] for row in rows] == ["x/00.png", "x/01.png", "x/02.png"]
    assert all(len(row["vectors"]) == len(row["boxes"]) == len(row["classes"]) for row in rows)
    with fsspec.open(rows[1]["file"]) as file:
        assert file.read() == (tmp_path / "photographs/01.png").read_bytes()


def test_what_is_there_is_not_overwritten_by_another_form(workspace, tmp_path):
    workspace("vsepp")
    write_photographs(tmp_path / "photographs", range(2))
    make(tmp_path / "photographs", "made")
    with raises_naming("made: ", "--format gallery", "parquet"):
        make(tmp_path / "photographs", "made", form="parquet")
    for path in (tmp_path / "photographs").iterdir():
        path.unlink()
    with raises_naming(tmp_path / "photographs", "no photographs"):
        make(tmp_path / "photographs", "made")
    assert Path("made/gallery.json").is_file()


@pytest.mark.parametrize("form", ["gallery", "parquet"])
def test_actors_that_share_the_tasks_make_the_bytes_of_one_process(workspace, tmp_path, monkeypatch, form):
    """As test_embed_on_ray, without Ray: what it does with the actors is done here."""
    workspace("scan")
    monkeypatch.setattr(tasks, "SHARD_ROWS", 3)
    write_photographs(tmp_path / "photographs", range(10))
    make(tmp_path / "photographs", "local", form=form)
    shared = []

    def on_ray(actor, constructor, items, cluster, *, desc):
        actors = [actor(*constructor) for _ in range(cluster.workers)]
        for number, item in reversed(list(enumerate(items))):
            shared.append(number % cluster.workers)
            assert actors[shared[-1]]({key: [value] for key, value in item.items()}) == {"error": [""]}

    monkeypatch.setattr(run, "map_on_ray", on_ray)
    make(tmp_path / "photographs", "made", form=form, executor="ray")
    assert shared == [1, 0, 1, 0]
    assert contents(Path("made")) == contents(Path("local"))


def test_two_processes_do_not_make_one_folder(workspace, tmp_path, monkeypatch):
    workspace("vsepp")
    write_photographs(tmp_path / "photographs", range(2))
    real, refused = shards.decode_sized, []

    def meanwhile(path):
        with raises_naming("made: ", "another") as error:
            make(tmp_path / "photographs", "made")
        refused.append(error)
        return real(path)

    monkeypatch.setattr(shards, "decode_sized", meanwhile)
    assert make(tmp_path / "photographs", "made").images == 2
    assert len(refused) == 2
    assert sorted(path.name for path in Path().glob("made*")) == ["made"]
    assert make(tmp_path / "photographs", "made").known == 2


@pytest.mark.parametrize("out", [".", "/", ""])
def test_a_folder_without_a_name_is_refused(workspace, tmp_path, out):
    workspace("vsepp")
    write_photographs(tmp_path / "photographs", range(1))
    with raises_naming(f"{Path(out)}: ", "replaced"):
        make(tmp_path / "photographs", out)


def test_lance_has_the_rows_of_the_shards(workspace, tmp_path, monkeypatch):
    lancedb = pytest.importorskip("lancedb", reason="lancedb is not installed: pip install 'crossmodal[engines]'")
    workspace("scan")
    monkeypatch.setattr(tasks, "SHARD_ROWS", 4)
    photographs = tmp_path / "photographs"
    write_photographs(photographs, range(6))
    make(photographs, "made", form="lance")
    write_photographs(photographs, [6, 7, 8])
    assert make(photographs, "made", form="lance").known == 6
    shards_read = [pq.read_table(path) for path in sorted(Path("made/vectors").iterdir())]
    expected = [row for table in shards_read for row in table.to_pylist()]
    assert [row["id"] for row in expected] == [f"{number:02d}.png" for number in range(9)]
    assert lancedb.connect("made").open_table("images").to_arrow().to_pylist() == expected


def test_shortlists_by_muvera_are_found_by_the_encodings_of_all_sets(workspace, tmp_path, monkeypatch):
    workspace("scan")
    monkeypatch.setattr(tasks, "SHARD_ROWS", 4)
    write_photographs(tmp_path / "photographs", range(6))
    params = load_params()
    evaluate = params.evaluate.model_copy(update={"shortlist_by": "muvera", "shortlist": 3})
    params = params.model_copy(update={"evaluate": evaluate})
    embed(str(tmp_path / "photographs"), Path("made"), params, Folders())
    write_photographs(tmp_path / "photographs", [6, 7, 8])
    embed(str(tmp_path / "photographs"), Path("made"), params, Folders())
    embed(str(tmp_path / "photographs"), Path("new"), params, Folders())
    assert contents(Path("made")) == contents(Path("new"))
    session = SearchSession(Path("made"), load_params(), Folders())
    encode = FixedEncoder(evaluate.muvera, 128).items
    expected = encode(session.engine._images.everything)
    kept = session.engine._images.index.reconstruct_n(0, 9)
    np.testing.assert_allclose(kept, expected, atol=1e-5)
    exact = session.by_sentence("a red picture", 9, "exact").found
    sums = (
        kept
        @ FixedEncoder(evaluate.muvera, 128)
        .queries(session.engine.read_sentence(session._reader("a red picture")).own)[0]
        .numpy()
    )
    listed = set(np.argsort(-sums)[:3].tolist())
    found = session.by_sentence("a red picture", 3).found
    assert [hit.item for hit in found] == [hit.item for hit in exact if hit.item in listed]


@pytest.mark.parametrize("name", ["vsepp", "scan"])
def test_an_index_that_cannot_be_is_refused_before_anything_is_computed(workspace, tmp_path, decoded, name):
    workspace(name)
    write_photographs(tmp_path / "photographs", range(3))
    for factory in ("Flatt", "PQ7"):
        with raises_naming(repr(factory), "not possible"):
            make(tmp_path / "photographs", "made", factory=factory)
    assert decoded == []
    assert not Path("made").exists()
    make(tmp_path / "photographs", "made", factory="SQ8")
    assert len(decoded) == 3


def test_the_size_of_what_is_indexed_is_known_before(workspace, tmp_path):
    """Of MUVERA's encodings too, which are longer than the matcher's vectors."""
    workspace("scan")
    write_photographs(tmp_path / "photographs", range(3))
    params = load_params()
    params = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"shortlist_by": "muvera"})})
    model, config = load_matcher(Path("models/matcher"))
    embed(str(tmp_path / "photographs"), Path("made"), params, Folders())
    assert read_index(Path("made/images.faiss")).d == _indexed_size(model, config, params)
    assert _indexed_size(model, config, params) > _indexed_size(model, config, load_params())


@pytest.mark.parametrize("form", ["parquet", "lance"])
def test_shards_have_no_index(workspace, tmp_path, run, form):
    workspace("vsepp")
    write_photographs(tmp_path / "photographs", range(1))
    code, out, err = run("embed", tmp_path / "photographs", "--out", "made", "--format", form, "--index", "Flat")
    assert (code, out) == (2, "")
    assert_names(err, "--index", form)
    assert not Path("made").exists()
