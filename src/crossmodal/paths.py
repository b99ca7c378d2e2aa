"""Paths of the stages' outs, relative to the repository (dvc.yaml names the same)."""

from pathlib import Path

SETTINGS = Path("data/settings")
DATASET = Path("data/dataset")
DETECTOR = Path("models/detector")
REGIONS = Path("data/regions")
BERT = Path("models/bert")
CAPTIONS = Path("data/captions")
RELEVANCE = Path("data/relevance")
MATCHER = Path("models/matcher")
EVALUATION = Path("results/evaluation")
REPORT = Path("results/report")
METRICS = Path("metrics")
