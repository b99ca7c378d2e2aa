"""Rendered scenes: coloured, patterned shapes with relational captions and a compositional probe (entry: build.py)."""
