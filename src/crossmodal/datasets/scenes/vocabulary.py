"""What a scene is made of, and the words people use for it.

The first word of a list is the usual one; ``grammar.Wording`` takes it most often.
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

# A shape is a noun; where none is said, one of these stands for it.
ANY_SHAPE = ("shape", "object", "thing", "figure")

NOUNS: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "disc", "round shape"),
    "square": ("square", "box", "block"),
    "triangle": ("triangle", "wedge"),
    "star": ("star", "five-pointed star"),
    "heart": ("heart", "love heart"),
    "cross": ("cross", "plus sign"),
    "ring": ("ring", "hoop", "doughnut"),
    "crescent": ("crescent", "moon", "crescent moon"),
}

ADJECTIVES: dict[str, tuple[str, ...]] = {
    "red": ("red", "crimson", "scarlet"),
    "orange": ("orange", "tangerine"),
    "yellow": ("yellow", "golden"),
    "green": ("green", "emerald"),
    "blue": ("blue", "azure"),
    "purple": ("purple", "violet"),
    "white": ("white",),
    "black": ("black",),
    "plain": ("plain", "solid"),
    "striped": ("striped", "stripy"),
    "dotted": ("dotted", "spotted", "speckled"),
    "small": ("small", "little", "tiny"),
    "medium": ("medium-sized", "medium", "mid-sized"),
    "large": ("large", "big", "huge"),
}

# The pattern said after the noun instead of before it.
ADDITIONS: dict[str, tuple[str, ...]] = {
    "striped": ("with stripes", "covered in stripes", "with a striped pattern"),
    "dotted": ("with dots", "with spots", "covered in dots"),
}

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

# Relations, in the words that follow "a circle is ..." and precede "... a star".
RELATION_PHRASES: dict[str, tuple[str, ...]] = {
    "left": ("to the left of", "left of", "on the left of", "on the left side of", "further left than"),
    "right": ("to the right of", "right of", "on the right of", "on the right side of", "further right than"),
    "above": ("above", "over", "higher than", "higher up than"),
    "below": ("below", "under", "beneath", "underneath", "lower than"),
    "inside": ("inside", "in", "within", "in the middle of"),
    "next": ("next to", "beside", "close to", "near", "right next to"),
    "between": ("between", "in between", "somewhere between"),
    "larger": ("larger than", "bigger than"),
    "smaller": ("smaller than", "not as big as"),
    "same size": ("the same size as", "as big as", "just as large as"),
}

# The same, said of an object that was just named: "a star with a circle to its left".
RELATION_TAILS: dict[str, tuple[str, ...]] = {
    "left": ("to its left", "on its left", "on its left side"),
    "right": ("to its right", "on its right", "on its right side"),
    "above": ("above it", "over it"),
    "below": ("below it", "under it", "underneath it"),
    "inside": ("inside it", "in it", "in the middle of it"),
    "next": ("next to it", "beside it", "close to it"),
}

COMPARATIVES: dict[str, tuple[str, ...]] = {"larger": ("larger", "bigger"), "smaller": ("smaller",)}

PLACE_PHRASES: dict[str, tuple[str, ...]] = {
    "top left": ("in the top left corner", "in the upper left", "at the top left"),
    "top right": ("in the top right corner", "in the upper right", "at the top right"),
    "bottom left": ("in the bottom left corner", "in the lower left", "at the bottom left"),
    "bottom right": ("in the bottom right corner", "in the lower right", "at the bottom right"),
    "top": ("at the top", "near the top edge", "along the top"),
    "bottom": ("at the bottom", "near the bottom edge", "along the bottom"),
    "middle": ("in the middle", "in the centre", "close to the centre"),
}
PICTURE = ("picture", "image", "scene")
