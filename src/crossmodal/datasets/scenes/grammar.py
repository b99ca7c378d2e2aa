"""Claims in words: noun phrases, relation phrases and sentence frames, all lower-case."""

from __future__ import annotations

from collections.abc import Sequence

from crossmodal.datasets.scenes import vocabulary
from crossmodal.datasets.scenes.relations import COMPARISONS, DIRECTIONS, Claim, Reference
from crossmodal.datasets.scenes.wording import MARKED, Sentence, Wording

ADDITION_ODDS = 0.16  # "a circle with dots" instead of "a dotted circle"
SOMETHING_ODDS = 0.5  # "something red" instead of "a red object"

# {a}: the subject with "a", {the}: with "the"; {rel}: relation and other objects; {is}, {sits}, ... agree
# with the subject's number. Frames with {the} call the other objects "the" too.
FRAMES = (
    "{a} {rel}",
    "{a} {rel}",
    "{a} {rel}",
    "{a} {is} {rel}",
    "{a} {sits} {rel}",
    "{a} shown {rel}",
    "{a} can be seen {rel}",
    "there {is} {a} {rel}",
    "there {is} {a} {rel}",
    "you can see {a} {rel}",
    "we see {a} {rel}",
    "{a_picture} of {a} {rel}",
    "{a_picture} with {a} {rel}",
    "the {picture} shows {a} {rel}",
    "{the} {is} {rel}",
    "{the} {is} {rel}",
    "{the} {sits} {rel}",
)
# Only for relations that say where something is, not how large.
TURNED_FRAMES = ("{rel} there {is} {a}", "{rel} {is} {a}", "{rel} you can see {a}", "{rel} {lies} {a}")
SIZE_FRAMES = (
    "{a} {rel}",
    "{a} {rel}",
    "{a} that {is} {rel}",
    "there {is} {a} {rel}",
    "{a} {is} {rel}",
    "{the} {is} {rel}",
    "{the} {is} {rel}",
    "{the} {looks} {rel}",
    "the {picture} shows {a} {rel}",
)
TAIL_FRAMES = (
    "{b} with {a} {tail}",
    "{b} with {a} {tail}",
    "{b} has {a} {tail}",
    "{the_b} has {a} {tail}",
    "there is {b} with {a} {tail}",
    "{b}, and {tail} {a}",
)
# {a}: the subject of both relations.
SHARED_FRAMES = (
    "{a} {r1} and {r2}",
    "{a} {is} {r1} and {r2}",
    "{the} {is} {r1} and {r2}",
    "there {is} {a} {r1} and {r2}",
    "{a} {r1} but {r2}",
)
# {r1} ends with the object that is the subject of {r2}.
CHAIN_FRAMES = (
    "{a} {r1} that is {r2}",
    "{a} {r1}, which is {r2}",
    "there {is} {a} {r1} that is {r2}",
    "{the} {is} {r1}, which is {r2}",
    "the {picture} shows {a} {r1} that is {r2}",
)
# Four different objects.
CLAUSE_FRAMES = (
    "{a} {is} {r1} and {c} {is_c} {r2}",
    "{a} {is} {r1} while {c} {is_c} {r2}",
    "{the} {is} {r1} and {the_c} {is_c} {r2}",
    "{the} {is} {r1}, {the_c} {is_c} {r2}",
    "{a} {r1}, and {c} {r2}",
    "there {is} {a} {r1}, and {c} {r2}",
)
# {rel} and one more object.
EXTRA_FRAMES = (
    "{a} {rel}, and {c}",
    "{a} {rel}, plus {c}",
    "{c}, and {a} {rel}",
    "{a} {is} {rel}, and there {is_c} also {c}",
    "{the} {is} {rel}, and there {is_c} also {c}",
    "there {is} {a} {rel} as well as {c}",
    "{a_picture} of {a} {rel} and {c}",
)
LIST_FRAMES = (
    "{list}",
    "{list}",
    "there {is} {list}",
    "you can see {list}",
    "we see {list}",
    "{a_picture} of {list}",
    "{a_picture} with {list}",
    "the {picture} shows {list}",
    "{list} in one {picture}",
    "among the shapes {are} {list}",
)
TOTAL_FRAMES = (
    "{total}, one of them {a}",
    "{total} including {a}",
    "{a_picture} with {total}, among them {a}",
    "there are {total}, and one is {a}",
    "{total} in all, with {a} among them",
)
PLACING_VERB = "{lies}"
VERBS = {
    "is": ("is", "are"),
    "sits": ("sits", "sit"),
    "lies": ("lies", "lie"),
    "looks": ("looks", "look"),
}


