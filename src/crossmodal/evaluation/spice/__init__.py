"""SPICE of every caption with every image, TERN's other relevance (Anderson et al. 2016, arXiv 1607.08822).

A caption is parsed to a scene graph: objects (girl), attributes (girl, young) and relations (girl, stand on, court).
Those of an image's captions make one graph. A tuple of the caption is found if the image has one of as many members,
each of which shares a word or a WordNet synset with its counterpart. With tp of the caption's a tuples found among the
image's b,

    P = tp / a        R = tp / b        F = 2 P R / (P + R) = 2 tp / (a + b)

SPICE's own program parses captions and merges graphs (java.py); relevance.py matches all pairs.
"""
