"""Counts of a server's requests in the text format of Prometheus (exposition format 0.0.4)."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from threading import Lock

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Counters:
    """Requests by route and status, and a histogram of the seconds that each route took."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._buckets: dict[str, list[int]] = {}
        self._seconds: Counter[str] = Counter()

    def add(self, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        with self._lock:
            self._requests[route, status] += 1
            self._buckets.setdefault(route, [0] * (len(BUCKETS) + 1))[bisect_left(BUCKETS, seconds)] += 1
            self._seconds[route] += seconds

    def text(self, gauges: Mapping[str, float]) -> str:
        """All counts, and ``gauges`` by their names."""
        with self._lock:
            return "".join(f"{line}\n" for line in self._lines(gauges))

    def _lines(self, gauges: Mapping[str, float]) -> Iterator[str]:
        yield "# HELP crossmodal_requests_total Requests by route and HTTP status."
        yield "# TYPE crossmodal_requests_total counter"
        for (route, status), count in sorted(self._requests.items()):
            yield f'crossmodal_requests_total{{route="{route}",status="{status}"}} {count}'
        yield "# HELP crossmodal_request_seconds Seconds from a request to the end of its answer."
        yield "# TYPE crossmodal_request_seconds histogram"
        for route, counts in sorted(self._buckets.items()):
            total = 0
            for bound, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
                total += count
                yield f'crossmodal_request_seconds_bucket{{route="{route}",le="{bound}"}} {total}'
            yield f'crossmodal_request_seconds_sum{{route="{route}"}} {self._seconds[route]:.6f}'
            yield f'crossmodal_request_seconds_count{{route="{route}"}} {total}'
        for name, value in gauges.items():
            yield f"# TYPE crossmodal_{name} gauge"
            yield f"crossmodal_{name} {value:g}"
