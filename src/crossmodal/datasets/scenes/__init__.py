"""Rendered scenes: coloured, patterned shapes with relational captions and a compositional probe.

build.py        renders everything and writes the dataset folder (the entry point)
plan.py         which images there are: scenes and captions, no pixels
layout.py       what stands where; families of siblings
captions.py     what is said about an image
grammar.py      how it is said
relations.py    what is true
probe.py        pairs of images that differ by one swap
render.py       pixels
shapes.py       outlines and boxes
vocabulary.py   what there is, and its words
"""
