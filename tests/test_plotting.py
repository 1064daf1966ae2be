import itertools
import re
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex, to_rgb

from evidence import plotting

CSS = Path(__file__).parents[1] / "src" / "evidence_book" / "static" / "evidence.css"
# What the colour-blind see of linear RGB, complete absence of one kind of cone (Machado, Oliveira
# and Fernandes 2009, table 1).
SIGHT = {
    "all": np.eye(3),
    "without red": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "without green": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "without blue": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


@pytest.fixture(autouse=True)
def fresh_style():
    with mpl.rc_context():
        yield
    plt.close("all")


def linear(color):
    """Linear RGB of a colour."""
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def luminance(color):
    return linear(color) @ [0.2126, 0.7152, 0.0722]


def lab(rgb):
    """CIE L*a*b* (D65) of linear RGB, in which distances are about those that are seen."""
    to_xyz = [[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]]
    xyz = to_xyz @ rgb / [0.9505, 1.0, 1.0888]
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


def contrast(one, other):
    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


# Colours


@pytest.mark.parametrize("sight", SIGHT)
def test_roles_are_told_apart_also_by_the_colour_blind(sight):
    seen = {
        role: lab(np.clip(np.array(SIGHT[sight]) @ linear(color), 0, 1))
        for role, color in plotting.COLORS.items()
    }
    near = min(
        itertools.combinations(seen, 2), key=lambda p: np.linalg.norm(seen[p[0]] - seen[p[1]])
    )
    # Differences of 2 are just seen.
    assert np.linalg.norm(seen[near[0]] - seen[near[1]]) > 17, near


def test_roles_are_told_apart_in_grey_print():
    lightness = sorted(lab(linear(color))[0] for color in plotting.COLORS.values())
    assert min(np.diff(lightness)) > 5


@pytest.mark.parametrize("role", plotting.COLORS)
def test_a_line_stands_out_from_the_paper(role):
    assert contrast(plotting.COLORS[role], plotting.PAPER) >= 3  # WCAG 1.4.11


def test_roles_cannot_be_changed_by_a_page():
    with pytest.raises(TypeError):
        plotting.COLORS["model"] = "red"


def test_the_pages_have_the_same_colours():
    light = CSS.read_text(encoding="utf-8").split('html[data-theme="dark"]')[0]
    declared = dict(re.findall(r"--ev-(\w+): (#\w+);", light))
    assert {role: declared[role] for role in plotting.COLORS} == dict(plotting.COLORS)
    assert declared["paper"] == plotting.PAPER


# Style


def test_style_is_the_same_when_set_twice():
    plotting.use_style()
    once = dict(mpl.rcParams)
    plotting.use_style()
    assert dict(mpl.rcParams) == once


def test_style_shows_on_a_saved_figure(tmp_path):
    plotting.use_style()
    figure, ax = plt.subplots()
    lines = [ax.plot([0, 1], [0, n])[0] for n in range(7)]
    assert {to_hex(line.get_color()) for line in lines} == set(plotting.COLORS.values())
    assert not ax.spines["top"].get_visible()
    figure.savefig(tmp_path / "figure.png")
    pixels = plt.imread(tmp_path / "figure.png")
    assert to_hex(pixels[0, 0, :3]) == plotting.PAPER
    assert (pixels[..., 3] == 1).all()
    assert pixels.shape[1] == pytest.approx(192 * 6.4, rel=0.05)


# Pictures


def drawn(ax):
    """The pictures of a grid: their pixels, and the edges left, right, bottom, top."""
    return [(np.asarray(image.get_array()), image.get_extent()) for image in ax.images]


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 12),
    columns=st.integers(1, 15),
    shape=st.sampled_from([(4,), (2, 2), (2, 3), (3, 2)]),
)
def test_grid_shows_every_picture_once_in_rows(count, columns, shape):
    images = np.random.default_rng(0).uniform(size=(count, *shape))
    before = images.copy()
    found = drawn(plotting.image_grid(images, columns=columns))
    plt.close("all")
    assert np.array_equal(images, before)
    assert len(found) == count
    height, width = (2, 2) if shape == (4,) else shape
    for index, (picture, (left, right, bottom, top)) in enumerate(found):
        assert np.array_equal(picture, images[index].reshape(height, width))
        assert (right - left, bottom - top) == pytest.approx((width, height))
        row, column = divmod(index, min(columns, count))
        assert (left > 0, top > 0) == (column > 0, row > 0)
        if column > 0:
            assert left > found[index - 1][1][1]  # a gap
        if row > 0:
            assert top > found[index - min(columns, count)][1][2]


