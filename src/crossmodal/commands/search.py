"""``crossmodal search``: photographs for a sentence, or captions for a photograph.

crossmodal search "two dogs running on grass" --open
crossmodal search --image photo.jpg --k 5
crossmodal search "a red ring left of a star" --in results/holiday       # what crossmodal embed made
"""

from __future__ import annotations

import argparse
import sys
import time
import webbrowser
from pathlib import Path

from crossmodal.commands.arguments import add_gallery, add_matcher, positive
from crossmodal.errors import UserError
from crossmodal.terminal import printable

PAGE = Path("results/search.html")
LOADING = "search: loading the models and the gallery\n"


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sentences", nargs="*", metavar="SENTENCE", help="what the photographs are to show")
    parser.add_argument("--image", type=Path, metavar="FILE", help="a photograph; finds captions")
    parser.add_argument("--k", type=positive, default=10, help="results of a query (default: %(default)s)")
    add_gallery(parser)
    add_matcher(parser)
    parser.add_argument("--open", action="store_true", help=f"show the results in a browser too ({PAGE})")


def run(arguments: argparse.Namespace) -> None:
    """Search, print the results, and with ``--open`` show them as a page."""
    from crossmodal.limits import is_file, shown

    sentences, photograph, k = arguments.sentences, arguments.image, arguments.k
    if bool(sentences) == (photograph is not None):
        raise UserError('give a sentence such as "two dogs running on grass", or --image FILE')
    if not all(sentence.strip() for sentence in sentences):
        raise UserError('the sentence is empty; give one such as "two dogs running on grass"')
    if photograph is not None and not is_file(photograph):
        raise UserError(f"--image {shown(photograph)}: no such file")
    print(LOADING, end="", file=sys.stderr, flush=True)  # torch alone takes a second or two to import
    from crossmodal.commands.search_page import results_of, write_page
    from crossmodal.serving.session import SearchSession
    from crossmodal.serving.shared import open_matcher
    from crossmodal.settings.params import load_params

    session = SearchSession(arguments.gallery, *open_matcher(arguments.matcher, load_params()))
    session.load(photographs=photograph is not None)
    answers = []
    for query in sentences or [photograph]:
        started = time.perf_counter()
        found = session.find_images(query, k) if photograph is None else session.find_captions(query, k)
        seconds = time.perf_counter() - started
        answers.append((query, results_of(session, query, found)))
        print(f"{printable(query)}: {session.describe()}, {1000 * seconds:.0f} ms")
        fits = None if photograph else session.threshold
        for result in answers[-1][1]:
            if fits is not None and result.score < fits:
                print(f"      {fits:.3f}  ---- below this score it is likelier that nothing here fits")
                fits = None
            print(f"{result.position:4d}  {result.score:7.3f}  {printable(result.line)}")
    if arguments.open:
        write_page(PAGE, session, answers)
        opened = webbrowser.open(PAGE.resolve().as_uri())
        print(f"search: {'opened' if opened else 'no browser found here; see'} {PAGE}")
