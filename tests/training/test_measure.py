"""The truths: reconstructions made by hand, and NumPy's counts."""

import numpy as np
import pytest
import torch

from squad_lit.network.generator import Generator, Reconstruction
from squad_lit.network.quantizer import FSQ, NoQuantizer
from squad_lit.training.forward import ForwardOutput
from squad_lit.training.measure import ReconstructionMeasure


def make(quantizer=lambda: FSQ([3, 3])) -> Generator:
    torch.manual_seed(0)
    return Generator({"a": 4}, {"a": 8}, quantizer=quantizer, width=8, image_width=8).eval()


def output(features: torch.Tensor, recon: torch.Tensor) -> ForwardOutput:
    return ForwardOutput({}, {"a": features}, Reconstruction({"a": recon}, {}, {}, torch.zeros(())))


def test_feature_error_is_the_mean_square_over_all_images():
    measure = ReconstructionMeasure(make(), [])
    features = torch.rand(3, 4, 2, 2)
    measure.observe(output(features[:2], features[:2] + 2))
    measure.observe(output(features[2:], features[2:] - 1))
    assert measure.compute()["feature_error/a"] == pytest.approx((4 + 4 + 1) / 3)


def test_copy_ratio_is_the_kept_share_of_the_change_within_the_mask():
    measure = ReconstructionMeasure(make(), [])
    clean, mask = torch.rand(2, 4, 2, 2), torch.zeros(2, 1, 16, 16)
    mask[:, :, 3, 3] = 1  # in the upper left of 2 x 2 cells
    change = torch.zeros(2, 4, 2, 2)
    change[..., 0, 0] = 1
    change[..., 1, 1] = 5  # outside
    measure.compare(output(clean + change, clean + 0.25 * change), {"a": clean}, mask)
    measure.compare(output(clean + change, clean), {"a": clean}, mask)
    assert measure.compute()["copy_ratio/a"] == pytest.approx(0.125)


def test_codes_are_counted_in_all_chunks_and_all_processes(monkeypatch):
    generator, features = make(), 10 * torch.randn(5, 4, 6, 6)
    other = torch.arange(9)  # what another process has counted
    monkeypatch.setattr("squad_lit.training.measure.total", lambda sums: sums + other if len(sums) == 9 else sums)
    measure = ReconstructionMeasure(generator, ({"a": part} for part in features.split(2)))
    with torch.no_grad():
        figures = measure.compute()
        indices = generator.encode({"a": features})["a"].indices.numpy()
    share = (np.bincount(indices.ravel(), minlength=9) + np.arange(9)) / (indices.size + 36)
    assert figures["codebook_usage/a"] == (share > 0).mean()
    assert figures["perplexity/a"] == pytest.approx(np.exp(-sum(p * np.log(p) for p in share if p)))
    grid = share.reshape(3, 3)  # the first scalar's level runs fastest
    np.testing.assert_allclose(figures["level_histogram/a"], [grid.sum(0), grid.sum(1)])


def test_without_a_codebook_there_is_nothing_to_count():
    measure = ReconstructionMeasure(make(lambda: NoQuantizer(dim=2)), [{"a": torch.rand(2, 4, 2, 2)}])
    assert set(measure.compute()) == {"copy_ratio/a", "feature_error/a"}
