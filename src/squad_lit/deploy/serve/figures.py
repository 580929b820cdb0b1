"""What a service counts, in the format of Prometheus."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from squad_lit.deploy.drift import DriftMonitor
from squad_lit.system.console import say

if TYPE_CHECKING:
    from squad_lit.deploy.predictor import Predictor, Result

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)
# Of the threshold: where the scores lie tells of a drift long before they cross it.
_SCORES = (0.25, 0.5, 0.75, 0.9, 1, 1.25, 1.5, 2, 4)


class Figures:
    """Counters of a service, each with the name of the model, and the memory and time of the process.

    Args:
        models: The models by name.
    """

    def __init__(self, models: Mapping[str, Predictor]) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "squad_lit_requests", "Requests for predictions, by HTTP status.", ["status"], registry=registry
        )
        self.seconds = Histogram(
            "squad_lit_request_seconds", "Seconds of a request.", buckets=_SECONDS, registry=registry
        )
        self.waiting = Gauge("squad_lit_waiting_images", "Images that were sent and have no answer.", registry=registry)
        self._images = Counter("squad_lit_images", "Judged images, by label.", ["model", "label"], registry=registry)
        self._unreadable = Counter(
            "squad_lit_unreadable_images", "Files that could not be judged.", ["model"], registry=registry
        )
        self._batches = Histogram(
            "squad_lit_batch_images", "Images judged together.", ["model"], buckets=_BATCHES, registry=registry
        )
        self._scores = Histogram(
            "squad_lit_score_ratio",
            "Anomaly scores, divided by the threshold.",
            ["model"],
            buckets=_SCORES,
            registry=registry,
        )
        self._drift = Gauge(
            "squad_lit_drift",
            "1 while the scores have left what the calibration explains.",
            ["model"],
            registry=registry,
        )
        self._monitors = {name: DriftMonitor.of(predictor) for name, predictor in models.items()}
        threshold = Gauge("squad_lit_threshold", "Threshold of the anomaly score.", ["model"], registry=registry)
        rate = Gauge(
            "squad_lit_false_alarm_rate",
            "Expected share of normal images above the threshold.",
            ["model"],
            registry=registry,
        )
        self._scale = {name: predictor.threshold.value for name, predictor in models.items()}
        for name, predictor in models.items():
            threshold.labels(name).set(predictor.threshold.value)
            rate.labels(name).set(predictor.threshold.false_alarm_rate)
            for label in "01":  # a counter that is absent until its first image hides a rise from 0
                self._images.labels(name, label)
            self._unreadable.labels(name)
            self._drift.labels(name)

    def judged(self, model: str, result: Result) -> None:
        """Count an image, and say so in the log where its score makes a drift."""
        self._images.labels(model, str(result.label)).inc()
        self._scores.labels(model).observe(result.anomaly_score / (self._scale[model] or 1.0))
        if report := self._monitors[model].feed(result.anomaly_score):
            say(f"drift of {model}: {report}", to=sys.stderr)
        self._drift.labels(model).set(self._monitors[model].drifting)

    def unreadable(self, model: str) -> None:
        """Count a file that could not be judged."""
        self._unreadable.labels(model).inc()

    def together(self, model: str, images: int) -> None:
        """Count a batch."""
        self._batches.labels(model).observe(images)

    def text(self) -> bytes:
        """All counters as Prometheus reads them."""
        return generate_latest(self._registry)
