"""Scenes and captions without pixels: truth, variety, siblings, the probe."""

import hashlib
import math
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from crossmodal.datasets.scenes.captions import facts_of
from crossmodal.datasets.scenes.plan import groups_of, plan_group
from crossmodal.datasets.scenes.relations import EXISTS, Reference
from crossmodal.datasets.scenes.vocabulary import ADDITIONS, ADJECTIVES, COLOURS, NOUNS, PATTERNS, SHAPES, SIZES
from crossmodal.settings.datasets import Scenes

PARAMS = Path(__file__).parents[3] / "params.yaml"
FIELDS = {
    value: field
    for field, values in (("shape", SHAPES), ("colour", COLOURS), ("pattern", PATTERNS), ("size", SIZES))
    for value in values
}


@pytest.fixture(scope="module")
def shipped():
    """The settings of params.yaml."""
    return Scenes(**yaml.safe_load(PARAMS.read_text())["scenes"])


@pytest.fixture(scope="module")
def settings(shipped):
    return shipped.model_copy(update={"train": 300, "val": 40, "test": 60, "probe": 40})


@pytest.fixture(scope="module")
def groups(settings):
    return [plan_group(settings, *group) for group in groups_of(settings)]


@pytest.fixture(scope="module")
def images(groups):
    return [image for group in groups for image in group]


@pytest.fixture(scope="module")
def photographs(images):
    """Images that are not of the probe."""
    return [image for image in images if image.split != "probe"]


def words_of(text):
    return re.findall(r"[a-z-]+", text)


def group_words(settings, group):
    return {word for image in plan_group(settings, *group) for said in image.captions for word in words_of(said.text)}


def test_splits_have_their_sizes_and_images_their_captions(settings, images):
    assert Counter(image.split for image in images) == {
        "train": settings.train,
        "val": settings.val,
        "test": settings.test,
        "probe": 2 * settings.probe,
    }
    assert all(len(set(image.captions)) == (1 if image.split == "probe" else settings.captions) for image in images)
    assert len({image.id for image in images}) == len(images)
    assert all(settings.min_objects <= len(image.scene) <= settings.max_objects for image in images)


# --- truth, decided from the boxes that the record shows, apart from relations.py


def fits(truth, box, reference, side):
    extent = max(box[2] - box[0], box[3] - box[1]) / side
    size = "small" if extent < 0.175 else "medium" if extent < 0.265 else "large"
    colour, pattern = truth.attribute.split()
    return all(
        said in (None, value)
        for said, value in zip(
            (reference.shape, reference.colour, reference.pattern, reference.size),
            (truth.label, colour, pattern, size),
            strict=True,
        )
    )


def centre(box, side):
    return (box[0] + box[2]) / 2 / side, (box[1] + box[3]) / 2 / side


def extent(box, side):
    return max(box[2] - box[0], box[3] - box[1]) / side


def relation_holds(name, boxes, side):
    (ax, ay), *rest = (centre(box, side) for box in boxes)
    if name in ("left", "right", "above", "below"):
        bx, by = rest[0]
        along = {"left": bx - ax, "right": ax - bx, "above": by - ay, "below": ay - by}[name]
        across = abs(ay - by) if name in ("left", "right") else abs(ax - bx)
        return along > 0.13 and along > across
    if name == "inside":
        inner, outer = boxes
        return all(inner[i] > outer[i] and inner[i + 2] < outer[i + 2] for i in (0, 1))
    if name == "next":
        return math.dist((ax, ay), rest[0]) < (extent(boxes[0], side) + extent(boxes[1], side)) / 2 * 1.2 + 0.05
    if name == "between":
        direct = math.dist(*rest)
        return sum(math.dist((ax, ay), end) for end in rest) < 1.1 * direct
    if name in ("larger", "smaller", "same size"):
        ratio = extent(boxes[0], side) / extent(boxes[1], side)
        return {"larger": ratio > 1.15, "smaller": ratio < 1 / 1.15, "same size": 0.75 < ratio < 1.33}[name]
    return {
        "top": ay < 0.25,
        "bottom": ay > 0.75,
        "top left": max(ax, ay) < 0.35,
        "top right": max(1 - ax, ay) < 0.35,
        "bottom left": max(ax, 1 - ay) < 0.35,
        "bottom right": max(1 - ax, 1 - ay) < 0.35,
        "middle": max(abs(ax - 0.5), abs(ay - 0.5)) < 0.15,
    }[name]


