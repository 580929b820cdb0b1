"""Reconstruction-based visual anomaly detection with finite scalar quantisation, on PyTorch Lightning and Hydra.

A frozen backbone describes an image, a generator reconstructs the normal part of that description through discrete
codes, a discriminator learns from synthetic anomalies where the reconstruction differs in a way that matters, and the
two are combined into an anomaly map and an anomaly score. Independent implementation of the idea in the abstract of
SQUAD (Lin and Lai, ECCV Workshops 2024). This module imports nothing heavy: ``import squad_lit`` costs no torch.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("squad_lit")
except PackageNotFoundError:  # run from a checkout by PYTHONPATH=src, not installed
    __version__ = "0.0.0+uninstalled"

__all__ = ["__version__"]
