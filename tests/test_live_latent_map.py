"""The Python side of the live figure of a VAE's map, and weights that are handed over in bytes."""

import base64

import numpy as np
import pytest
import torch
import traitlets
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal
from torch import nn

from evidence.live import CodeSpace, LatentMap
from evidence.live.code_plane import decoder_layers

SIZE = 4
RNG = np.random.default_rng(0)
CODES = RNG.normal(size=(200, 2))
LABELS = RNG.integers(3, 6, size=200)


def make_decoder(hidden=8):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Linear(2, hidden), nn.ReLU(), nn.Linear(hidden, SIZE * SIZE)), nn.Sigmoid()
    )


def make_figure(**changes):
    arguments = {"decoder": make_decoder(), "codes": CODES, "labels": LABELS, "size": SIZE}
    return LatentMap(**{**arguments, **changes})


FIGURE = make_figure()
PART = st.floats(0, 1)


@pytest.fixture
def figure():
    return make_figure()


# --- weights in bytes --------------------------------------------------------------------------


def in_bytes(decoder, outputs):
    """The weights of a decoder as they arrive: by layer, weight and bias."""
    layers, given = decoder_layers(decoder, outputs, weight_bits=8)
    arrived, offset = [], 0

    def take(count, dtype):
        nonlocal offset
        values = np.frombuffer(given, dtype, count, offset).astype(np.float64)
        offset += values.size * np.dtype(dtype).itemsize
        return values

    for layer in layers:
        if layer["kind"] != "linear":
            continue
        shape = layer["outputs"], layer["inputs"]
        if layer.get("bits") == 8:
            weight = take(shape[0] * shape[1], "i1").reshape(shape) * take(shape[0], "<f4")[:, None]
        else:
            weight = take(shape[0] * shape[1], "<f2").reshape(shape)
        arrived.append((weight, take(shape[0], "<f2") if layer["bias"] else None))
    assert offset == len(given)
    return layers, arrived


def test_large_layers_are_in_bytes_and_small_ones_are_not():
    torch.manual_seed(1)
    decoder = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64, bias=False))
    layers, ((small, _), (large, bias)) = in_bytes(decoder, 64)
    assert "bits" not in layers[0]
    assert layers[2] == {
        "kind": "linear", "inputs": 64, "outputs": 64, "bias": False, "bits": 8,
    }  # fmt: skip
    assert bias is None
    np.testing.assert_array_equal(small, decoder[0].weight.detach().half().double())
    weight = decoder[2].weight.detach().double().numpy()
    # Half a step of the row, and the scale's own rounding.
    allowed = np.abs(weight).max(1, keepdims=True) / 127 * (0.5 + 1e-4)
    assert (np.abs(large - weight) <= allowed).all()
    assert np.abs(large - weight).max() > 0  # they are rounded indeed
    # The largest weight of a row is kept.
    largest = np.abs(weight).argmax(1)
    rows = np.arange(64)
    np.testing.assert_allclose(large[rows, largest], weight[rows, largest], rtol=1e-6)


def test_a_row_of_zeros_stays_zero():
    decoder = nn.Sequential(nn.Linear(2, 4096, bias=False))
    with torch.no_grad():
        decoder[0].weight[:10] = 0
    _, ((weight, _),) = in_bytes(decoder, 4096)
    assert (weight[:10] == 0).all()
    assert np.isfinite(weight).all()


@pytest.mark.parametrize("bits", [4, 32, "8"])
def test_other_numbers_of_bits_are_refused(bits):
    with pytest.raises(ValueError, match=r"weight_bits is .* 8 and 16 are accepted"):
        decoder_layers(nn.Sequential(nn.Linear(2, 4)), 4, weight_bits=bits)


def test_its_state_is_small():
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(2, 400), nn.ReLU(), nn.Linear(400, 784), nn.Sigmoid())
    state = LatentMap(decoder, RNG.normal(size=(4000, 2)), np.zeros(4000, int)).get_state()
    assert len(state["weights"]) == 2 * 3 * 400 + 400 * 784 + (4 + 2) * 784
    assert len(state["codes"]) == 4 * 1500
    assert len(state["classes"]) == 1500


# --- the walk ----------------------------------------------------------------------------------


def moved(start, end, walked):
    FIGURE.start, FIGURE.end, FIGURE.walked = start, end, walked
    return FIGURE


PLACES = st.tuples(st.floats(-2, 2), st.floats(-2, 2)).map(list)


