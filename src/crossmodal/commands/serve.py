"""``crossmodal serve``: a page to search the photographs with, and the same as JSON for programs.

crossmodal serve
crossmodal serve --gallery results/holiday --port 8080               # what crossmodal embed made
crossmodal serve --matcher models/tern --against models/sgraf        # two matchers over the same images
crossmodal serve --matcher models:/crossmodal-tern-scenes/1          # of MLflow's registry
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from crossmodal import paths
from crossmodal.commands.arguments import port
from crossmodal.terminal import printable

BACKLOG = 1024  # connections that wait to be accepted
LAST_ANSWERS = 3  # seconds for requests in progress at the end; Docker kills after 10
MATCHER = "folder of a matcher, ORG/NAME on the Hugging Face hub, or models:/NAME/VERSION"


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--gallery",
        type=Path,
        metavar="GALLERY",
        help=f"what is searched: the last evaluated one (default: {paths.EVALUATION}), or what crossmodal embed made",
    )
    parser.add_argument("--matcher", metavar="MATCHER", help=f"{MATCHER} (default: {paths.MATCHER})")
    parser.add_argument("--against", metavar="MATCHER", help="a second one, next to the first on every query")
    parser.add_argument("--port", type=port, default=8000, help="default: %(default)s; 0: any free one")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: %(default)s, for this machine alone)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Load everything, open the port, print the address, serve until interrupted."""
    import signal
    import sys
    import tempfile

    import uvicorn

    from crossmodal.serving.api import Server, make_app
    from crossmodal.serving.guard import LOCAL
    from crossmodal.serving.listen import accept, is_open, listen
    from crossmodal.serving.opened import check_same_images, open_session
    from crossmodal.settings.params import load_params

    host = arguments.host
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the folder goes; uvicorn raises it after its end
    with tempfile.TemporaryDirectory(prefix="crossmodal-") as name, listen(host, arguments.port) as socket:
        hosts = None if is_open(socket) else {host.lower(), *LOCAL}
        scratch, say = Path(name), partial(_print, prefix="serve: ")
        sessions = [open_session(arguments.gallery, arguments.matcher, load_params(), scratch / "0", say)]
        if arguments.against is not None:
            sessions.append(open_session(arguments.gallery, arguments.against, load_params(), scratch / "1", say))
            check_same_images(*sessions)
        for session in sessions:
            session.warm()
            say(session.describe())
        app = make_app(Server(sessions), hosts)
        if hosts is None:
            say(
                "every machine that reaches this one can search, see the photographs and send its own; there is no "
                "password and no encryption"
            )
        accept(socket, host, arguments.port, BACKLOG)  # before the address is printed: who reads it can connect
        shown = "127.0.0.1" if hosts is None else host
        number = socket.getsockname()[1]
        say(f"http://{f'[{shown}]' if ':' in shown else shown}:{number}/ (Ctrl-C ends it)")
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="on",
            backlog=BACKLOG,
            timeout_graceful_shutdown=LAST_ANSWERS,
            h11_max_incomplete_event_size=2**17,  # a request's line and headers: 10,000 characters as %XX%XX%XX
        )
        uvicorn.Server(config).run(sockets=[socket])


def _print(text: str, prefix: str) -> None:
    print(printable(f"{prefix}{text}"), flush=True)
