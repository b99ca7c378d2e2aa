"""Load on ``crossmodal serve``: 50 clients for a minute, then one client alone, over scenes and 30,000 made-up images.

    python benchmarks/serve_load.py                              # the gallery in results/evaluation, 50 clients, 60 s
    python benchmarks/serve_load.py --images 30000               # made up, as in benchmarks/search_latency.py
    python benchmarks/serve_load.py --seconds 10 --clients 10    # a try

Run it at the root of the repository after ``dvc repro``. The server is a process of its own, the clients are threads of
this one, each with a connection that stays open; a client asks for ten images by a test caption drawn at random, and
again when it has the answer. Printed are answers, errors (a status other than 200, or a broken connection), p50 and
p95 in milliseconds, and the memory of the server when the load begins, a sixth into it, and when it ends.
"""

from __future__ import annotations

import argparse
import http.client
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import numpy as np
import psutil
from search_latency import write_gallery

from crossmodal import paths
from crossmodal.datasets.records import read_dataset
from crossmodal.datasets.splits import split_rows
from crossmodal.serving.session import Folders

SINGLE = 200  # queries of one client
START = 300  # seconds after which a server that does not answer has failed
WARM = 1 / 6  # of the time, after which memory is taken to be in use


class Served:
    """``crossmodal serve`` over a gallery, on a free port; what it prints is in ``log``."""

    def __init__(self, gallery: Path, log: Path) -> None:
        command = [sys.executable, "-m", "crossmodal.cli", "serve", "--gallery", str(gallery), "--port", "0"]
        with log.open("w") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        until = time.monotonic() + START
        while time.monotonic() < until and self.process.poll() is None:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)/", log.read_text()):
                print(log.read_text(), end="")
                self.port = int(found[1])
                return
            time.sleep(0.1)
        self.close()
        sys.exit(f"the server did not start: {log.read_text()}")

    def memory(self) -> float:
        """MB that the server holds."""
        return psutil.Process(self.process.pid).memory_info().rss / 1e6

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def ask(connection: http.client.HTTPConnection, sentence: str) -> tuple[int, float]:
    """Status and seconds of one query."""
    started = time.perf_counter()
    connection.request("GET", f"/api/search?q={quote(sentence)}&k=10")
    response = connection.getresponse()
    response.read()
    return response.status, time.perf_counter() - started


def client(port: int, sentences: list[str], seed: int, until: float) -> tuple[list[float], int]:
    """Seconds of each answer, and errors."""
    draw, connection = random.Random(seed), http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    taken, errors = [], 0
    while time.monotonic() < until:
        try:
            status, seconds = ask(connection, draw.choice(sentences))
        except OSError:
            connection.close()
            errors += 1
            continue
        taken.append(seconds)
        errors += status != 200
    connection.close()
    return taken, errors


def load(server: Served, sentences: list[str], clients: int, seconds: float) -> None:
    """Many clients, then one alone."""
    memory, until = [server.memory()], time.monotonic() + seconds
    with ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(client, server.port, sentences, seed, until) for seed in range(clients)]
        time.sleep(seconds * WARM)
        memory.append(server.memory())
        found = [one.result() for one in running]
    memory.append(server.memory())
    taken, errors = np.concatenate([part for part, _ in found]), sum(wrong for _, wrong in found)
    held = ", ".join(f"{value:.0f}" for value in memory)
    print(
        f"{clients} clients, {seconds:g} s: {len(taken):,} answers ({len(taken) / seconds:.0f}/s), {errors} errors, "
        f"{percentiles(taken)}; server {held} MB (at the start, after {WARM:.0%}, at the end)"
    )
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    alone = [ask(connection, sentence)[1] for sentence in random.Random(0).choices(sentences, k=SINGLE)]
    print(f"one client, {SINGLE} queries: {percentiles(np.array(alone))}")


def percentiles(seconds: np.ndarray) -> str:
    return f"p50 {1000 * np.percentile(seconds, 50):.1f} ms, p95 {1000 * np.percentile(seconds, 95):.1f} ms"


def test_sentences(folders: Folders) -> list[str]:
    """All captions of the test split."""
    dataset = read_dataset(folders.dataset)
    return [text for row in split_rows(dataset, "test").images for text in dataset.records[row].captions]


@contextmanager
def served(images: int, folders: Folders) -> Iterator[Served]:
    """A server over so many made-up images, or, of 0, over the last evaluated gallery."""
    with tempfile.TemporaryDirectory() as name:
        gallery = paths.EVALUATION
        if images:
            gallery = Path(name) / "gallery"
            gallery.mkdir()
            write_gallery(gallery, images, folders)
        server = Served(gallery, Path(name) / "log")
        try:
            yield server
        finally:
            server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=0, help="made-up ones; 0: the gallery in results/evaluation")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    folders = Folders()
    sentences = test_sentences(folders)
    with served(arguments.images, folders) as server:
        print(f"{os.cpu_count()} processors")
        load(server, sentences, arguments.clients, arguments.seconds)


if __name__ == "__main__":
    main()
