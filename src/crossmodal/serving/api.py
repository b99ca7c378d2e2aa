"""The web server of ``crossmodal serve``: a page to search with, its pictures, and the same as JSON for programs.

Errors are {"error": one line} with status 400 (a query that cannot be answered), 404, 405 (another method, with Allow),
413 (too long or too large), 415 (no image), 422 (a parameter of the wrong kind), 429 (too many queries at a time) or
500 (see serving.guard).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from jinja2 import Environment, PackageLoader
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.routing import Match

from crossmodal.errors import UserError
from crossmodal.files.checked_json import as_record, parse_json
from crossmodal.limits import MOST_CHARACTERS, MOST_IMAGE_BYTES, MOST_SERVED, check_sentence, shown
from crossmodal.serving import answers
from crossmodal.serving.answers import Asked, SearchAnswer, WordsAnswer, search_answer, words_answer, words_at
from crossmodal.serving.bodies import WordsAsked, read_body, schema_of
from crossmodal.serving.counters import MEDIA_TYPE, Counters
from crossmodal.serving.guard import Guard, error_response
from crossmodal.serving.sent import as_file
from crossmodal.serving.session import SearchSession
from crossmodal.serving.thumbnails import SIDES, Thumbnails
from crossmodal.serving.web import page_html, static_file
from crossmodal.serving.workers import BusyError, Workers

MOST_QUERIES = 128  # at work and waiting
MOST_PICTURES = 1024
EXAMPLES = 4  # sentences that the empty page offers
MOST_WORDS_BYTES = 2**17  # of a request for words

ROUTES = Environment(loader=PackageLoader("crossmodal.serving", "web"), autoescape=True).get_template("routes.html.j2")

K = Annotated[int, Query(ge=1, le=MOST_SERVED, description="results")]
Mode = Annotated[Literal["exact", "index", "shortlist"] | None, Query(description="of /api/about; default: the first")]
Number = Annotated[int, Query(ge=0, le=1, description="0, or 1: the matcher of --against")]


class Server:
    """What the routes share: sessions, one a matcher, and the threads that search.

    Args:
        sessions: loaded; the first is asked unless a request says otherwise. Their galleries are of the same images.
    """

    def __init__(self, sessions: Sequence[SearchSession]) -> None:
        self.sessions, self.counters = list(sessions), Counters()
        names = [session.info.model for session in self.sessions]
        self.names = [name if names.count(name) == 1 else f"{name} {n}" for n, name in enumerate(names, start=1)]
        threads = max(os.cpu_count() or 1, 1)
        self.searches = Workers("search", threads, MOST_QUERIES)
        self.pictures = Workers("picture", min(threads, 2), MOST_PICTURES)
        self.thumbnails = Thumbnails(self.sessions[0].image_path)

    def session(self, number: int) -> SearchSession:
        """The session of a matcher.

        Raises:
            HTTPException: 404, there is no second one.
        """
        if not 0 <= number < len(self.sessions):
            raise HTTPException(404, f"matcher {number}: there is no other one; start the server with --against")
        return self.sessions[number]

    def check_item(self, item: int) -> int:
        """The number of an image of the gallery; 404 for another."""
        count = self.sessions[0].info.images
        if not 0 <= item < count:
            raise HTTPException(404, f"item {item}: the gallery has images 0 to {count - 1:,}")
        return item


def make_app(server: Server, hosts: Collection[str] | None) -> FastAPI:
    """The server's routes.

    Args:
        hosts: names that the server answers to; None: any.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        server.searches.close()
        server.pictures.close()

    app = FastAPI(title="crossmodal", docs_url=None, redoc_url=None, lifespan=lifespan)
    _add_errors(app)
    _add_pages(app, server)
    _add_api(app, server)
    app.add_middleware(Guard, counters=server.counters, hosts=hosts)
    return app


def _add_api(app: FastAPI, server: Server) -> None:
    @app.get("/api/about")
    async def about() -> dict[str, Any]:
        """The gallery, the matchers, and the limits of a request."""
        first = server.sessions[0]
        return {
            "gallery": first.describe(),
            "dataset": first.dataset.name,
            "images": first.info.images,
            "captions": first.info.captions,
            "modes": list(first.engine.modes),
            "matchers": [
                {
                    "name": name,
                    "gallery": session.describe(),
                    "modes": list(session.engine.modes),
                    "explains": session.words.explains,
                    "similar": session.engine.model.pooled,
                    "photographs": session.takes_photographs,
                }
                for name, session in zip(server.names, server.sessions, strict=True)
            ],
            "max_k": MOST_SERVED,
            "max_bytes": MOST_IMAGE_BYTES,
            "max_words": first.params.captions.max_tokens,
            "max_characters": MOST_CHARACTERS,
            "threshold": first.threshold,
            "examples": first.examples(EXAMPLES),
        }

    @app.get("/api/search")
    async def search(q: str, k: K = 10, mode: Mode = None, matcher: Number = 0) -> SearchAnswer:
        """The images that fit a sentence best."""
        session = server.session(matcher)
        _check_sentence(q)
        return await server.searches.run(_by_sentence, session, q, k, mode)

    @app.post("/api/search", openapi_extra={"requestBody": {"content": {"image/*": {}}, "required": True}})
    async def search_by_photograph(
        request: Request,
        k: K = 10,
        mode: Mode = None,
        matcher: Number = 0,
        find: Annotated[Literal["captions", "images"] | None, Query(description="default: captions")] = None,
    ) -> SearchAnswer:
        """The captions that fit a photograph best, or the images most like it; the body is the image file."""
        session = server.session(matcher)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not kind.startswith("image/") and kind != "application/octet-stream":
            raise HTTPException(
                415, f"Content-Type: expected that of an image, such as image/jpeg, found {shown(kind)}"
            )
        content = await read_body(request, MOST_IMAGE_BYTES)
        return await server.searches.run(_by_photograph, session, content, k, mode, find)

    @app.get("/api/similar/{item}")
    async def similar(item: int, k: K = 10, matcher: Number = 0) -> SearchAnswer:
        """The images most like an image of the gallery; of matchers with one vector an image."""
        session = server.session(matcher)
        server.check_item(item)
        return await server.searches.run(_like_item, session, item, k)

    @app.post("/api/words", openapi_extra={"requestBody": schema_of(WordsAsked)})
    async def words(request: Request) -> WordsAnswer:
        """Which regions of images answer which words of a sentence, and how much: 0 to 1."""
        body = parse_json(await read_body(request, MOST_WORDS_BYTES), "the body", dict)
        query = as_record(body, WordsAsked, "the body")
        session = server.session(query.matcher)
        _check_sentence(query.q)
        for item in query.items:
            server.check_item(item)
        return await server.searches.run(words_answer, session, query.q, query.items)


