"""Shapes, colours, sizes and relations of scenes, and the words for them.

The first word of a list is the usual one; ``wording.Wording`` takes it most often.
"""

from __future__ import annotations

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "ring", "crescent")
PATTERNS = ("plain", "striped", "dotted")

# RGB of a surface, and of the stripes or dots on it.
COLOURS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "red": ((212, 36, 40), (255, 178, 168)),
    "orange": ((244, 126, 22), (255, 222, 170)),
    "yellow": ((248, 214, 44), (164, 122, 8)),
    "green": ((40, 150, 62), (178, 232, 176)),
    "blue": ((36, 84, 208), (170, 204, 255)),
    "purple": ((132, 48, 172), (222, 184, 244)),
    "white": ((246, 246, 244), (150, 150, 154)),
    "black": ((26, 26, 30), (128, 128, 134)),
}

# Radius of an object as a share of the image's side: lowest and highest.
SIZES: dict[str, tuple[float, float]] = {
    "small": (0.060, 0.068),
    "medium": (0.094, 0.106),
    "large": (0.144, 0.158),
}
SIZE_RANK = {size: rank for rank, size in enumerate(SIZES)}

ATTRIBUTES = tuple(f"{colour} {pattern}" for colour in COLOURS for pattern in PATTERNS)

# A shape is a noun; these are used where no shape is mentioned.
ANY_SHAPE = ("shape", "object", "thing")

NOUNS: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle", "wedge"),
    "star": ("star",),
    "heart": ("heart",),
    "cross": ("cross", "plus sign"),
    "ring": ("ring", "hoop"),
    "crescent": ("crescent", "moon"),
}

ADJECTIVES: dict[str, tuple[str, ...]] = {
    "red": ("red", "scarlet"),
    "orange": ("orange",),
    "yellow": ("yellow", "golden"),
    "green": ("green",),
    "blue": ("blue",),
    "purple": ("purple", "violet"),
    "white": ("white",),
    "black": ("black",),
    "plain": ("plain",),
    "striped": ("striped", "stripy"),
    "dotted": ("dotted", "spotted"),
    "small": ("small", "little", "tiny"),
    "medium": ("medium-sized", "medium"),
    "large": ("large", "big", "huge"),
}

# The pattern said after the noun instead of before it.
ADDITIONS: dict[str, tuple[str, ...]] = {
    "striped": ("with stripes",),
    "dotted": ("with dots", "with spots"),
}

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

# Relations, in the words that follow "a circle is ..." and precede "... a star".
RELATION_PHRASES: dict[str, tuple[str, ...]] = {
    "left": ("to the left of", "left of", "on the left of"),
    "right": ("to the right of", "right of", "on the right of"),
    "above": ("above", "over", "higher than"),
    "below": ("below", "under", "lower than"),
    "inside": ("inside", "in", "within"),
    "next": ("next to", "beside", "close to"),
    "between": ("between", "in between"),
    "larger": ("larger than", "bigger than"),
    "smaller": ("smaller than", "not as big as"),
    "same size": ("the same size as", "as big as"),
}

# The same, said of an object that was just named: "a star with a circle to its left".
RELATION_TAILS: dict[str, tuple[str, ...]] = {
    "left": ("to its left", "on its left"),
    "right": ("to its right", "on its right"),
    "above": ("above it", "over it"),
    "below": ("below it", "under it"),
    "inside": ("inside it", "in it"),
    "next": ("next to it", "beside it"),
}

COMPARATIVES: dict[str, tuple[str, ...]] = {"larger": ("larger", "bigger"), "smaller": ("smaller",)}

POSITION_PHRASES: dict[str, tuple[str, ...]] = {
    "top left": ("in the top left corner", "at the top left"),
    "top right": ("in the top right corner", "at the top right"),
    "bottom left": ("in the bottom left corner", "at the bottom left"),
    "bottom right": ("in the bottom right corner", "at the bottom right"),
    "top": ("at the top", "near the top edge"),
    "bottom": ("at the bottom", "near the bottom edge"),
    "middle": ("in the middle", "in the centre"),
}
PICTURE = ("picture", "image")