def noun_phrase(
    reference: Reference,
    wording: Wording,
    determiner: str = "a",
    comparative: str | None = None,
    brief: bool = False,
) -> str:
    """The reference in words, with "a" or "the"; ``brief``: nothing after the noun."""
    mark = wording.mark(reference)
    size = mark(wording.adjective(reference.size))
    if comparative:
        size = wording.choose(comparative, vocabulary.COMPARATIVES[comparative], usual=True)
    colour, pattern = mark(wording.adjective(reference.colour)), mark(wording.adjective(reference.pattern))
    if reference.shape is None:
        if determiner == "a" and reference.count == 1 and not size and wording.chance("something", SOMETHING_ODDS):
            return "something " + " and ".join(word for word in (colour, pattern) if word)
        noun = wording.choose("any shape", vocabulary.ANY_SHAPE)
    else:
        # Only the usual noun in the plural, or some plurals would be too rare to learn.
        nouns = vocabulary.NOUNS[reference.shape] if reference.count == 1 else vocabulary.NOUNS[reference.shape][:1]
        noun = mark(wording.choose(reference.shape, nouns, usual=True))
    addition = ""
    if reference.pattern in vocabulary.ADDITIONS and not brief and wording.chance("addition", ADDITION_ODDS):
        joint, word = wording.choose(("after", reference.pattern), vocabulary.ADDITIONS[reference.pattern]).split()
        pattern, addition = "", f"{joint} {mark(word)}"
    surface = (pattern, colour) if wording.chance("pattern first", 0.6) else (colour, pattern)
    words = [word for word in (size, *surface, noun if reference.count == 1 else _plural(noun), addition) if word]
    return " ".join([_determiner(determiner, reference.count, MARKED.sub(r"\2", words[0])), *words])


def _determiner(determiner: str, count: int, following: str) -> str:
    if count > 1:
        return vocabulary.NUMBERS[count] if determiner == "a" else f"the {vocabulary.NUMBERS[count]}"
    if determiner == "the":
        return "the"
    return "an" if following[0] in "aeiou" else "a"


def _plural(noun: str) -> str:
    return noun + ("es" if noun.endswith(("s", "x", "ch")) else "s")


def _agree(count: int) -> dict[str, str]:
    return {verb: forms[count > 1] for verb, forms in VERBS.items()}


def relative(
    claim: Claim,
    wording: Wording,
    determiner: str,
    comparative: str | None = None,
    named: bool = False,
) -> str:
    """Relation and other objects, or the position: "to the left of a red star", "at the top of the picture".

    ``named``: the sentence says "picture" already.
    """
    if not claim.others:
        phrase = wording.choose(claim.relation, vocabulary.POSITION_PHRASES[claim.relation])
        if named or not wording.chance("of the picture", 0.4):
            return phrase
        return f"{phrase} of the {wording.choose('picture', vocabulary.PICTURE)}"
    phrase = wording.relation(claim.relation)
    return f"{phrase} {' and '.join(noun_phrase(other, wording, determiner, comparative) for other in claim.others)}"


def _subject(subject: Reference, wording: Wording) -> dict[str, str]:
    """The subject in words, and the verbs that agree with it."""
    return {"a": noun_phrase(subject, wording), "the": noun_phrase(subject, wording, "the"), **_agree(subject.count)}


