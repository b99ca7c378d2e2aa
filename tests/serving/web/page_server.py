"""A real server over small galleries, for tests of its page."""

import contextlib
import shutil
import threading

import torch
import uvicorn

from crossmodal.features.store import FeatureStore, StoreWriter
from crossmodal.retrieval.gallery import read_info
from crossmodal.serving import embed as embedding
from crossmodal.serving.api import Server, make_app
from crossmodal.serving.listen import listen
from crossmodal.serving.session import Folders, SearchSession
from crossmodal.settings.params import load_params

CLASSES = ["patch", "stripe", "corner", "<i>edge</i>"]


def name_regions(folder):
    """Give the regions of a store, which are those of a grid, the classes and scores of a detector."""
    store = FeatureStore(folder)
    arrays = {name: store.read(0, name) for name in store.arrays}
    shapes = {name: (str(values.dtype), values.shape[1:]) for name, values in arrays.items()}
    writer = StoreWriter(folder.with_name("named"), {**shapes, "classes": ("int32", ()), "scores": ("float32", ())})
    for row in range(len(store)):
        values = {name: store.read(row, name) for name in arrays}
        number = torch.arange(len(values["boxes"]))
        writer.append({**values, "classes": number % len(CLASSES), "scores": 0.9 - 0.1 * number})
    writer.close({**store.metadata, "backend": "torchvision", "classes": CLASSES})
    shutil.rmtree(folder)
    folder.with_name("named").rename(folder)


def open_session(pipeline, matcher, gallery=None):
    """A session of one of the pipeline's matchers over its evaluated gallery, or over another."""
    data, models = pipeline / "data", pipeline / "models"
    folders = Folders(
        data / "dataset",
        data / "regions",
        data / "captions",
        models / "detector",
        models / "bert",
        pipeline / matcher,
        pipeline / f"evaluation of {matcher}",
    )
    session = SearchSession(gallery or folders.evaluation, load_params(pipeline / "params.yaml"), folders)
    session.warm()
    return session


def embed(pipeline, photographs, out):
    """A gallery of photographs without captions, by the pipeline's first matcher."""
    session = open_session(pipeline, "vsepp")
    factory = read_info(session.engine.gallery).index
    embedding.embed(str(photographs), out, session.params, session.folders, factory=factory)
    return open_session(pipeline, "vsepp", out)


@contextlib.contextmanager
def serving(*sessions):
    """The address of a server that answers until the end of the block."""
    with listen("127.0.0.1", 0) as socket:
        config = uvicorn.Config(make_app(Server(sessions), None), log_level="error", access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{socket.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
