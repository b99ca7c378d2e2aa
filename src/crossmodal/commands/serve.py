"""``crossmodal serve``: a page to search the photographs with, and the same as JSON for programs.

crossmodal serve
crossmodal serve --gallery results/holiday --port 8080      # what crossmodal embed made
"""

from __future__ import annotations

import argparse
from pathlib import Path

from crossmodal import paths
from crossmodal.commands.arguments import port
from crossmodal.terminal import printable

ANYWHERE = ("0.0.0.0", "::", "")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--gallery",
        type=Path,
        default=paths.EVALUATION,
        metavar="GALLERY",
        help="what is searched: the last evaluated one (default: %(default)s), or what crossmodal embed made",
    )
    parser.add_argument("--port", type=port, default=8000, help="default: %(default)s; 0: any free one")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: %(default)s, for this machine alone)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Load everything, open the port, print the address, serve until interrupted."""
    import uvicorn

    from crossmodal.serving.api import Server, make_app
    from crossmodal.serving.guard import LOCAL
    from crossmodal.serving.listen import listen
    from crossmodal.serving.session import Folders, SearchSession
    from crossmodal.settings.params import load_params

    session = SearchSession(arguments.gallery, load_params(), Folders())
    session.warm()
    host = arguments.host
    hosts = None if host in ANYWHERE else {host.lower(), *LOCAL}
    app = make_app(Server([session]), hosts)
    with listen(host, arguments.port) as socket:
        number = socket.getsockname()[1]
        name = "127.0.0.1" if host in ANYWHERE else host
        print(printable(f"serve: {session.describe()}"))
        if host in ANYWHERE:
            print(
                "serve: every machine that reaches this one can search, see the photographs and send its own; there is "
                "no password and no encryption"
            )
        print(f"serve: http://{f'[{name}]' if ':' in name else name}:{number}/ (Ctrl-C ends it)", flush=True)
        config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, lifespan="on")
        uvicorn.Server(config).run(sockets=[socket])