def test_every_claim_of_every_caption_is_true(settings, images):
    side = settings.size
    for image in images:
        objects = image.record(side).objects
        for caption in image.captions:
            for claim in caption.claims:
                meant = [
                    [truth.box for truth in objects if fits(truth, truth.box, reference, side)]
                    for reference in (claim.subject, *claim.others)
                ]
                counts = [reference.count for reference in (claim.subject, *claim.others)]
                assert [len(boxes) for boxes in meant] == counts, (image.id, caption)
                if claim.relation != EXISTS:
                    others = [boxes[0] for boxes in meant[1:]]
                    for subject in meant[0]:
                        assert relation_holds(claim.relation, [subject, *others], side), (image.id, caption)


def test_phrases_name_one_object_by_its_own_words(settings, images):
    """Each word of a phrase is said of the object whose box it has, and no other word of the caption is of any."""
    found = 0
    said = {word: value for value, words in ADJECTIVES.items() for word in words}
    said |= {word: value for value, words in NOUNS.items() for word in words}
    said |= {words[0].split()[-1]: value for value, words in ADDITIONS.items()} | {"spots": "dotted"}
    for image in images:
        objects = image.record(settings.size).objects
        for phrase in image.phrases(settings.size):
            text = image.captions[phrase.caption].text
            words = [text[first:last] for first, last in phrase.words]
            (thing,) = [truth for truth in objects if truth.box == phrase.boxes[0]]
            reference = Reference(**{FIELDS[said[word]]: said[word] for word in words})
            assert fits(thing, thing.box, reference, settings.size), (text, words, thing)
            assert [fits(truth, truth.box, reference, settings.size) for truth in objects].count(True) == 1
            found += 1
        for caption in image.captions:
            single = [ref for claim in caption.claims for ref in (claim.subject, *claim.others) if ref.count == 1]
            mentioned = {mention.reference for mention in caption.sentence.mentions}
            assert mentioned == set(single)
    assert found > 1500


def test_captions_are_those_of_earlier_versions():
    sizes = {"train": 6, "val": 2, "test": 3, "probe": 2, "size": 128, "captions": 3, "siblings": 3, "seed": 5}
    settings = Scenes(**sizes, min_objects=3, max_objects=7)
    images = [image for group in groups_of(settings) for image in plan_group(settings, *group)]
    text = "\n".join(caption.text for image in images for caption in image.captions)
    assert hashlib.sha256(text.encode()).hexdigest() == (
        "ff5d77f023ba6024f85e32aef22a52049f9b800323dec43742315c053a6ef8db"
    )


def test_captions_name_what_they_claim(photographs):
    for image in photographs:
        for caption in image.captions:
            for claim in caption.claims:
                for reference in (claim.subject, *claim.others):
                    for value in (reference.colour, reference.pattern, reference.size):
                        options = (*ADJECTIVES.get(value, ()), *ADDITIONS.get(value, ()))
                        assert value is None or any(option in caption.text for option in options), caption
                    if reference.shape:
                        assert any(noun in caption.text for noun in NOUNS[reference.shape]), caption


def test_relations_tell_siblings_apart(groups):
    telling = []
    for group in groups:
        for image in group:
            others = [other.scene for other in group if other is not image]
            for caption in image.captions:
                if image.split != "probe" and caption.relational:
                    telling.append(not any(caption.may_describe(scene) for scene in others))
    assert sum(telling) > 0.85 * len(telling)


def test_training_captions_of_the_shipped_dataset_have_every_word_of_the_others(shipped):
    groups = groups_of(shipped)
    needed = {word for group in groups if group[0] != "train" for word in group_words(shipped, group)}
    known = set()
    for group in groups:
        if group[0] == "train" and not needed <= known:
            known |= group_words(shipped, group)
    assert needed <= known
    assert 110 <= len(known) <= 250


