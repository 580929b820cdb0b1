"""The truths: the grid written out by hand, mixed-radix numbers by NumPy, brute-force search, finite differences."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy, kstest
from torch import Tensor

from squad_lit.network.quantizer import FSQ, VQ, NoQuantizer, codebook_statistics

RECOMMENDED = [[3, 3], [8, 6, 5], [8, 5, 5, 5], [7, 5, 5, 5, 5], [8, 8, 8, 6, 5], [8, 8, 8, 5, 5, 5]]


def grid(level: int) -> Tensor:
    """The values of one scalar: -1 to 1 in odd steps; one step short of 1 for an even number of levels."""
    half = level // 2
    return torch.tensor([k / half for k in range(-half, level - half)])


def whole_codebook(levels: list[int]) -> tuple[Tensor, Tensor]:
    """All indices ``(1, N, 1)`` and their codes ``(1, dim, N, 1)``; the first scalar is the fastest digit."""
    index = np.arange(math.prod(levels))
    digits = np.unravel_index(index, levels, order="F")
    codes = torch.stack([grid(level)[torch.from_numpy(d)] for level, d in zip(levels, digits, strict=True)])
    return torch.from_numpy(index).view(1, -1, 1), codes.view(1, len(levels), -1, 1)


def unbound(codes: Tensor, levels: list[int]) -> Tensor:
    """Real scalars that are bound to the middle of the cell of each code, in closed form."""
    level = torch.tensor(levels, dtype=torch.float64).view(1, -1, 1, 1)
    half, offset = (level - 1) * 1.001 / 2, torch.where(level % 2 == 0, 0.5, 0.0)
    return (torch.atanh((codes * (level // 2) + offset) / half) - torch.atanh(offset / half)).float()


# FSQ: the grid


@pytest.mark.parametrize("level", [3, 4, 5, 6, 7, 8, 9, 16, 255, 256, 1001, 1003, 2000])
def test_fsq_reaches_exactly_its_levels(level):
    # Even in tanh(z), where the grid is even too; with the tails, where tanh is saturated.
    inside = torch.atanh(torch.linspace(-1, 1, 40 * level, dtype=torch.float64)[1:-1]).float()
    z = torch.cat([torch.tensor([-1e4, -50.0]), inside, torch.tensor([50.0, 1e4])]).view(1, 1, -1, 1)
    out = FSQ([level])(z)
    torch.testing.assert_close(out.codes.unique(), grid(level))
    assert out.indices.unique().tolist() == list(range(level))
    assert (out.codes.flatten().diff() >= 0).all(), "a larger scalar never has a smaller code"


@pytest.mark.parametrize(
    ("level", "lowest", "highest"), [(3, -1, 1), (5, -1, 1), (4, -1, 0.5), (6, -1, 2 / 3), (8, -1, 0.75)]
)
def test_fsq_range_of_odd_and_even_grids(level, lowest, highest):
    codes = FSQ([level])(torch.linspace(-30, 30, 999).view(1, 1, -1, 1)).codes
    torch.testing.assert_close(
        codes.aminmax(), torch.return_types.aminmax((torch.tensor(lowest), torch.tensor(highest))), check_dtype=False
    )


@pytest.mark.parametrize("levels", RECOMMENDED)
def test_fsq_of_zero_is_zero(levels):
    fsq = FSQ(levels)
    zero = torch.zeros(1, len(levels), 1, 1)
    assert (fsq(zero).codes == 0).all()
    assert fsq.bound(zero).abs().max() < 1e-6
    middle = sum(level // 2 * math.prod(levels[:i]) for i, level in enumerate(levels))
    assert fsq(zero).indices.item() == middle


@pytest.mark.parametrize("levels", RECOMMENDED)
def test_fsq_round_trip_of_the_whole_codebook(levels):
    fsq = FSQ(levels)
    index, codes = whole_codebook(levels)
    assert fsq.codebook_size == index.numel()
    assert fsq.dim == len(levels)
    torch.testing.assert_close(fsq.decode(index), codes)
    again = fsq(unbound(codes, levels))
    torch.testing.assert_close(again.codes, codes)
    assert again.indices.dtype == torch.int64
    assert torch.equal(again.indices, index)


def test_fsq_index_of_a_code_by_hand():
    # Levels 3, 4: digits 2 and 1 make 2 + 1 * 3; values (2 - 1) / 1 and (1 - 2) / 2.
    torch.testing.assert_close(FSQ([3, 4]).decode(torch.tensor([[[5]]])).flatten(), torch.tensor([1.0, -0.5]))


def test_fsq_keeps_the_shape_of_a_map():
    z = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    out = FSQ([8, 6, 5])(z)
    assert out.codes.shape == z.shape
    assert out.indices.shape == (2, 4, 5)
    assert out.loss.shape == ()
    assert out.loss == 0
    torch.testing.assert_close(FSQ([8, 6, 5]).decode(out.indices), out.codes)


# FSQ: precision


@pytest.mark.parametrize("levels", [[8, 5, 5, 5], [8, 8, 8, 5, 5, 5]])
def test_fsq_indices_are_exact_under_bfloat16_autocast(levels):
    index, codes = whole_codebook(levels)
    with torch.autocast("cpu", torch.bfloat16):
        out = FSQ(levels)(unbound(codes, levels))
    assert out.codes.dtype == torch.float32
    assert torch.equal(out.indices, index)
    torch.testing.assert_close(out.codes, codes)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_fsq_indices_are_exact_for_half_precision_input(dtype):
    levels = [8, 8, 8, 5, 5, 5]
    index, codes = whole_codebook(levels)
    z = unbound(codes, levels).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = FSQ(levels)(z)
    for out in (FSQ(levels)(z), under_autocast):
        assert out.codes.dtype == torch.float32
        assert torch.equal(out.indices, index)


# FSQ: gradient


def test_fsq_bound_has_the_gradient_of_finite_differences():
    z = torch.randn(1, 3, 4, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(FSQ([8, 6, 5]).double().bound, z)


def test_fsq_passes_the_gradient_of_the_bound_straight_through():
    levels = [8, 3, 5]
    generator = torch.Generator().manual_seed(0)
    z = (2 * torch.randn(2, 3, 5, 5, generator=generator)).requires_grad_()
    weight = torch.randn(2, 3, 5, 5, generator=generator)
    (FSQ(levels)(z).codes * weight).sum().backward()
    level = torch.tensor(levels, dtype=torch.float64).view(1, -1, 1, 1)
    half = (level - 1) * 1.001 / 2
    shift = torch.atanh(torch.where(level % 2 == 0, 0.5, 0.0) / half)
    slope = half * (1 - torch.tanh(z.detach().double() + shift) ** 2) / (level // 2)
    torch.testing.assert_close(z.grad, (slope * weight).float())


# FSQ: what it refuses


@pytest.mark.parametrize(
    "levels",
    [[2], [8, 2, 5], [0], [-3], [1], [True, 8], [8.0, 5.0], [], (), "", "8,5", "85", ["8", "5"], None, [None], 8.5],
)
def test_fsq_refuses_levels_in_words(levels):
    with pytest.raises(ValueError, match=r"^levels(\[\d\])?: expected (a list|a whole number|at least (3|1 values))"):
        FSQ(levels)


def test_fsq_refuses_a_codebook_that_an_index_cannot_hold():
    with pytest.raises(ValueError, match="4294967296 codes"):
        FSQ([65536, 65536])


# VQ


@pytest.fixture
def vq() -> VQ:
    """A quantiser that has seen one training batch, from which its codebook comes."""
    torch.manual_seed(0)
    quantizer = VQ(codebook_size=12, dim=3, decay=0.9, commitment_weight=0.25, dead_code_threshold=0.1)
    quantizer(torch.randn(2, 3, 8, 8))
    return quantizer


def test_vq_takes_the_nearest_code(vq):
    vq.eval()
    z = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(1))
    codes, indices, _ = vq(z)
    book = vq.vq.codebook.detach().numpy()
    cell = z.permute(0, 2, 3, 1).numpy()
    distance = ((cell[..., None, :] - book) ** 2).sum(-1)
    assert np.array_equal(indices.numpy(), distance.argmin(-1))
    np.testing.assert_allclose(codes.permute(0, 2, 3, 1).detach().numpy(), book[distance.argmin(-1)], atol=1e-6)


@pytest.mark.filterwarnings("ignore:A model attribute `vq.zero` requires gradient")  # the library's
def test_vq_in_training_and_in_use_agree(vq):
    z = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(1))
    vq.eval()
    theirs, index, _ = vq.vq(z)  # the library's own
    out = vq(z)
    assert torch.equal(out.indices, index)
    torch.testing.assert_close(out.codes, theirs)
    assert out.loss == 0
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(vq(z).indices, index)
    program = torch.export.export(vq, (z,)).module()
    assert torch.equal(program(z).indices, index)


def test_vq_contract(vq):
    z = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        out = vq(z.bfloat16())
    assert (vq.dim, vq.codebook_size) == (3, 12)
    assert out.codes.shape == z.shape
    assert out.codes.dtype == torch.float32
    assert out.indices.shape == (2, 4, 5)
    assert out.indices.dtype == torch.int64
    assert out.indices.min() >= 0
    assert out.indices.max() < 12
    assert out.loss.shape == ()


def test_vq_gradient_is_straight_through_plus_commitment(vq):
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(2, 3, 4, 5, generator=generator).requires_grad_()
    weight = torch.randn(z.shape, generator=generator)
    out = vq(z)
    ((out.codes * weight).sum() + out.loss).backward()
    gap = z.detach() - out.codes.detach()
    assert out.loss.item() == pytest.approx(0.25 * float(gap.square().mean()), rel=1e-5)
    torch.testing.assert_close(z.grad, weight + 0.25 * 2 * gap / gap.numel())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"codebook_size": 0}, "codebook_size: expected at least 1, got 0"),
        ({"dim": 0}, "dim: expected at least 1, got 0"),
        ({"decay": 1.0}, r"decay: expected less than 1, got 1.0"),
        ({"decay": -1}, r"decay: expected at least 0, got -1"),
        ({"commitment_weight": -3}, "commitment_weight: expected at least 0, got -3"),
        ({"dead_code_threshold": math.nan}, "dead_code_threshold: expected a finite number, got nan"),
    ],
)
def test_vq_refuses_in_words(wrong, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        VQ(
            **(
                {"codebook_size": 4, "dim": 2, "decay": 0.9, "commitment_weight": 0.25, "dead_code_threshold": 0.1}
                | wrong
            )
        )


def test_vq_codebook_is_the_moving_average_of_what_hits_it():
    """By hand: sums and counts decay by 0.9 and take in a tenth of the batch's; the code is their quotient."""
    torch.manual_seed(0)
    quantizer = VQ(codebook_size=4, dim=2, decay=0.9, commitment_weight=0.25, dead_code_threshold=0.0)
    quantizer(torch.randn(2, 2, 8, 8))
    state = {name.rpartition(".")[2]: value[0] for name, value in quantizer.state_dict().items() if value.ndim > 1}
    count, total = state["cluster_size"].clone(), state["embed_avg"].clone()
    z = torch.randn(2, 2, 8, 8)
    _, indices, _ = quantizer(z)
    rows = z.permute(0, 2, 3, 1).reshape(-1, 2)
    hit = torch.nn.functional.one_hot(indices.flatten(), 4).float()
    count, total = 0.9 * count + 0.1 * hit.sum(0), 0.9 * total + 0.1 * hit.T @ rows
    torch.testing.assert_close(state["cluster_size"], count)
    torch.testing.assert_close(quantizer.vq.codebook, total / count[:, None], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_vq_revives_codes_that_nothing_hits(threshold):
    torch.manual_seed(0)
    quantizer = VQ(codebook_size=6, dim=2, decay=0.5, commitment_weight=0.25, dead_code_threshold=threshold)
    quantizer(torch.randn(2, 2, 8, 8))
    far = torch.randn(2, 2, 8, 8) + 50  # all hit one code: the others die
    for _ in range(20):
        quantizer(far)
    nearby = int((quantizer.vq.codebook.detach() > 40).all(1).sum())
    assert nearby == (6 if threshold else 1)


# No quantiser


def test_no_quantizer_is_tanh_without_a_code():
    z = torch.tensor([[[[-100.0, 0.0, 0.5, 100.0]], [[0.0, 0.0, 0.0, 1.0]]]]).requires_grad_()
    quantizer = NoQuantizer(dim=2)
    out = quantizer(z)
    expected = [-1.0, 0.0, math.tanh(0.5), 1.0, 0.0, 0.0, 0.0, math.tanh(1.0)]
    torch.testing.assert_close(out.codes.flatten(), torch.tensor(expected))
    out.codes.sum().backward()
    torch.testing.assert_close(z.grad.flatten(), 1 - torch.tensor(expected) ** 2)
    assert out.indices is None
    assert out.loss == 0
    assert (quantizer.dim, quantizer.codebook_size) == (2, 0)


def test_no_quantizer_refuses_no_scalar():
    with pytest.raises(ValueError, match=r"^dim: expected at least 1, got 0"):
        NoQuantizer(dim=0)


# Statistics


@pytest.mark.parametrize(
    ("count", "usage", "perplexity"),
    [
        ([5, 5, 5, 5], 1.0, 4.0),
        ([9, 0, 0, 0], 0.25, 1.0),
        ([7, 0, 7, 0, 0], 0.4, 2.0),
        ([1, 2, 3, 10], 1.0, np.exp(entropy([1, 2, 3, 10]))),
    ],
)
def test_codebook_statistics(count, usage, perplexity):
    assert codebook_statistics(torch.tensor(count)) == pytest.approx((usage, perplexity))


@pytest.mark.parametrize("level", [3, 4, 5, 8])
def test_ifsq_has_its_levels_and_is_twice_a_sigmoid_minus_one(level):
    fsq = FSQ([level], bound="ifsq")
    z = torch.linspace(-30, 30, 4001, dtype=torch.float64).view(1, 1, -1, 1)
    assert len(fsq(z.float()).indices.unique()) == level
    assert fsq.double().bound(torch.zeros(1, 1, 1, 1, dtype=torch.float64)).abs().item() < 1e-12
    if level % 2:  # an even grid is the same function, moved so that zero stays zero
        half = (level - 1) * (1 + 1e-3) / 2
        torch.testing.assert_close(fsq.bound(z) / half, 2 * torch.sigmoid(1.6 * z) - 1)


def test_ifsq_makes_a_normal_scalar_nearly_uniform():
    z = torch.randn(1, 1, 20000, 1, generator=torch.Generator().manual_seed(0))
    distance = {
        bound: kstest(FSQ([5], bound=bound).bound(z).flatten() / 2.002, "uniform", args=(-1, 2)).statistic
        for bound in ("tanh", "ifsq")
    }
    assert distance["ifsq"] < 0.02
    assert distance["tanh"] > 0.05


def test_fsq_refuses_an_unknown_bound():
    with pytest.raises(ValueError, match=r"^bound: expected tanh or ifsq, got 'sigmoid'"):
        FSQ([5], bound="sigmoid")


def test_level_histograms_by_hand():
    assert FSQ([3]).level_histogram(torch.tensor([1, 1, 2])) == [[0.25, 0.25, 0.5]]
    # Six codes counted once, but the first one three times: the first scalar's index runs fastest.
    assert FSQ([3, 2 + 2]).level_histogram(torch.tensor([3, 1, 1, 1, 1, 1] + [0] * 6)) == [
        [0.5, 0.25, 0.25],
        [0.625, 0.375, 0, 0],
    ]


@pytest.mark.parametrize("index", [-1, 9])
def test_an_index_of_no_code_is_refused(index):
    with pytest.raises(ValueError, match=rf"indices in \[0, 9\), got {index}"):
        FSQ([3, 3]).decode(torch.full((1, 1, 1), index))


def test_what_was_never_counted_is_undefined_and_no_collapse():
    assert np.isnan(codebook_statistics(torch.zeros(12, dtype=torch.long))).all()
    assert np.isnan(FSQ([3, 4]).level_histogram(torch.zeros(12, dtype=torch.long))[0]).all()


@pytest.mark.parametrize("levels", [[255, 257], [8, 8, 8, 5, 5, 5]])
def test_fsq_of_a_model_in_half_precision_gives_the_same_indices(levels):
    z = torch.randn(2, len(levels), 9, 9, generator=torch.Generator().manual_seed(0)).bfloat16()
    plain, half = FSQ(levels), FSQ(levels).bfloat16()
    assert torch.equal(plain(z).indices, half(z).indices)
    assert torch.equal(half.decode(half(z).indices), plain.decode(plain(z).indices))
