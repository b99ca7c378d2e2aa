"""A server over the tiny pipeline, asked through the framework's client."""

import pytest
from fastapi.testclient import TestClient

from crossmodal.serving.api import Server, make_app
from crossmodal.serving.session import Folders, SearchSession
from crossmodal.settings.params import load_params

HOSTS = {"127.0.0.1", "localhost"}


@pytest.fixture(scope="module")
def sessions(pipeline):
    """Of vsepp, one vector an image, and scan, sets of them."""
    found = []
    for name in ("vsepp", "scan"):
        places = {key: pipeline / path for key, path in vars(Folders()).items()}
        folders = Folders(**{**places, "matcher": pipeline / name, "evaluation": pipeline / f"evaluation of {name}"})
        found.append(SearchSession(folders.evaluation, load_params(pipeline / "params.yaml"), folders))
        found[-1].warm()
    return found


@pytest.fixture(scope="module")
def server(sessions):
    return Server(sessions)


@pytest.fixture(scope="module")
def client(server):
    """A client of the server; the server's own failures become answers, as in earnest."""
    with TestClient(make_app(server, HOSTS), base_url="http://127.0.0.1:8000", raise_server_exceptions=False) as opened:
        yield opened
