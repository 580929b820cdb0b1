"""The truth: the functions, on all images at once."""

import datetime
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing

from squad_lit.metric import ImageMetrics, PixelMetrics, image_metrics, pixel_metrics
from squad_lit.training.evaluation import Evaluation

N = 7


def draw() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(N, 6, 5, dtype=torch.uint8)
    mask[1::2, 1:4, 2:4] = 255
    maps = 40 * torch.rand(N, 6, 5, generator=generator) + 5 * (mask > 0)
    return maps, mask, mask.amax((1, 2))


def plain(figures: dict[str, Tensor]) -> dict[str, float]:
    return {key: value.item() for key, value in figures.items()}


@pytest.mark.parametrize("parts", [[range(N)], [[3], [0, 5, 1], [], [6, 2, 4]]])
@pytest.mark.parametrize("with_index", [True, False])
def test_batches_in_any_order_are_the_whole(parts: list[list[int]], with_index: bool) -> None:
    maps, mask, label = draw()
    image, pixel = ImageMetrics(), PixelMetrics(fpr_limit=(0.3, 0.05))
    for part in parts:
        at = torch.tensor(list(part), dtype=torch.long)
        index = at if with_index else None
        image.update(maps[at].amax((1, 2)), label[at], index)
        pixel.update(maps[at], mask[at], index)
    assert plain(image.compute()) == plain(image_metrics(maps.amax((1, 2)), label))
    assert plain(pixel.compute()) == plain(pixel_metrics(maps, mask, fpr_limit=(0.3, 0.05)))


def test_a_repeated_image_counts_once_and_without_an_index_twice() -> None:
    maps, mask, _ = draw()
    at = torch.tensor([0, 1, 2, 1])
    metric = PixelMetrics()
    metric.update(maps[at], mask[at], at)
    metric.update(maps[:2], mask[:2], at[:2])
    assert plain(metric.compute()) == plain(pixel_metrics(maps[:3], mask[:3]))
    metric.reset()
    metric.update(maps[at], mask[at])
    assert plain(metric.compute()) == plain(pixel_metrics(maps[at], mask[at]))


def test_forward_gives_the_value_of_the_batch_and_keeps_all() -> None:
    maps, _, label = draw()
    metric = ImageMetrics()
    score = maps.amax((1, 2))
    assert plain(metric(score[:4], label[:4])) == plain(image_metrics(score[:4], label[:4]))
    metric(score[4:], label[4:])
    assert plain(metric.compute()) == plain(image_metrics(score, label))


def test_float64_scores_are_not_merged() -> None:
    score = 1 + torch.tensor([0.0, 1e-12], dtype=torch.float64)
    metric = ImageMetrics()
    metric.update(score, torch.tensor([0, 1]))
    assert metric.compute()["image_auroc"] == 1


def test_undefined_is_nan_with_a_warning() -> None:
    metric = ImageMetrics()
    metric.update(torch.rand(3), torch.zeros(3, dtype=torch.long))
    with pytest.warns(UserWarning, match="no positive"):
        assert math.isnan(metric.compute()["image_auroc"])


def test_state_takes_five_bytes_a_pixel() -> None:
    maps, mask, _ = draw()
    metric = PixelMetrics()
    metric.update(maps, mask)
    state = [t for name in ("score", "truth") for t in getattr(metric, name)]
    assert sum(t.numel() * t.element_size() for t in state) == 5 * maps.numel()


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (torch.tensor([0, 1]), "index must be 3 integers"),
        (torch.tensor([0.0, 1, 2]), "index must be 3 integers"),
        (torch.tensor([0, -1, 2]), "of at least 0"),
    ],
)
def test_index_refused(index: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageMetrics().update(torch.rand(3), torch.zeros(3, dtype=torch.long), index)


def test_other_mistakes_in_words() -> None:
    before_update = pytest.warns(UserWarning, match="called before the ``update`` method")  # of torchmetrics
    with before_update, pytest.raises(ValueError, match="nothing to compute from"):
        ImageMetrics().compute()
    with pytest.raises(ValueError, match="score must be finite"):
        ImageMetrics().update(torch.tensor([math.nan]), torch.tensor([1]))
    with pytest.raises(ValueError, match=r"mask must have the shape of anomaly_map"):
        PixelMetrics().update(torch.rand(2, 3, 3), torch.zeros(2, 1, 3, 3, dtype=torch.long))
    metric = PixelMetrics()
    metric.update(torch.rand(2, 3, 3), torch.zeros(2, 3, 3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"anomaly_map must keep one size, got \(3, 4\) after \(3, 3\)"):
        metric.update(torch.rand(2, 3, 4), torch.zeros(2, 3, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="index must be 2 integers"):
        ImageMetrics().update(torch.rand(2), torch.zeros(2, dtype=torch.long), [0, 1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fpr_limit: expected values in"):
        PixelMetrics(fpr_limit=1.5)


SHARDS = {
    "repeated": [[0, 2, 4, 6], [1, 3, 5, 0]],  # seven images for two: the sampler repeats the first
    "one rank without an update": [[0, 1, 2, 3, 4, 5, 6], []],
}


def _rank(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    limit = datetime.timedelta(seconds=60)
    store = distributed.FileStore(str(folder / "store"), 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=limit)
    maps, mask, label = draw()
    image, pixel = ImageMetrics(), PixelMetrics()
    for name, shards in SHARDS.items():
        image.reset()
        pixel.reset()
        for at in torch.tensor(shards[rank], dtype=torch.long).split(2) if shards[rank] else ():
            image.update(maps[at].amax((1, 2)), label[at], at)
            pixel.update(maps[at], mask[at], at)
        torch.save(plain(image.compute()) | plain(pixel.compute()), folder / f"{name} {rank}.pt")
        # After the gathering a rank has its own state back.
        assert sum(map(len, image.index)) == len(shards[rank])
    # The same for the test loop, which brings all images to the first rank.
    evaluation = Evaluation(fpr_limit=0.3)
    at = torch.tensor(SHARDS["repeated"][rank])
    batch = {"index": at, "mask": mask[at, None], "label": label[at]}
    batch |= {name: ["x"] * len(at) for name in ("category", "defect", "image_path", "mask_path")}
    evaluation.update(batch, maps[at], maps[at].amax((1, 2)))
    if evaluation.gather():
        figures = evaluation.compute()
        assert math.isnan(figures.pop("pixel_aupimo"))  # too few pixels; no part of the aggregated metrics
        torch.save({key: v for key, v in figures.items() if isinstance(v, float)}, folder / f"evaluation {rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_are_one(tmp_path: Path) -> None:
    multiprocessing.spawn(_rank, (tmp_path,), nprocs=2)
    maps, mask, label = draw()
    truth = plain(image_metrics(maps.amax((1, 2)), label)) | plain(pixel_metrics(maps, mask))
    expected = {f"{name} {rank}.pt" for name in SHARDS for rank in range(2)} | {"evaluation 0.pt"}
    assert {path.name for path in tmp_path.glob("*.pt")} == expected
    for name in expected:
        assert torch.load(tmp_path / name) == truth, name
