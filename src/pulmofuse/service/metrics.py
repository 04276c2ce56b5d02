"""What Prometheus reads at /metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The figures of one service, in a registry of its own: two services in one process can be."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "pulmofuse_requests", "Requests answered.", ["method", "route", "status"],
            registry=self.registry,
        )  # fmt: skip
        self.latency = Histogram(
            "pulmofuse_request_seconds", "Time from the request's head to the end of the answer.",
            ["route"], buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.stages = Histogram(
            "pulmofuse_stage_seconds", "Time of one stage of a prediction.", ["stage"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.batches = Histogram(
            "pulmofuse_batch_files", "Files that went through the network together.",
            buckets=(1, 2, 4, 8, 16, 32), registry=self.registry,
        )  # fmt: skip
        self.predictions = Counter(
            "pulmofuse_predictions", "Predictions answered.", ["subset"], registry=self.registry
        )
        self.refusals = Counter(
            "pulmofuse_refusals", "Requests refused.", ["problem"], registry=self.registry
        )
        self.in_flight = Gauge(
            "pulmofuse_predictions_in_flight", "Predictions that are read, wait or run.",
            registry=self.registry,
        )  # fmt: skip
        self.buffered = Gauge(
            "pulmofuse_buffered_bytes", "Bytes of uploads in memory.", registry=self.registry
        )

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