def _picture(wording: Wording) -> dict[str, str]:
    picture = wording.choose("picture", vocabulary.PICTURE)
    return {"picture": picture, "a_picture": f"{_determiner('a', 1, picture)} {picture}"}


def _others(wording: Wording, frame: str) -> str:
    """The determiner of the objects that a frame's relation speaks of."""
    return wording.choose("others", ("the", "the", "the", "a") if "{the}" in frame else ("a", "a", "the"))


def say_relation(claim: Claim, wording: Wording, comparative: str | None = None) -> Sentence:
    """One relation or position in a sentence or noun phrase; ``comparative`` is said of the other object."""
    subject = claim.subject
    if claim.relation in vocabulary.RELATION_TAILS and not comparative and wording.chance("tail", 0.14):
        frame = wording.choose("tail frame", TAIL_FRAMES)
        return wording.sentence(
            frame.format(
                a=noun_phrase(subject, wording, brief=True),
                b=noun_phrase(claim.others[0], wording, brief=True),
                the_b=noun_phrase(claim.others[0], wording, "the", brief=True),
                tail=wording.choose(("tail", claim.relation), vocabulary.RELATION_TAILS[claim.relation], usual=True),
            )
        )
    if claim.relation in COMPARISONS:
        frame = wording.choose("size frame", SIZE_FRAMES)
    else:
        than = claim.relation in DIRECTIONS and wording.relation(claim.relation).endswith("than")
        frame = wording.choose("frame", FRAMES if than else FRAMES + TURNED_FRAMES)
    return wording.sentence(
        frame.format(
            **_subject(subject, wording),
            rel=relative(claim, wording, _others(wording, frame), comparative, named="picture}" in frame),
            **_picture(wording),
        )
    )


def say_two(first: Claim, second: Claim, frames: Sequence[str], wording: Wording) -> Sentence:
    """Two relations, by SHARED_FRAMES, CHAIN_FRAMES or CLAUSE_FRAMES."""
    # "sits" and "lies" go with a position, not with a size.
    sizes = first.relation in COMPARISONS or second.relation in COMPARISONS
    frame = wording.choose(frames, [text for text in frames if not (sizes and PLACING_VERB in text)])
    determiner = _others(wording, frame)
    return wording.sentence(
        frame.format(
            **_subject(first.subject, wording),
            c=noun_phrase(second.subject, wording),
            the_c=noun_phrase(second.subject, wording, "the"),
            is_c=VERBS["is"][second.subject.count > 1],
            r1=relative(first, wording, determiner),
            r2=relative(second, wording, determiner),
            **_picture(wording),
        )
    )


def say_with_extra(claim: Claim, extra: Reference, wording: Wording) -> Sentence:
    """One relation, and another object that is there too."""
    frame = wording.choose("extra frame", EXTRA_FRAMES)
    return wording.sentence(
        frame.format(
            **_subject(claim.subject, wording),
            rel=relative(claim, wording, _others(wording, frame)),
            c=noun_phrase(extra, wording),
            is_c=VERBS["is"][extra.count > 1],
            **_picture(wording),
        )
    )


def say_list(references: Sequence[Reference], wording: Wording) -> Sentence:
    """Objects that are there, in this order."""
    frame = wording.choose("list frame", LIST_FRAMES)
    phrases = [noun_phrase(reference, wording) for reference in references]
    listed = " and ".join(phrases) if len(phrases) < 3 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
    many = references[0].count > 1
    return wording.sentence(
        frame.format(
            list=listed, **_picture(wording), **{**_agree(1 + many), "are": VERBS["is"][many or len(phrases) > 1]}
        )
    )


def say_total(total: int, reference: Reference, wording: Wording) -> Sentence:
    """How many objects there are, and one of them."""
    frame = wording.choose("total frame", TOTAL_FRAMES)
    things = noun_phrase(Reference(count=total), wording)
    return wording.sentence(frame.format(total=things, a=noun_phrase(reference, wording), **_picture(wording)))
