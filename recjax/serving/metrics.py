"""Metrics of a service in Prometheus' format."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from recjax.serving.engine import Timings

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
SIZES = (1, 2, 4, 8)


class Metrics:
    """Counters, gauges and histograms; all names begin with `recjax_`."""

    def __init__(self, version: str = ""):
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "recjax_requests", "Requests.", ["route", "code"], registry=registry
        )
        self._seconds = Histogram(
            "recjax_request_duration_seconds",
            "Seconds of a request.",
            ["route"],
            registry=registry,
            buckets=SECONDS,
        )
        self._events = Counter(
            "recjax_feedback_events", "Stored events.", ["kind"], registry=registry
        )
        self._batch = Histogram(
            "recjax_batch_size", "Lists per batch.", registry=registry, buckets=SIZES
        )
        self._inference = Histogram(
            "recjax_inference_duration_seconds",
            "Seconds of a batch of lists.",
            registry=registry,
            buckets=SECONDS,
        )
        self._queue = Gauge("recjax_queue_size", "Waiting requests.", registry=registry)
        self._compiled = Gauge(
            "recjax_compilations_total", "Compiled programs.", registry=registry
        )
        self._model = Gauge(
            "recjax_model_info", "The model.", ["version"], registry=registry
        )
        self.model(version)

    def request(self, route: str, code: int, seconds: float) -> None:
        """Counts a request."""
        self._requests.labels(route, str(code)).inc()
        self._seconds.labels(route).observe(seconds)

    def event(self, is_retraction: bool) -> None:
        """Counts a stored event."""
        self._events.labels("retraction" if is_retraction else "interaction").inc()

    def batch(self, timings: Timings) -> None:
        """Counts a batch of lists."""
        self._batch.observe(timings.size)
        self._inference.observe(timings.seconds)

    def gauges(self, waiting: int, compilations: int) -> None:
        """Sets the values that are read when they are shown."""
        self._queue.set(waiting)
        self._compiled.set(compilations)

    def model(self, version: str) -> None:
        """Names the present model."""
        self._model.clear()
        self._model.labels(version).set(1)

    def text(self) -> str:
        """Returns all metrics."""
        return generate_latest(self._registry).decode()