def _add_pages(app: FastAPI, server: Server) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(page_html())

    @app.get("/static/{name}", include_in_schema=False)
    async def static(name: str) -> Response:
        found = static_file(name)
        if found is None:
            raise HTTPException(404, "no such file")
        content, media_type = found
        return Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})

    @app.get("/images/{item}", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
    async def image(
        request: Request,
        item: int,
        side: Annotated[int, Query(ge=SIDES[0], le=SIDES[1], description="longer side")] = SIDES[1],
        v: Annotated[str, Query(description="of the gallery; with it the picture may be kept")] = "",
    ) -> Response:
        """A picture of the gallery as JPEG, its longer side at most ``side`` pixels."""
        server.check_item(item)
        version = server.sessions[0].version
        keep = "private, max-age=86400, immutable" if v == version else "no-cache"  # another gallery has other pictures
        headers = {"Cache-Control": keep, "ETag": f'"{version}-{item}-{side}"'}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        try:
            content = await server.pictures.run(server.thumbnails.jpeg, item, side)
        except UserError:
            raise HTTPException(404, f"item {item}: its photograph is not here or cannot be read") from None
        return Response(content, media_type="image/jpeg", headers=headers)

    @app.get("/docs", include_in_schema=False)
    async def routes() -> HTMLResponse:
        """All routes, as a page without scripts."""
        return HTMLResponse(ROUTES.render(paths=app.openapi()["paths"]))

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the server answers."""
        return {"status": "ok"}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Counts for Prometheus."""
        gauges = {"queries_in_flight": server.searches.in_flight, "pictures_in_flight": server.pictures.in_flight}
        return Response(server.counters.text(gauges), media_type=MEDIA_TYPE)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(UserError)
    async def user_error(_: Request, error: UserError) -> JSONResponse:
        return error_response(400, str(error))

    @app.exception_handler(StarletteHTTPException)
    async def http_error(request: Request, error: StarletteHTTPException) -> JSONResponse:
        if error.status_code != 405:
            return error_response(error.status_code, str(error.detail))
        allowed = ", ".join(_methods(request))
        return error_response(405, f"{request.method}: expected {allowed} of this path", {"Allow": allowed})

    @app.exception_handler(BusyError)
    async def busy(_: Request, error: BusyError) -> JSONResponse:
        return error_response(429, "too many queries at a time; ask again in a second")

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return error_response(422, f"{where}: {first['msg']}, found {shown(first.get('input'))}")


def _methods(request: Request) -> list[str]:
    """Methods that all routes of a request's path take, sorted; Starlette's own error has those of the first route."""
    matching = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
    methods = {method for route in matching for method in route.methods}
    return sorted(methods | ({"HEAD"} if "GET" in methods else set()))


def _by_sentence(session: SearchSession, sentence: str, k: int, mode: str | None) -> SearchAnswer:
    words = words_at(sentence, session.words.spans(sentence))
    query = answers.Query(kind="sentence", text=sentence, words=words)
    timed = session.by_sentence(sentence, k, mode)
    return search_answer(session, Asked(query, mode or session.engine.modes[0], captions=False), timed)


def _by_photograph(session: SearchSession, content: bytes, k: int, mode: str | None, find: str | None) -> SearchAnswer:
    captions = find != "images" and (find is not None or session.info.captions > 0)
    with as_file(content) as path:
        timed = session.by_photograph(path, k, mode, images=not captions)
    query = answers.Query(kind="photograph")
    return search_answer(session, Asked(query, mode or session.engine.modes[0], captions=captions), timed)


def _like_item(session: SearchSession, item: int, k: int) -> SearchAnswer:
    timed = session.similar_to(item, k)
    query = answers.Query(kind="item", text=session.record(item).id, item=item)
    return search_answer(session, Asked(query, session.engine.modes[0], captions=False), timed)


def _check_sentence(sentence: str) -> None:
    if len(sentence) > MOST_CHARACTERS:
        raise HTTPException(413, f"q: {len(sentence):,} characters, expected {MOST_CHARACTERS:,} at most")
    check_sentence(sentence)
