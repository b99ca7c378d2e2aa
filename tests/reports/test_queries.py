import numpy as np
from assertions import raises_naming


def test_text_query(material):
    query = material.reader().text_query(3)  # second caption of the second image
    assert (query.sentence.text, query.rank, query.hit) == ("test-1 second", 4, False)
    assert [(result.picture.id, result.position, result.right) for result in query.results] == [
        ("test-0", 1, False),
        ("test-2", 2, False),
    ]
    assert (query.beyond.picture.id, query.beyond.position, query.beyond.right) == ("test-1", 4, True)


def test_probe_pair_is_read_by_caption(material):
    solved, missed = (material.reader().probe_pair(number) for number in range(2))
    assert solved.hit and not missed.hit
    assert missed.solved_captions == (True, False)
    assert [caption.text for caption in missed.captions] == ["probe-2 probed", "probe-3 probed"]
    assert np.allclose(missed.scores, [[0.5, 0.4], [0.7, 0.6]])


def test_what_an_approximate_index_did_not_find(material):
    top, ranks = material.results.t2i_top.copy(), material.results.t2i_ranks.copy()
    top[3], ranks[3] = [2, -1], 4
    query = material.reader(t2i_top=top, t2i_ranks=ranks).text_query(3)
    assert query.rank is None and not query.hit
    assert [result.picture.id for result in query.results] == ["test-2"]
    assert query.beyond.picture.id == "test-1"


def test_what_does_not_belong_together_is_refused(material):
    results, folder = material.results, material.dataset.folder
    sizes = f"{len(results.i2t_ranks)} images and {len(results.t2i_ranks)} captions"
    with raises_naming(folder, sizes):
        material.reader(caption_image=material.results.caption_image[::-1])
    with raises_naming(folder, "1 probe pairs", f"{2 * len(results.probe)} probe images"):
        material.reader(probe=material.results.probe[:1])
    (material.dataset.image_path(1)).write_bytes(b"no image")
    with raises_naming("test-0.png"):
        material.reader().image_query(0)


def test_a_caption_beside_its_image_with_the_regions_in_the_order_of_its_words(material):
    example = material.reader().word_example(material.reader().text_query(1))
    assert (example.sentence.text, example.picture.id, example.rank) == ("test-0 second", "test-0", 2)
    # "test" by the first region, "-" and "0" by none more than the other, "second" by the second
    assert example.colours == (0, None, None, 1)
    assert [region.name for region in example.regions] == ["", "red <b>square"]
    assert example.regions[1].box == material.box
    assert (example.picture.row, example.sentence.row) == (1, 3)
    assert material.reader().word_example(material.reader().text_query(0)) is None


def test_image_query(material):
    query = material.reader().image_query(2)
    assert (query.picture.id, query.rank, query.hit) == ("test-2", 1, True)
    assert [(result.sentence.text, result.right) for result in query.results] == [
        ("test-2 second", True),
        ("test-2 first", True),
    ]
    assert query.own == ()
    assert material.reader().image_query(3).own == ("test-3 first", "test-3 second")
