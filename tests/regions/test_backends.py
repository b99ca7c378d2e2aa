"""Region backends are named in the settings, with a section of settings and a network each."""

from pathlib import Path
from typing import get_args

import pytest
from assertions import raises_naming

from crossmodal.regions.backends import LOAD, load_extractor
from crossmodal.regions.fetch import FETCH, fetch_network
from crossmodal.settings import derived
from crossmodal.settings.features import BackendName, Regions
from crossmodal.settings.params import load_params

PARAMS = load_params(Path(__file__).resolve().parents[2] / "params.yaml")


def with_backend(name):
    return PARAMS.model_copy(update={"regions": PARAMS.regions.model_copy(update={"backend": name})})


def test_the_backends_are_those_of_the_settings():
    names = set(get_args(BackendName))
    assert set(LOAD) == set(FETCH) == set(derived.BACKENDS) == names
    assert set(get_args(Regions.model_fields["backend"].annotation)) == names | {"auto"}


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("torchvision", "detector"),
        ("auto", "detector"),
        ("grid", "grid"),
        ("clip", "clip"),
        ("bottomup", "bottomup"),
        ("detectron2", "bottomup"),
        ("precomputed", "precomputed"),
    ],
)
def test_a_run_is_logged_with_the_settings_of_its_backend(name, section):
    settings = derived.run_settings(with_backend(name))
    sections = {backend.section for backend in derived.BACKENDS.values()}
    assert sections & set(settings) == {section}


def test_of_precomputed_features_no_network_reads_photographs(tmp_path):
    params = with_backend("precomputed")
    fetch_network(params, None, tmp_path, tmp_path)
    assert (tmp_path / "config.json").read_text() == '{"backend": "precomputed"}\n'
    with raises_naming("regions.backend", "precomputed"):
        load_extractor(params, tmp_path)