def test_siblings_are_the_four_ways_to_place_and_colour_two_objects(groups):
    for group in groups:
        if group[0].split == "probe":
            continue
        assert len(group) == 4
        first, swapped, rebound, both = (image.scene for image in group)
        moved = [i for i, thing in enumerate(first) if thing != swapped[i]]
        assert len(moved) == 2
        i, j = moved
        assert [thing.kind for thing in first] == [thing.kind for thing in swapped]
        for one, other in ((first, swapped), (rebound, both)):
            assert (one[i].x, one[i].y, one[j].x, one[j].y) == (other[j].x, other[j].y, other[i].x, other[i].y)
        for one, other in ((first, rebound), (swapped, both)):
            assert [thing.kind.colour for thing in (one[i], one[j])] == [other[j].kind.colour, other[i].kind.colour]
            assert [thing.kind[0] for thing in one] == [thing.kind[0] for thing in other]
            assert all(a == b for k, (a, b) in enumerate(zip(one, other, strict=True)) if k not in moved)


def test_further_siblings_show_the_same_objects_elsewhere(settings):
    many = settings.model_copy(update={"siblings": 7})
    group = plan_group(many, "train", 0)
    assert len({image.scene for image in group}) == 7
    shapes = [sorted(thing.kind.shape for thing in image.scene) for image in group]
    assert all(shape == shapes[0] for shape in shapes)


def test_groups_are_whole_within_a_split(groups, settings):
    for group in groups:
        assert len({image.split for image in group}) == 1
        assert len(group) == (2 if group[0].split == "probe" else settings.siblings)


def test_one_sibling_and_a_broken_last_family(settings):
    odd = settings.model_copy(update={"train": 7, "val": 1, "test": 2, "probe": 1})
    assert [len(plan_group(odd, *group)) for group in groups_of(odd)] == [4, 3, 1, 2, 2]
    alone = settings.model_copy(update={"train": 3, "val": 1, "test": 1, "probe": 1, "siblings": 1})
    scenes = [plan_group(alone, "train", number)[0].scene for number in range(3)]
    assert len({tuple(sorted(thing.kind for thing in scene)) for scene in scenes}) == 3


@pytest.mark.parametrize(("lowest", "highest"), [(2, 2), (9, 9)])
def test_smallest_and_largest_scenes(settings, lowest, highest):
    extreme = settings.model_copy(update={"min_objects": lowest, "max_objects": highest, "probe": 2})
    for group in (("train", 0), ("probe", 0), ("probe", 1)):
        assert all(len(image.scene) == lowest for image in plan_group(extreme, *group))


# --- the probe


def test_probe_captions_differ_in_order_alone(groups):
    pairs = [group for group in groups if group[0].split == "probe"]
    for one, two in pairs:
        texts = [image.captions[0].text for image in (one, two)]
        assert texts[0] != texts[1]
        assert Counter(words_of(texts[0])) == Counter(words_of(texts[1]))
        assert not one.captions[0].may_describe(two.scene)
        assert not two.captions[0].may_describe(one.scene)


def test_probe_images_differ_by_one_swap(groups, settings):
    pairs = [group for group in groups if group[0].split == "probe"]
    kinds = Counter()
    for number, (one, two) in enumerate(pairs):
        prefix, index, kind, letter = one.id.split("-")
        assert (prefix, int(index), letter) == ("probe", number, "a")
        assert two.id == one.id[:-1] + "b"
        assert one.canvas == two.canvas
        kinds[kind] += 1
        places = [[(thing.x, thing.y) for thing in image.scene] for image in (one, two)]
        objects = [[thing.kind for thing in image.scene] for image in (one, two)]
        assert sum(a != b for a, b in zip(*places, strict=True)) == (2 if kind == "relation" else 0)
        assert sum(a != b for a, b in zip(*objects, strict=True)) == (0 if kind == "relation" else 2)
        assert sorted(places[0]) == sorted(places[1])
        for column in range(4):
            assert sorted(kind[column] for kind in objects[0]) == sorted(kind[column] for kind in objects[1])
    assert kinds["relation"] == kinds["attribute"] == settings.probe // 2


def test_facts_come_in_opposites(photographs):
    for image in photographs[:50]:
        facts = facts_of(image.scene)
        for name, opposite in (("left", "right"), ("above", "below"), ("larger", "smaller")):
            assert {(i, j) for _, (i, j) in facts.get(name, ())} == {(j, i) for _, (i, j) in facts.get(opposite, ())}


def test_few_captions_are_shared_and_most_relate(photographs):
    seen = Counter(caption.text for image in photographs for caption in image.captions)
    captions = [caption for image in photographs for caption in image.captions]
    assert sum(seen[caption.text] > 1 for caption in captions) < 0.05 * len(captions)
    assert sum(caption.relational for caption in captions) >= 2 / 3 * len(captions)