def test_grid_keeps_the_axes_given():
    _, axes = plt.subplots(1, 2)
    assert plotting.image_grid(np.zeros((2, 4)), columns=2, ax=axes[1]) is axes[1]
    assert len(axes[0].images) == 0


def test_grid_of_a_tensor_that_is_still_being_trained():
    images = torch.rand(2, 9, requires_grad=True)
    pictures = drawn(plotting.image_grid(images, columns=2))
    assert np.array_equal(pictures[1][0].ravel(), images[1].detach().numpy())


def test_nothing_is_darker_than_ink_or_lighter_than_white():
    ax = plotting.image_grid(np.array([[-1.0, 3.0, 0, 0]]), columns=1, limits=(-1, 3))
    (image,) = ax.images
    assert to_hex(image.to_rgba(-1.0)) == "#ffffff"
    assert to_hex(image.to_rgba(3.0)) == plotting.COLORS["data"]
    half = np.mean([to_rgb("white"), to_rgb(plotting.COLORS["data"])], axis=0)
    assert image.to_rgba(1.0)[:3] == pytest.approx(half, abs=0.01)


def test_a_grid_is_no_wider_than_its_pictures():
    three, room_for_ten = (
        plotting.image_grid(np.zeros((3, 4)), columns=columns).figure for columns in (3, 10)
    )
    assert tuple(room_for_ten.get_size_inches()) == tuple(three.get_size_inches())
    full = plotting.image_grid(np.zeros((90, 4)), columns=30).figure
    assert full.get_size_inches()[0] <= plotting.WIDTH


@pytest.mark.parametrize(("count", "titles"), [(6, 3), (6, 6), (2, 2)])
def test_titles_stand_over_their_pictures(count, titles):
    names = [f"title {index}" for index in range(titles)]
    ax = plotting.image_grid(np.zeros((count, 16)), columns=3, titles=names)
    ax.figure.canvas.draw()
    for name, text, (_, (left, right, _, top)) in zip(names, ax.texts, drawn(ax), strict=False):
        assert text.get_text() == name
        assert text.xy == ((left + right) / 2, top)
    # None lies upon a picture of the row above.
    boxes = [text.get_window_extent() for text in ax.texts]
    pictures = [image.get_window_extent() for image in ax.images]
    assert not any(box.overlaps(picture) for box in boxes for picture in pictures)


def test_row_labels_stand_beside_their_rows():
    ax = plotting.image_grid(np.zeros((5, 16)), columns=2, row_labels=["a", "b", "c"])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "c"]
    edges = [extent for _, extent in drawn(ax)]
    middles = [(edges[index][2] + edges[index][3]) / 2 for index in (0, 2, 4)]
    assert ax.get_yticks() == pytest.approx(middles)


@pytest.mark.parametrize("is_flat", [True, False])
def test_grid_shows_colour_and_oblong_pictures(is_flat):
    # Red above, green at the left below, blue beside it: channels first, 4 high and 6 wide.
    picture = np.zeros((3, 4, 6))
    picture[0, :2], picture[1, 2:, :3], picture[2, 2:, 3:] = 1, 1, 1
    images = np.stack([picture, picture / 2])
    ax = plotting.image_grid(
        images.reshape(2, -1) if is_flat else images,
        columns=2,
        shape=(3, 4, 6) if is_flat else None,
        limits=(-1, 1),
    )
    first, second = (image.get_array() for image in ax.images)
    assert first.shape == (4, 6, 3)
    # From -1 to 1, so that 0 is half of a colour.
    assert first[0, 5].tolist() == [1, 0.5, 0.5]
    assert first[3, 0].tolist() == [0.5, 1, 0.5]
    assert first[3, 5].tolist() == [0.5, 0.5, 1]
    assert second[0, 0].tolist() == [0.75, 0.5, 0.5]
    left, right, bottom, top = ax.images[0].get_extent()
    assert (right - left, bottom - top) == (6, 4)


def test_grid_shows_grey_pictures_of_any_shape_as_those_with_one_channel():
    images = np.random.default_rng(0).random((3, 4, 6))
    grids = [
        plotting.image_grid(images, columns=3),
        plotting.image_grid(images[:, None], columns=3),
        plotting.image_grid(images.reshape(3, 24), columns=3, shape=(4, 6)),
    ]
    for ax in grids:
        assert np.array_equal([image.get_array() for image in ax.images], images)
        assert all(image.cmap is plotting.INK for image in ax.images)


