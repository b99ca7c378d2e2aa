"""Rendered scenes: coloured, patterned shapes with relational captions and a compositional probe.

build.py        renders everything and writes the dataset folder (the entry point)
plan.py         the images of the dataset: scenes and captions, no pixels
layout.py       positions of objects; families of siblings
captions.py     captions: true claims about an image
grammar.py      wording of claims as sentences
relations.py    claims and whether they are true of a scene
probe.py        pairs of images that differ by one swap
render.py       pixels
shapes.py       outlines and boxes
vocabulary.py   shapes, colours, relations and their words
"""
