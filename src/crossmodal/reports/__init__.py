"""Results of a run for people: metrics files, curves and the gallery.

metrics_files.py  metrics/*.json, which `dvc metrics` shows
figures.py        plot style, and writing of CSV and PNG
curves.py         recall and training curves, as CSV for `dvc plots` and as PNG
scores.py         score distributions of matches and non-matches, the same
breakdown.py      recall by caption length and by number of regions, the same
pictures.py       thumbnails and the regions on them
words.py          which region answers which word
queries.py        queries and their results
sheets.py         the gallery as contact sheets, PNG
page.py           shared parts of the HTML pages
gallery.py        the gallery as one HTML page
analysis.py       curves, worst queries and the probe's failures as one HTML page
note.py           the description on top of a run's page in MLflow
"""
