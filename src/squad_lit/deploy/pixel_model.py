"""The module that predicts and is exported: from pixels of any size to map, score and label."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from squad_lit.dataset.image import resize_batch
from squad_lit.deploy.metadata import FORMAT
from squad_lit.deploy.threshold import Threshold, choose
from squad_lit.network.anomaly import resize_map
from squad_lit.system.package import version
from squad_lit.training.detector import Detector


class Inference(nn.Module):
    """Pixels to map, score and label, with resize, normalisation, standardised maps and threshold inside.

    The map has the resolution of the image, so that overlays, masks and sizes are in the camera's pixels. The input of
    a model with tiles is a single tile: :class:`squad_lit.deploy.predictor.Predictor` cuts the image and blends the
    maps.

    Args:
        detector: A trained model.
        threshold: Scores above it are labelled 1, in deviations from normal.
        own_size: Whether images always have the model's own size, so that a graph of it resizes nothing.
    """

    def __init__(self, detector: Detector, threshold: float, *, own_size: bool = False) -> None:
        super().__init__()
        self.detector = detector
        self.threshold = threshold
        self.size = detector.tile_size
        self.own_size = own_size

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute maps, scores and labels.

        Args:
            image: ``(N, H, W, 3)`` RGB: uint8, or float32 in [0, 1].

        Returns:
            ``anomaly_map`` ``(N, H, W)`` and ``anomaly_score`` ``(N,)``, float32, in deviations from normal; ``label``
            ``(N,)``, int64; and ``model_map`` ``(N, height, width)``, the map at the size of the model's input, on
            which the score is computed.
        """
        planes = _planes(image) if self.own_size else shrink(image, self.size)
        model_map, anomaly_score = self.detector.anomaly(self.detector.forward_tile(planes).maps)
        anomaly_map = model_map if self.own_size else resize_map(model_map[:, None], image.shape[1:3])[:, 0]
        return anomaly_map, anomaly_score, (anomaly_score > self.threshold).long(), model_map


def shrink(image: Tensor, size: Sequence[int]) -> Tensor:
    """Pixels ``(N, H, W, 3)``, uint8 or float in [0, 1], as a model's input ``(N, 3, height, width)`` in [0, 1]."""
    scale = 255 if image.dtype == torch.uint8 else 1
    planes = image.permute(0, 3, 1, 2).contiguous()  # a third faster to resize
    return resize_batch(planes.float() / scale, size)


def _planes(image: Tensor) -> Tensor:
    """As :func:`shrink`, without a change of size. Turned into floats first: TensorRT does nothing else with uint8."""
    return (image.float() / 255 if image.dtype == torch.uint8 else image).permute(0, 3, 1, 2)


def thresholds(detector: Detector, false_alarm_rate: float | None = None) -> tuple[Threshold, Threshold]:
    """The thresholds of a trained model for its score and for the pixels of its map.

    Args:
        detector: The model.
        false_alarm_rate: Share in (0, 1). With None, the threshold that was chosen counts or, if there is none, known
            defects choose it or, if there are none, the rate of the training.

    Raises:
        ValueError: The rate is out of range.
    """
    rate = _rate(detector, false_alarm_rate)
    state = detector.state
    threshold = state.threshold if false_alarm_rate is None else None
    return choose(state.normal_scores, state.normal_maxima, state.defective_scores, rate, threshold=threshold)


def _rate(detector: Detector, asked: float | None) -> float | None:
    return asked if asked is not None or detector.state.defective_scores else detector.state.false_alarm_rate


def describe(detector: Detector, false_alarm_rate: float | None = None) -> dict[str, Any]:
    """The description of a model in plain values; an exported file carries it as JSON.

    Args:
        detector: A trained model.
        false_alarm_rate: See :func:`thresholds`.

    Raises:
        ValueError: The rate is out of range.
    """
    state = detector.state
    config = json.dumps([state.config, state.data], sort_keys=True)
    tile = None if detector.tile is None else {"side": detector.tile, "overlap": detector.tile_overlap}
    height, width = detector.tile_size
    threshold, pixel_threshold = thresholds(detector, false_alarm_rate)
    return {
        "format": FORMAT,
        "squad_lit": version(),
        "model": type(detector).__name__,
        "config_hash": hashlib.sha256(config.encode()).hexdigest()[:12],
        "categories": state.categories,
        "image_size": list(state.image_size),
        "tile": tile,
        "top": detector.anomaly.top,
        "intensity_range": state.data.get("intensity_range"),
        "false_alarm_rate": _rate(detector, false_alarm_rate),
        "chosen_threshold": state.threshold if false_alarm_rate is None else None,
        "threshold": threshold.value,
        "pixel_threshold": pixel_threshold.value,
        "normal_scores": state.normal_scores,
        "normal_maxima": state.normal_maxima,
        "defective_scores": state.defective_scores,
        "roi": state.roi,
        "remembered": state.remembered,
        # A tile is cut out of a resized image, which has more than 8 bits.
        "input": {
            "name": "image",
            "shape": ["N", "H", "W", 3],
            "type": "float32" if tile else "uint8",
            "channels": "RGB",
        },
        "outputs": {
            "anomaly_map": {"shape": ["N", "H", "W"], "type": "float32"},
            "anomaly_score": {"shape": ["N"], "type": "float32"},
            "label": {"shape": ["N"], "type": "int64", "rule": "anomaly_score > threshold"},
            "model_map": {"shape": ["N", height, width], "type": "float32"},
        },
    }