@pytest.mark.parametrize(
    ("images", "options", "error", "words"),
    [
        (np.zeros((2, 5)), {}, ValueError, r"images.*\(2, 5\).*not a square"),
        (np.zeros(4), {}, ValueError, r"images.*\(4,\)"),
        (np.zeros((0, 4)), {}, ValueError, r"images.*\(0, 4\)"),
        (np.zeros((1, 2, 2, 2)), {}, ValueError, r"images.*\(1, 2, 2, 2\).*1 or 3 channels"),
        (np.zeros((1, 2, 2, 3)), {}, ValueError, r"images.*\(1, 2, 2, 3\).*1 or 3 channels"),
        (np.zeros((2, 6)), {"shape": (3, 3)}, ValueError, r"shape: expected .* 6 pixels, got"),
        (np.zeros((2, 6)), {"shape": (6,)}, ValueError, r"shape: expected .*, got \(6,\)"),
        (np.zeros((2, 3, 2)), {"shape": (2, 3)}, ValueError, r"expected .*\(3, 2\), got \(2, 3\)"),
        (np.array([[np.nan] * 4]), {}, ValueError, "images has 4 values not finite"),
        (np.full((1, 4), 1.5), {}, ValueError, r"images.*1\.5 to 1\.5.*clip"),
        (np.full((1, 4), -0.5), {}, ValueError, r"images.*-0\.5"),
        (np.full((1, 4), "a"), {}, ValueError, "images has the type"),
        (np.zeros((1, 4)), {"columns": 0}, ValueError, "columns is 0"),
        (np.zeros((1, 4)), {"columns": 2.0}, TypeError, "columns is 2.0"),
        (np.zeros((1, 4)), {"columns": True}, TypeError, "columns is True"),
        (np.zeros((4, 4)), {"titles": ["one"]}, ValueError, "titles has 1 texts.* 2 .* 4 "),
        (np.zeros((4, 4)), {"row_labels": ["one"]}, ValueError, "row_labels has 1.* 2 rows"),
        (np.zeros((4, 4)), {"limits": (1, 0)}, ValueError, r"limits is \(1, 0\)"),
        (np.zeros((4, 4)), {"limits": (0, np.inf)}, ValueError, "limits"),
    ],
)
def test_grid_refuses(images, options, error, words):
    with pytest.raises(error, match=words):
        plotting.image_grid(images, **{"columns": 2, **options})
    assert plt.get_fignums() == []  # no half-drawn figure is left for the page to show


# Codes


def test_codes_are_coloured_by_class_and_labelled_at_their_medians():
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 3, 9], 50)
    codes = rng.normal(size=(150, 2)) + labels[:, None]
    _, ax = plt.subplots()
    assert plotting.scatter_codes(ax, torch.tensor(codes), torch.tensor(labels)) is ax
    (points,) = ax.collections
    pairs = zip(points.get_offsets(), points.get_facecolors(), strict=True)
    color_of = {tuple(xy): to_hex(color) for xy, color in pairs}
    for xy, label in zip(codes, labels, strict=True):
        assert color_of[tuple(xy)] == plotting.CLASS_COLORS[label]
    assert [text.get_text() for text in ax.texts] == ["0", "3", "9"]
    for text, label in zip(ax.texts, (0, 3, 9), strict=True):
        assert text.get_position() == pytest.approx(np.median(codes[labels == label], axis=0))


def test_no_class_of_sorted_data_hides_another():
    labels = np.repeat([0, 1], 100)
    _, ax = plt.subplots()
    plotting.scatter_codes(ax, np.arange(400.0).reshape(200, 2), labels)
    order = np.asarray(ax.collections[0].get_offsets())[:, 0]
    assert 20 < sum(order[:100] < 200) < 80


@pytest.mark.parametrize(
    ("codes", "labels", "words"),
    [
        (np.zeros((3, 3)), np.zeros(3), r"codes has the shape \(3, 3\)"),
        (np.zeros((0, 2)), np.zeros(0), r"codes has the shape \(0, 2\)"),
        (np.zeros((3, 2)), np.zeros(2), r"labels has the shape \(2,\)"),
        (np.zeros((3, 2)), np.zeros((3, 1)), r"labels has the shape \(3, 1\)"),
        (np.zeros((3, 2)), np.array([0, 1, 10]), "labels holds"),
        (np.zeros((3, 2)), np.array([0, 1, 0.5]), "labels holds"),
        (np.zeros((3, 2)), np.array([0, 1, -1]), "labels holds"),
        (np.full((3, 2), np.inf), np.zeros(3), "codes has 6 values not finite"),
    ],
)
def test_codes_refused(codes, labels, words):
    _, ax = plt.subplots()
    with pytest.raises(ValueError, match=words):
        plotting.scatter_codes(ax, codes, labels)
    assert len(ax.collections) == 0


def test_class_colours_are_told_apart():
    seen = [lab(linear(color)) for color in plotting.CLASS_COLORS]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 17
