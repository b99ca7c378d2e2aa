"""What the server answers: the ranking of the evaluation, strengths of words, and one line for every mistake."""

import asyncio
import io
import re
import threading

import numpy as np
import pytest
from assertions import raises_naming
from PIL import Image
from starlette.testclient import TestClient
from tiny_pipeline import COLOURS

from crossmodal.errors import UserError
from crossmodal.limits import MOST_CHARACTERS, MOST_IMAGE_BYTES, MOST_SERVED
from crossmodal.serving import api
from crossmodal.serving.api import Server, make_app
from crossmodal.serving.opened import check_same_images, open_session
from crossmodal.serving.workers import BusyError, Workers
from crossmodal.settings.params import load_params

SENTENCES = ["a red picture", "nothing but lime <b>"]


@pytest.fixture(scope="module")
def evaluated(pipeline):
    """Arrays of the evaluation of each matcher."""
    found = []
    for name in ("vsepp", "scan"):
        with np.load(pipeline / f"evaluation of {name}/results.npz") as arrays:
            found.append(dict(arrays))
    return found


def png(colour, size=(48, 32)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def send(client, content, kind="image/png", **params):
    return client.post("/api/search", params=params, content=content, headers={"Content-Type": kind})


@pytest.mark.parametrize("matcher", [0, 1])
def test_a_sentence_finds_what_the_evaluation_found(client, evaluated, matcher):
    top, scores = evaluated[matcher]["t2i_top"], evaluated[matcher]["t2i_scores"]
    for row, sentence in zip((0, 3), SENTENCES, strict=True):
        answer = client.get("/api/search", params={"q": sentence, "k": 4, "matcher": matcher}).json()
        results = answer["results"]
        assert [result["item"] for result in results] == top[row, :4].tolist()
        assert [result["rank"] for result in results] == [1, 2, 3, 4]
        np.testing.assert_allclose([result["score"] for result in results], scores[row, :4], atol=2e-3)
        gaps = [result["gap"] for result in results]
        np.testing.assert_allclose(gaps[:3], -np.diff([result["score"] for result in results]), atol=1e-6)
        assert gaps[3] is None
        first = results[0]
        assert first["captions"] == [f"a {first['id']} picture", f"nothing but {first['id']} <b>"]
        assert (first["file"], first["width"], first["height"]) == (f"{first['id']}.png", 48, 32)
        # the columns of the MLflow model
        assert answer["kind"] == "text"
        assert answer["ids"] == [COLOURS[item] for item in top[row, :4]]
        assert answer["scores"] == [result["score"] for result in results]
        assert answer["captions"][0] == f"a {answer['ids'][0]} picture"
        assert answer["matcher"] == ("vsepp", "scan")[matcher]
        assert set(answer["milliseconds"]) == {"encode", "search", "rerank"}
        assert [word["text"] for word in answer["query"]["words"]] == re.findall(r"\w+", sentence)
        assert all(sentence[word["start"] : word["end"]] == word["text"] for word in answer["query"]["words"])


@pytest.mark.parametrize("matcher", [0, 1])
def test_a_photograph_finds_captions_with_their_images(client, evaluated, pipeline, matcher):
    content = (pipeline / "data/dataset/images/blue.png").read_bytes()
    answer = send(client, content, k=5, matcher=matcher).json()
    top, scores = evaluated[matcher]["i2t_top"][2], evaluated[matcher]["i2t_scores"][2]
    np.testing.assert_allclose(answer["scores"], scores[:5], atol=2e-3)
    assert answer["ids"] == [f"{COLOURS[caption // 2]}#{caption % 2}" for caption in top[:5]]
    assert [result["item"] for result in answer["results"]] == (top[:5] // 2).tolist()
    assert answer["results"][0]["caption"] in answer["results"][0]["captions"]
    assert answer["threshold"] is None


def test_images_like_an_image_are_by_the_cosine_of_vectors(client, sessions, pipeline):
    vectors = np.stack([sessions[0].engine.stored_image(item).own.vectors[0].numpy() for item in range(8)])
    cosines = vectors @ vectors[2]
    cosines[2] = -np.inf
    expected = np.argsort(-cosines, kind="stable")[:3]
    answer = client.get("/api/similar/2", params={"k": 3}).json()
    assert [result["item"] for result in answer["results"]] == expected.tolist()
    np.testing.assert_allclose(answer["scores"], cosines[expected], atol=1e-5)
    assert answer["query"] == {"kind": "item", "text": "blue", "words": [], "item": 2}
    content = (pipeline / "data/dataset/images/blue.png").read_bytes()
    answer = send(client, content, k=4, find="images").json()
    assert answer["ids"][0] == "blue"
    np.testing.assert_allclose(answer["scores"][1:], cosines[expected], atol=2e-3)


def test_sets_of_vectors_are_not_compared_with_each_other(client):
    for answer in (client.get("/api/similar/2?matcher=1"), send(client, png("blue"), find="images", matcher=1)):
        assert answer.status_code == 400
        assert "scan compares sets of vectors" in answer.json()["error"]


def test_about_says_what_there_is(client):
    about = client.get("/api/about").json()
    assert (about["images"], about["captions"], about["dataset"]) == (8, 16, "colours")
    assert [(one["name"], one["explains"], one["similar"]) for one in about["matchers"]] == [
        ("vsepp", "occlusion", True),
        ("scan", "alignment", False),
    ]
    assert about["modes"] == ["exact"]
    assert about["max_k"] == MOST_SERVED
    assert about["examples"] == [f"a {colour} picture" for colour in COLOURS[::2]]


@pytest.mark.parametrize("matcher", [0, 1])
def test_words_have_a_strength_for_every_region(client, sessions, matcher):
    sentence = "a red picture, nothing"
    asked = {"q": sentence, "items": [3, 0], "matcher": matcher}
    answer = client.post("/api/words", json=asked).json()
    assert answer["kind"] == ("occlusion", "alignment")[matcher]
    assert [word["text"] for word in answer["words"]] == ["a", "red", "picture", "nothing"]
    assert answer["words"] == client.get("/api/search", params={"q": sentence}).json()["query"]["words"]
    assert [one["item"] for one in answer["items"]] == [3, 0]
    _, _, expected = sessions[matcher].words.explain(sentence, [3, 0])
    for one, direct in zip(answer["items"], expected, strict=True):
        np.testing.assert_allclose(one["strength"], direct.strength, atol=1e-4)
        np.testing.assert_allclose(one["word_strength"], direct.word_strength, atol=1e-4)
        assert np.shape(one["strength"]) == (4, len(one["regions"]))


def test_pictures_are_written_anew(client, pipeline):
    answer = client.get("/images/2?side=24")
    picture = Image.open(io.BytesIO(answer.content))
    assert (answer.headers["content-type"], picture.format, picture.size) == ("image/jpeg", "JPEG", (24, 16))
    assert Image.open(io.BytesIO(client.get("/images/2").content)).size == (48, 32)
    found = client.get("/api/search", params={"q": "a blue picture", "k": 1}).json()["results"][0]
    kept = client.get(found["thumbnail"])
    assert "max-age" in kept.headers["cache-control"]
    assert answer.headers["cache-control"] == "no-cache"  # of whichever gallery is served at this address
    again = client.get("/images/2?side=24", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/images/3?side=24", headers={"If-None-Match": answer.headers["etag"]}).status_code == 200
    red, green, blue = picture.resize((1, 1)).getpixel((0, 0))
    assert blue > 200 > 60 > max(red, green)


def test_every_answer_has_the_headers(client):
    for path, status in (("/", 200), ("/api/about", 200), ("/images/99", 404), ("/nowhere", 404)):
        answer = client.get(path)
        assert answer.status_code == status
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none';")
        assert "unsafe" not in policy and "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"


def test_the_routes_are_listed_without_outside_parts(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert {"get", "post"} == set(paths["/api/search"])
    page = client.get("/docs").text
    assert "<script" not in page
    assert "http" not in page
    for path, methods in paths.items():
        assert all(f"<code>{method.upper()} {path}</code>" in page for method in methods)


MISTAKES = [
    ("GET", "/api/search?q=%20", {}, 400, "the sentence is empty"),
    ("GET", "/api/search", {}, 422, "q: "),
    ("GET", "/api/search?q=a&k=0", {}, 422, "k: "),
    ("GET", f"/api/search?q=a&k={MOST_SERVED + 1}", {}, 422, "k: "),
    ("GET", "/api/search?q=a&k=two", {}, 422, "k: "),
    ("GET", "/api/search?q=a&mode=best", {}, 422, "mode: "),
    ("GET", "/api/search?q=a&mode=shortlist", {}, 400, "mode: expected exact"),
    ("GET", "/api/search?q=a&matcher=2", {}, 422, "matcher: "),
    ("GET", "/api/search?q=a%ED%A0%80b%0A&k=-1", {}, 422, "k: "),
    ("GET", f"/api/search?q={'a' * (MOST_CHARACTERS + 1)}", {}, 413, "10,001 characters"),
    ("GET", "/api/similar/8", {}, 404, "images 0 to 7"),
    ("GET", "/api/similar/-1", {}, 404, "images 0 to 7"),
    ("GET", "/images/8", {}, 404, "images 0 to 7"),
    ("GET", "/images/2?side=100000", {}, 422, "side: "),
    ("GET", "/images/..%2f..%2fparams.yaml", {}, 404, "Not Found"),
    ("GET", "/static/..%2fapi.py", {}, 404, ""),
    ("DELETE", "/api/search", {}, 405, ""),
    ("POST", "/api/search", {"content": b"", "headers": {"Content-Type": "image/png"}}, 400, "the body is empty"),
    ("POST", "/api/search", {"content": b"not", "headers": {"Content-Type": "image/png"}}, 400, "sent: no image"),
    ("POST", "/api/search", {"content": b"a" * 9}, 415, "Content-Type"),
    ("POST", "/api/search", {"json": {"image": "/etc/passwd"}}, 415, "Content-Type"),
    ("POST", "/api/words", {"content": b"{"}, 400, "not readable as JSON"),
    ("POST", "/api/words", {"content": b"[" * 100_000}, 400, "nested too deep"),
    ("POST", "/api/words", {"content": b"[" * 200_000}, 413, "MB"),
    ("POST", "/api/words", {"json": {"q": "a red", "items": [8]}}, 404, "images 0 to 7"),
    ("POST", "/api/words", {"json": {"q": "a red", "items": []}}, 400, "items"),
    ("POST", "/api/words", {"json": {"q": "a red", "items": ["../x"]}}, 400, "items"),
    ("POST", "/api/words", {"json": {"q": "a red", "items": [1], "matcher": 5}}, 404, "matcher 5"),
    ("POST", "/api/words", {"json": {"q": "a red", "items": [1], "path": "/etc/passwd"}}, 400, "path"),
    ("POST", "/api/words", {"json": {"q": "...", "items": [1]}}, 400, "no words"),
]


@pytest.mark.parametrize(("method", "path", "request_", "status", "text"), MISTAKES)
def test_a_mistake_is_one_line(client, method, path, request_, status, text):
    answer = client.request(method, path, **request_)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert text in error
    assert "\n" not in error and len(error) < 400
    assert set(answer.json()) == {"error"}


HEADS = ["/", "/static/page.js", "/images/2?side=64", "/api/about", "/healthz", "/docs", "/metrics", "/static/none"]


@pytest.mark.parametrize("path", HEADS)
def test_head_is_get_without_the_body(client, path):
    expected, answer = client.get(path), client.head(path)
    assert (answer.status_code, answer.content) == (expected.status_code, b"")
    known = {"content-type", "etag", "cache-control", "content-security-policy"}
    assert {name: answer.headers.get(name) for name in known} == {name: expected.headers.get(name) for name in known}
    if path != "/metrics":  # counts
        assert int(answer.headers["content-length"]) == len(expected.content)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/api/search", "GET, HEAD, POST"),
        ("OPTIONS", "/api/search", "GET, HEAD, POST"),
        ("GET", "/api/words", "POST"),
        ("HEAD", "/api/words", "POST"),
        ("PUT", "/images/2", "GET, HEAD"),
        ("POST", "/", "GET, HEAD"),
        ("PATCH", "/openapi.json", "GET, HEAD"),
    ],
)
def test_other_methods_are_refused_and_those_that_are_taken_named(client, method, path, allowed):
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert allowed in answer.text or method == "HEAD"


def test_a_body_is_read_no_further_than_the_limit(client, monkeypatch):
    monkeypatch.setattr(api, "_by_photograph", None)
    answer = send(client, b"a" * (MOST_IMAGE_BYTES + 1))
    assert (answer.status_code, answer.json()["error"]) == (413, "the body has more than 32 MB")
    sent = []

    def parts():
        for _ in range(100):
            sent.append(1)
            yield b"a" * 10**6

    assert send(client, parts()).status_code == 413


def test_other_names_of_the_machine_are_refused(client):
    answer = client.get("/api/about", headers={"Host": "evil.example:8000"})
    assert (answer.status_code, list(answer.json())) == (400, ["error"])
    assert client.get("/api/about", headers={"Host": "localhost"}).status_code == 200


def test_a_failure_has_no_traceback(server, client, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("secret /etc/passwd")

    monkeypatch.setattr(server.sessions[0], "by_sentence", fail)
    answer = client.get("/api/search?q=a")
    assert answer.status_code == 500
    assert answer.json() == {"error": "the server failed at this request; its log says why"}
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "secret /etc/passwd" in caplog.text


def test_more_queries_than_may_wait_are_refused(sessions, monkeypatch):
    monkeypatch.setattr(api, "MOST_QUERIES", 2)
    going, asked = threading.Event(), threading.Semaphore(0)

    def wait(*_):
        asked.release()
        going.wait(30)
        raise UserError("done")

    server = Server(sessions)
    monkeypatch.setattr(server.sessions[0], "by_sentence", wait)
    with TestClient(make_app(server, None)) as client:
        threads = [threading.Thread(target=client.get, args=("/api/search?q=a",)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert asked.acquire(timeout=30)
        assert "crossmodal_queries_in_flight 2\n" in client.get("/metrics").text
        answer = client.get("/api/search?q=a")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        assert client.get("/healthz").json() == {"status": "ok"}
        going.set()
        for thread in threads:
            thread.join()
        assert "crossmodal_queries_in_flight 0\n" in client.get("/metrics").text


def test_a_worker_counts_what_waits():
    async def ask():
        workers = Workers("test", 1, 1)
        going = threading.Event()
        first = asyncio.create_task(workers.run(going.wait, 30))
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await workers.run(int)
        going.set()
        assert await first
        assert await workers.run(int, "7") == 7
        workers.close()

    asyncio.run(ask())


def test_metrics_count_requests(sessions):
    with TestClient(make_app(Server(sessions), None)) as client:
        for path in ("/api/search?q=a", "/api/search?q=a", "/api/search?q=", "/images/1", "/images/2", "/nowhere"):
            client.get(path)
        text = client.get("/metrics").text
    assert 'crossmodal_requests_total{route="/api/search",status="200"} 2\n' in text
    assert 'crossmodal_requests_total{route="/api/search",status="400"} 1\n' in text
    assert 'crossmodal_requests_total{route="/images/{item}",status="200"} 2\n' in text
    assert 'crossmodal_requests_total{route="none",status="404"} 1\n' in text
    assert 'crossmodal_request_seconds_bucket{route="/api/search",le="+Inf"} 3\n' in text
    assert 'crossmodal_request_seconds_count{route="/api/search"} 3\n' in text


def test_another_matcher_gets_an_index_over_the_same_images(workspace, tmp_path, evaluated):
    folder = workspace("vsepp")
    params = load_params(folder / "params.yaml")
    own = open_session(None, None, params, tmp_path / "0")
    said = []
    other = open_session(None, "scan", params, tmp_path / "1", said.append)
    check_same_images(own, other)
    assert other.engine.modes == ("shortlist", "exact")
    assert said == ["results/evaluation was made by vsepp: its images are encoded by scan of scan"]
    for row, sentence in zip((0, 3), SENTENCES, strict=True):
        for mode in other.engine.modes:
            found = other.by_sentence(sentence, 4, mode).found
            assert [result.item for result in found] == evaluated[1]["t2i_top"][row, :4].tolist()
    with raises_naming("results/evaluation", "(vsepp, ", "models/matcher", "(scan, "):
        (folder / "models/matcher/config.json").write_bytes((folder / "scan/config.json").read_bytes())
        open_session(None, None, params, tmp_path / "2")


def test_the_other_images_of_a_gallery_are_refused(sessions, monkeypatch):
    record = sessions[1].record
    monkeypatch.setattr(sessions[1], "record", lambda item: record((item + 1) % 8))
    with raises_naming("--against", *(session.describe() for session in sessions)):
        check_same_images(*sessions)


def test_a_request_that_the_end_of_the_server_cuts_off_is_answered(server, client, monkeypatch):
    async def ended(*_):
        raise asyncio.CancelledError

    monkeypatch.setattr(server.searches, "run", ended)
    answer = client.get("/api/search?q=red")
    assert (answer.status_code, answer.json()) == (503, {"error": "the server is ending"})
