"""An HTTP server on this machine that misbehaves as asked, and small archives."""

import contextlib
import hashlib
import http.server
import io
import time
import zipfile


def zipped(members):
    """Bytes of a zip archive; ``members`` maps name to content, stored in that order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


GOOD = zipped({"a.txt": "good" * 1000, "b.txt": bytes(range(256)) * 800, "c.bin": hashlib.shake_128().digest(300_000)})
SHA256 = hashlib.sha256(GOOD).hexdigest()
MD5 = hashlib.md5(GOOD).hexdigest()
OTHER = zipped({"a.txt": "a re-pack"})
PIECE = 100_000  # bytes of an answer, where the server cuts the connection
STATUS = {"missing": 404, "once500": 500, "always503": 503, "busy": 503}
BODIES = {"corrupt": GOOD[:-30] + bytes(30), "other": OTHER, "page": b"<html>log in first</html>"}


class Handler(http.server.BaseHTTPRequestHandler):
    """How the server behaves is the first folder of the path; ``files`` of the server are served by name."""

    def do_GET(self):
        kind, name = self.path.split("/")[1], self.path.split("/")[-1]
        self.server.requests.append(self.path)
        self.server.ranges.append(self.headers.get("Range"))
        first = self.server.requests.count(self.path) == 1
        if kind in STATUS and (first or not kind.startswith(("once", "busy"))):
            self.send_response(STATUS[kind])
            self.send_header("Retry-After", "7" if kind == "busy" else "0")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = self.server.files.get(name) or BODIES.get(kind, GOOD)
        if kind == "endless":  # no length, and no end before the client leaves
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                for _ in range(2000):
                    self.wfile.write(bytes(1 << 16))
            return
        if kind == "digits":
            self.send_response(503 if first else 200)
            self.send_header("Retry-After", "9" * 5000)
            self.send_header("Content-Range", f"bytes {'9' * 5000}-1/{'9' * 5000}")
            self.end_headers()
            self.wfile.write(b"" if first else body)
            return
        if kind == "mixed" and self.headers.get("Range") is None and first:
            body = body[:PIECE].translate(bytes(range(255, -1, -1))) + body[PIECE:]
        start = self.start_of_range(kind, body)
        if start == len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200 if start is None else 206)
        if start is not None:
            shift = 5 if kind == "shifted" else 0
            self.send_header("Content-Range", f"bytes {start + shift}-{len(body) - 1}/{len(body)}")
        body = body[start or 0 :]
        if kind == "encoded":
            self.send_header("Content-Encoding", "gzip")
        if kind != "lengthless":
            wrong = {"too_long": 1000, "too_short": -len(body) // 2}.get(kind, 0)
            self.send_header("Content-Length", str(len(body) + wrong))
        if kind not in ("unmarked", "mixed"):
            self.send_header("ETag", f'"{self.etag(kind)}"')
        self.end_headers()
        if kind in ("pieces", "unmarked", "shifted", "mixed", "changing") or (kind == "once_cut" and first):
            body = body[:PIECE]
        elif kind == "cut":
            body = body[: len(body) // 2]
        with contextlib.suppress(ConnectionError):  # the client was killed
            for at in range(0, len(body), 20_000):
                self.wfile.write(body[at : at + 20_000])
                time.sleep(0.2 if kind == "slow" else 0)

    def etag(self, kind):
        return f"{kind}-{len(self.server.requests)}" if kind == "changing" else kind

    def start_of_range(self, kind, body):
        """First byte asked for, None where the whole is to be sent."""
        asked, condition = self.headers.get("Range"), self.headers.get("If-Range")
        changed = condition not in (None, f'"{self.etag(kind)}"')
        if asked is None or changed or kind in ("cut", "rangeless"):
            return None
        return int(asked.removeprefix("bytes=").removesuffix("-"))

    def log_message(self, *args):
        pass
