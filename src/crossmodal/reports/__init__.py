"""What a run came to, for people: metrics files, curves and the gallery.

write.py     metrics/*.json, which `dvc metrics` shows
curves.py    recall and training curves, as CSV for `dvc plots` and as PNG
queries.py   which queries the gallery shows, and what was found for each
pictures.py  thumbnails and the regions on them
sheets.py    the gallery as contact sheets, PNG
gallery.py   the gallery as one HTML page (entry point)
"""
