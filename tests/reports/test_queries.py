import numpy as np
import pytest

from crossmodal.errors import UserError
from crossmodal.evaluation.probe import probe_score
from crossmodal.reports.pictures import Pictures
from crossmodal.reports.queries import QueryReader, choose, probe_hits


@pytest.mark.parametrize(
    ("hits", "misses", "count", "chosen_hits"),
    [
        (40, 60, 20, 8),  # in proportion
        (1, 99, 20, 1),  # all there are
        (10, 990, 20, 3),  # at least three
        (990, 10, 20, 17),
        (0, 50, 20, 0),
        (50, 0, 20, 20),
        (3, 4, 20, 3),  # fewer than asked for
        (50, 50, 1, 0),
        (1, 99, 2, 1),
        (0, 0, 5, 0),
    ],
)
def test_hits_and_misses_in_proportion(hits, misses, count, chosen_hits):
    right = np.random.default_rng(1).permutation(np.arange(hits + misses) < hits)
    chosen = choose(right, count, (0, 0))
    assert len(set(chosen.tolist())) == len(chosen) == min(count, hits + misses)
    assert right[chosen].sum() == chosen_hits
    assert np.array_equal(chosen, choose(right, count, (0, 0)))
    assert np.array_equal(chosen, np.sort(chosen))


def test_a_few_of_each_is_a_setting():
    right = np.arange(1000) < 20
    assert right[choose(right, 6, (0, 0), at_least=1)].sum() == 1


def test_another_seed_draws_others():
    right = np.arange(1000) % 2 == 0
    assert not np.array_equal(choose(right, 20, (0, 0)), choose(right, 20, (1, 0)))


def test_probe_hits_agree_with_the_metric():
    probe = np.random.default_rng(0).integers(0, 4, size=(500, 2, 2)).astype(float)  # with ties
    assert 100 * probe_hits(probe).mean() == pytest.approx(probe_score(probe))
    assert len(probe_hits(np.zeros((0, 2, 2)))) == 0


def reader(material, **changes):
    results = material.results.__class__(**{**vars(material.results), **changes})
    pictures = Pictures(material.dataset, material.regions)
    return QueryReader(material.dataset, material.split, results, pictures)


def test_text_query(material):
    query = reader(material).text_query(3)  # second caption of the second image
    assert (query.text, query.rank, query.hit) == ("test-1 second", 4, False)
    assert [(result.picture.id, result.position, result.right) for result in query.results] == [
        ("test-0", 1, False),
        ("test-2", 2, False),
    ]
    assert (query.beyond.picture.id, query.beyond.position, query.beyond.right) == ("test-1", 4, True)


def test_image_query(material):
    query = reader(material).image_query(2)
    assert (query.picture.id, query.rank, query.hit) == ("test-2", 1, True)
    assert [(result.text, result.right) for result in query.results] == [
        ("test-2 second", True),
        ("test-2 first", True),
    ]
    assert query.own == ()
    assert reader(material).image_query(3).own == ("test-3 first", "test-3 second")


def test_probe_pair_is_read_by_caption(material):
    solved, missed = (reader(material).probe_pair(number) for number in range(2))
    assert solved.hit and not missed.hit
    assert missed.solved_captions == (True, False)
    assert missed.captions == ("probe-2 probed", "probe-3 probed")
    assert np.allclose(missed.scores, [[0.5, 0.4], [0.7, 0.6]])


def test_what_an_approximate_index_did_not_find(material):
    top, ranks = material.results.t2i_top.copy(), material.results.t2i_ranks.copy()
    top[3], ranks[3] = [2, -1], 4
    query = reader(material, t2i_top=top, t2i_ranks=ranks).text_query(3)
    assert query.rank is None and not query.hit
    assert [result.picture.id for result in query.results] == ["test-2"]
    assert query.beyond.picture.id == "test-1"


def test_what_does_not_belong_together_is_refused(material):
    with pytest.raises(UserError, match="evaluate stage"):
        reader(material, caption_image=material.results.caption_image[::-1])
    with pytest.raises(UserError, match="probe pairs"):
        reader(material, probe=material.results.probe[:1])
    (material.dataset.image_path(1)).write_bytes(b"no image")
    with pytest.raises(UserError, match=r"test-0\.png"):
        reader(material).image_query(0)
