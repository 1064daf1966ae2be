import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import energy_distance as scipy_energy_distance

from evidence.two_samples import energy_distance, nearest_distances


@given(seed=st.integers(0, 2**20), n=st.integers(1, 40), m=st.integers(1, 40))
def test_energy_distance_in_one_dimension_is_scipys(seed, n, m):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    y = 1 + torch.randn(m, 1, generator=generator, dtype=torch.float64)
    expected = scipy_energy_distance(x.flatten(), y.flatten()) ** 2
    assert energy_distance(x, y).item() == pytest.approx(expected, abs=1e-12)


@given(seed=st.integers(0, 2**20))
def test_energy_distance_is_symmetric_never_negative_and_zero_for_equal_samples(seed):
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, 20, 5, generator=generator)
    assert energy_distance(x, y) == pytest.approx(energy_distance(y, x).item(), abs=1e-12)
    assert energy_distance(x, y) > 0
    # 20 of the 400 distances between the two orders are of a point from itself.
    assert energy_distance(x, x.flip(0)) == pytest.approx(0, abs=1e-7)


def test_distances_in_many_dimensions_are_scipys():
    x, y = torch.rand(2, 60, 784, generator=torch.Generator().manual_seed(0))
    between, within_x, within_y = (cdist(*pair).mean() for pair in ((x, y), (x, x), (y, y)))
    assert energy_distance(x, y).item() == pytest.approx(
        2 * between - within_x - within_y, abs=1e-9
    )
    np.testing.assert_allclose(nearest_distances(x, y), cdist(x, y).min(1), atol=1e-9)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(3), torch.zeros(3, 1), r"x has shape \(3,\)"),
        (torch.zeros(3, 1), torch.zeros(0, 1), r"y has shape \(0, 1\)"),
        (torch.zeros(3, 2), torch.zeros(3, 1), "D = 2 and y has D = 1"),
    ],
)
@pytest.mark.parametrize("measure", [energy_distance, nearest_distances])
def test_samples_that_do_not_fit_are_refused(measure, x, y, message):
    with pytest.raises(ValueError, match=message):
        measure(x, y)