@given(PLACES, PLACES, PART)
def test_the_density_is_the_priors_at_the_place_walked_to(start, end, walked):
    figure = moved(start, end, walked)
    place = (1 - walked) * np.array(start) + walked * np.array(end)
    np.testing.assert_allclose(figure.point(), place, atol=1e-12)
    expected = multivariate_normal([0, 0]).logpdf(place)
    assert figure.log_prior() == pytest.approx(expected, abs=1e-12)


@given(PLACES, PLACES, PART)
def test_on_the_way_the_density_is_never_below_both_ends(start, end, walked):
    ends = [moved(start, end, part).log_prior() for part in (0.0, 1.0)]
    assert moved(start, end, walked).log_prior() >= min(ends) - 1e-12


def test_decoded_is_what_the_decoder_makes_of_the_walker(figure):
    figure.start, figure.end, figure.walked = [0.5, -1.0], [-0.5, 1.0], 0.25
    with torch.no_grad():
        expected = make_decoder()(torch.tensor([[0.25, -0.5]])).reshape(SIZE, SIZE)
    torch.testing.assert_close(figure.decoded(), expected)


def test_it_starts_between_the_first_and_the_last_class(figure):
    assert figure.class_names == ["3", "4", "5"]
    assert (figure.start, figure.end) == (figure.typical[0], figure.typical[2])
    assert figure.walked == 0.5
    told = make_figure(start=(1, 2), end=(0, 0), walked=1)
    assert (told.start, told.end, told.walked) == ([1.0, 2.0], [0.0, 0.0], 1.0)


def test_what_the_page_says_arrives_in_python(figure):
    told = {"start": [0.5, 0.25], "end": [-1.0, 0.0], "walked": 0.75}
    seen = []
    figure.observe(lambda change: seen.append(change["name"]), names=list(told))
    figure.set_state(told)
    assert {name: getattr(figure, name) for name in told} == told
    assert sorted(seen) == sorted(told)
    np.testing.assert_allclose(figure.point(), [-0.625, 0.0625])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("start", [1e6, 0.0]), ("start", [0.0]), ("end", [0.0, float("nan")]), ("end", "ab"),
        ("walked", -0.01), ("walked", 1.01), ("walked", float("nan")), ("walked", "far"),
    ],
)  # fmt: skip
def test_what_it_refuses(figure, name, value):
    before = figure.start, figure.end, figure.walked
    with pytest.raises(traitlets.TraitError, match=name):
        setattr(figure, name, value)
    assert (figure.start, figure.end, figure.walked) == before


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"decoder": nn.Linear(2, 16)}, TypeError, "decoder is a Linear; an nn.Sequential"),
        ({"codes": CODES[:, :1]}, ValueError, r"codes has shape \(200, 1\); accepted is \(N, 2\)"),
        ({"labels": LABELS + 5}, ValueError, "labels holds"),
        ({"drawn": 0}, ValueError, "drawn is 0"),
        ({"drawn": 20.0}, ValueError, r"drawn is 20\.0"),
        ({"size": 5}, ValueError, "gives 16 values; 25 are needed"),
        ({"start": (100.0, 0.0)}, traitlets.TraitError, "start is"),
        ({"walked": 2}, traitlets.TraitError, "walked is 2"),
    ],
)
def test_input_that_is_refused(changes, error, message):
    with pytest.raises(error, match=message):
        make_figure(**changes)


# --- how it shows ------------------------------------------------------------------------------


def test_it_has_the_plane_and_the_codes_of_the_code_space(figure):
    other = CodeSpace(make_decoder(), CODES, LABELS, size=SIZE)
    for name in ("plane", "codes", "classes", "numerals", "typical", "colors", "class_names"):
        assert getattr(figure, name) == getattr(other, name), name


def test_its_text_is_the_same_at_every_run(figure):
    assert repr(figure) == "LatentMap(200 codes)"
    assert repr(make_figure(drawn=50)) == "LatentMap(50 of 200 codes)"


@pytest.mark.parametrize(("name", "value"), [("walked", 0.9), ("start", [0, 0]), ("end", [1, 1])])
def test_the_picture_follows(figure, name, value):
    data, _ = figure._repr_mimebundle_()
    before = figure.picture()
    assert base64.b64decode(data["image/png"]) == before
    assert before.startswith(b"\x89PNG\r\n")
    setattr(figure, name, value)
    assert figure.picture() != before


def test_the_same_arguments_hand_over_the_same():
    one, other = make_figure().get_state(), make_figure().get_state()
    for name in set(one) - {"layout"}:
        assert one[name] == other[name], name
