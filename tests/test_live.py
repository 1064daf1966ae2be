"""The Python side of the live figures, and what the build makes of their state."""

import base64
import copy
import json
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import nbformat
import numpy as np
import pytest
import torch
import traitlets
from docutils import nodes
from hypothesis import given, settings
from hypothesis import strategies as st
from myst_nb.core.render import WIDGET_STATE_MIMETYPE, WIDGET_VIEW_MIMETYPE, MimeData
from nbconvert import HTMLExporter
from scipy.spatial import Delaunay
from torch import nn
from traitlets.config import Config

from evidence.live import CodeSpace
from evidence.live.code_space import decoder_layers, largest_holes
from evidence.plotting import CLASS_COLORS
from evidence_book import live_extension
from evidence_book.live_extension import LiveFigureNode, LiveRenderer, for_script

SIZE = 4
RNG = np.random.default_rng(0)
CODES = RNG.normal(size=(200, 2))
LABELS = RNG.integers(3, 6, size=200)


def make_decoder(outputs=SIZE * SIZE):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, outputs), nn.Sigmoid())


def make_figure(**changes):
    arguments = {"decoder": make_decoder(), "codes": CODES, "labels": LABELS, "size": SIZE}
    return CodeSpace(**{**arguments, **changes})


@pytest.fixture
def figure():
    return make_figure()


# --- what is handed over -----------------------------------------------------------------------


def test_layers_are_taken_in_order_and_weights_row_by_row():
    torch.manual_seed(1)
    decoder = nn.Sequential(
        nn.Linear(2, 3),
        nn.SiLU(),
        nn.Sequential(nn.Linear(3, 2, bias=False), nn.GELU()),
        nn.GELU(approximate="tanh"),
        nn.Tanh(),
        nn.Linear(2, 4),
    )
    layers, weights = decoder_layers(decoder, 4)
    assert [layer["kind"] for layer in layers] == [
        "linear", "silu", "linear", "gelu", "gelu_tanh", "tanh", "linear",
    ]  # fmt: skip
    assert layers[2] == {"kind": "linear", "inputs": 3, "outputs": 2, "bias": False}
    expected = torch.cat([parameter.flatten() for parameter in decoder.parameters()])
    given = np.frombuffer(weights, "<f2").astype(np.float32)
    np.testing.assert_array_equal(given, expected.detach().half().float().numpy())


def test_codes_survive_the_way_to_the_page(figure):
    steps = np.frombuffer(figure.codes, "<u2").reshape(-1, 2)
    plane = figure.plane
    codes = [plane["left"], plane["bottom"]] + steps / 65535 * plane["width"]
    order = np.random.default_rng(0).permutation(200)
    np.testing.assert_allclose(codes, CODES[order], atol=plane["width"] / 65535)
    classes = np.frombuffer(figure.classes, np.uint8)
    np.testing.assert_array_equal(classes + 3, LABELS[order])
    assert figure.class_names == ["3", "4", "5"]


def test_the_same_arguments_hand_over_the_same():
    one, other = make_figure().get_state(), make_figure().get_state()
    for name in set(one) - {"layout"}:
        assert one[name] == other[name], name


def test_state_is_small():
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 784), nn.Sigmoid())
    state = CodeSpace(decoder, RNG.normal(size=(9000, 2)), np.zeros(9000, int)).get_state()
    # Two bytes a weight, four a code, one a class.
    assert len(state["weights"]) == 2 * (3 * 64 + 65 * 784)
    assert len(state["codes"]) == 4 * 5000
    assert len(state["classes"]) == 5000


def test_the_plane_has_equal_units_and_holds_every_code():
    figure = make_figure(codes=CODES * [10, 1] + [100, -5])
    plane = figure.plane
    low = np.array([plane["left"], plane["bottom"]])
    codes = CODES * [10, 1] + [100, -5]
    assert (codes > low).all()
    assert (codes < low + plane["width"]).all()


def test_typical_codes_are_codes_of_their_class(figure):
    order = np.random.default_rng(0).permutation(200)
    for place, label in zip(figure.typical, (3, 4, 5), strict=True):
        own = CODES[order][LABELS[order] == label]
        assert np.linalg.norm(own - place, axis=1).min() < 1e-3
        median = np.median(own, axis=0)
        assert np.linalg.norm(np.array(place) - median) == pytest.approx(
            np.linalg.norm(own - median, axis=1).min(), abs=1e-3
        )


def test_numerals_stand_apart():
    # All classes have the same median.
    figure = make_figure(codes=np.repeat(CODES[:20], 10, axis=0), labels=np.tile(np.arange(10), 20))
    places = np.array(figure.numerals)
    gaps = np.linalg.norm(places[:, None] - places, axis=2)[~np.eye(10, dtype=bool)]
    assert gaps.min() > 0.05 * figure.plane["width"]


def test_far_is_a_quantile_of_distances_between_codes(figure):
    gaps = np.linalg.norm(CODES[:, None] - CODES, axis=2)
    np.fill_diagonal(gaps, np.inf)
    assert figure.far == pytest.approx(np.quantile(gaps.min(1), 0.99), abs=1e-3)


def contrast(color, other):
    """The ratio of contrast of two colours (WCAG 2.2)."""
    luminances = []
    for hue in (color, other):
        channels = np.array(matplotlib.colors.to_rgb(hue))
        curved = ((channels + 0.055) / 1.055) ** 2.4
        luminances.append(
            np.where(channels <= 0.04045, channels / 12.92, curved) @ [0.2126, 0.7152, 0.0722]
        )
    return (max(luminances) + 0.05) / (min(luminances) + 0.05)


def test_classes_keep_their_colours(figure):
    expected = [matplotlib.colors.to_hex(CLASS_COLORS[label]) for label in (3, 4, 5)]
    assert figure.colors["light"] == expected
    everything = make_figure(labels=np.arange(200) % 10)
    dark = everything.colors["dark"]
    assert len(set(dark)) == 10
    assert min(contrast(color, "#1d232a") for color in dark) > 3


# --- holes -------------------------------------------------------------------------------------


def test_a_known_hole_is_found():
    lattice = np.stack(np.meshgrid(np.arange(11.0), np.arange(11.0)), -1).reshape(-1, 2)
    from_middle = np.linalg.norm(lattice - [4, 6], axis=1)
    centres, radii = largest_holes(lattice[from_middle > 2.1], 3)
    # Of the codes around the hole, those one knight's move from (4, 6) are the nearest.
    np.testing.assert_allclose(centres[0], [4, 6], atol=1e-9)
    np.testing.assert_allclose(radii, [5**0.5, 0.5**0.5, 0.5**0.5])


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.integers(3, 60), st.integers(1, 8))
def test_holes_are_local_maxima_of_the_distance(seed, num_codes, count):
    codes = np.random.default_rng(seed).normal(size=(num_codes, 2))
    centres, radii = largest_holes(codes, count)
    assert 1 <= len(centres) == len(radii) <= count
    assert (np.diff(radii) <= 0).all()
    assert (Delaunay(codes).find_simplex(centres) >= 0).all()
    gaps = np.linalg.norm(centres[:, None] - codes, axis=2)
    np.testing.assert_allclose(gaps.min(1), radii)
    for i in range(1, len(centres)):
        assert (np.linalg.norm(centres[:i] - centres[i], axis=1) > radii[:i]).all()
    for centre, row, radius in zip(centres, gaps, radii, strict=True):
        equally_near = np.isclose(row, radius, rtol=1e-6).sum()
        assert equally_near >= 3 or np.allclose(centre, codes.mean(0))


def test_the_first_hole_of_a_figure_is_its_loneliest(figure):
    distances = []
    for place in figure.holes:
        figure.point = place
        distances.append(figure.nearest()[0])
    assert distances == sorted(distances, reverse=True)
    assert distances[0] == pytest.approx(figure.hole_radius)
    assert distances[0] > figure.far


# --- the point in Python -----------------------------------------------------------------------


def test_decoded_is_what_the_decoder_makes_of_the_point(figure):
    figure.point = [0.5, -1.0]
    with torch.no_grad():
        expected = make_decoder()(torch.tensor([[0.5, -1.0]])).reshape(SIZE, SIZE)
    torch.testing.assert_close(figure.decoded(), expected)


def test_training_the_decoder_further_changes_nothing():
    decoder = make_decoder()
    figure = make_figure(decoder=decoder)
    before = figure.decoded()
    with torch.no_grad():
        decoder[0].weight.zero_()
    torch.testing.assert_close(figure.decoded(), before)


def test_nearest_is_the_nearest(figure):
    figure.point = [0.3, 0.4]
    gaps = np.linalg.norm(CODES - figure.point, axis=1)
    distance, name = figure.nearest()
    assert distance == pytest.approx(gaps.min(), abs=1e-3)
    assert name == str(LABELS[gaps.argmin()])


def test_the_point_starts_at_a_typical_code_or_where_it_is_told(figure):
    assert figure.point == figure.typical[0]
    assert make_figure(point=(1, 2)).point == [1.0, 2.0]


@pytest.mark.parametrize("value", [[1e6, 0.0], [0.0, float("nan")], [0.0], [0.0, 0.0, 0.0], "ab"])
def test_a_point_outside_the_plane_is_refused(figure, value):
    before = figure.point
    with pytest.raises(traitlets.TraitError, match="point"):
        figure.point = value
    assert figure.point == before


# --- input that is refused ---------------------------------------------------------------------

WIDE = nn.Sequential(nn.Linear(3, SIZE * SIZE))
INFINITE = make_decoder()
INFINITE[0].bias.data[0] = 1e5


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"decoder": nn.Linear(2, 16)}, TypeError, "decoder is a Linear; an nn.Sequential"),
        ({"decoder": nn.Sequential(nn.Linear(2, 16), nn.ELU())}, TypeError, "layer 1 is a ELU"),
        ({"decoder": WIDE}, ValueError, "layer 0 takes 3 values, but the code has 2"),
        (
            {"decoder": nn.Sequential(nn.Linear(2, 4), nn.Sequential(nn.Linear(5, 16)))},
            ValueError,
            r"layer 1\.0 takes 5 values, but the output of layer 0 has 4",
        ),
        ({"decoder": make_decoder(15)}, ValueError, "gives 15 values; 16 are needed"),
        ({"decoder": INFINITE}, ValueError, r"bias of layer 0 reaches 1e\+05"),
        ({"codes": CODES[:, :1]}, ValueError, r"codes has shape \(200, 1\); accepted is \(N, 2\)"),
        ({"codes": CODES.astype(int)}, ValueError, "codes has dtype int64"),
        ({"codes": np.full((200, 2), np.nan)}, ValueError, "400 values that are not finite"),
        ({"codes": np.ones((200, 2))}, ValueError, "codes are all"),
        ({"codes": np.outer(np.arange(200.0), [1, 1])}, ValueError, "span no area"),
        ({"codes": CODES[:0], "labels": LABELS[:0]}, ValueError, "codes is empty"),
        ({"labels": LABELS[:5]}, ValueError, r"labels has shape \(5,\); accepted is \(200,\)"),
        ({"labels": LABELS.astype(float)}, ValueError, "labels has dtype float64"),
        ({"labels": LABELS + 5}, ValueError, r"labels holds \[ 8  9 10\]; whole numbers from 0"),
        ({"labels": LABELS - 4}, ValueError, r"labels holds \[-1  0  1\]"),
        ({"labels": np.r_[np.zeros(199, int), 1], "kept": 5}, ValueError, "kept is too small"),
        ({"kept": 2}, ValueError, "kept is 2; a whole number of 3 or more"),
        ({"drawn": 0}, ValueError, "drawn is 0"),
        ({"size": 4.0}, ValueError, r"size is 4\.0"),
    ],
)
def test_input_that_is_refused(changes, error, message):
    with pytest.raises(error, match=message):
        make_figure(**changes)


# --- how it shows ------------------------------------------------------------------------------


def test_its_text_is_the_same_at_every_run(figure):
    assert repr(figure) == "CodeSpace(200 codes)"
    assert repr(make_figure(kept=50)) == "CodeSpace(50 of 200 codes)"


def test_its_output_holds_text_picture_and_widget(figure):
    data, _ = figure._repr_mimebundle_()
    assert data["text/plain"] == repr(figure)
    assert data[WIDGET_VIEW_MIMETYPE]["model_id"] == figure.model_id
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG\r\n")


def test_nbconvert_shows_the_picture_if_told_to_keep_no_state(figure):
    data, metadata = figure._repr_mimebundle_()
    output = nbformat.v4.new_output("display_data", data, metadata=metadata)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=[output])])
    # As nbclient and JupyterLab leave it.
    state = {data[WIDGET_VIEW_MIMETYPE]["model_id"]: {"state": {}}}
    notebook.metadata["widgets"] = {WIDGET_STATE_MIMETYPE: {"version_major": 2, "state": state}}
    manager = "@jupyter-widgets/html-manager"
    plain, _ = HTMLExporter().from_notebook_node(copy.deepcopy(notebook))
    assert data["image/png"] not in plain
    assert manager in plain
    # The option that README.md names.
    settings = Config({"ClearMetadataPreprocessor": {"enabled": True}})
    told, _ = HTMLExporter(config=settings).from_notebook_node(notebook)
    assert f'src="data:image/png;base64,{data["image/png"]}"' in told
    assert manager not in told
    readme = Path(__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8")
    assert "--ClearMetadataPreprocessor.enabled=True" in readme


def test_the_picture_follows_the_point(figure):
    before = figure.picture()
    assert figure.picture() == before
    figure.point = figure.holes[0]
    assert figure.picture() != before


# --- what the build makes of it ----------------------------------------------------------------


class Renderer:
    """As much of myst-nb's renderer as the plug-in uses."""

    source = "page.md"

    def __init__(self, output, models):
        client = SimpleNamespace(
            code_cell_outputs=lambda index: (1, [{"text": "a stream"}, {"data": output}]),
            nb_metadata={"widgets": {WIDGET_STATE_MIMETYPE: {"state": models}}},
        )
        self.renderer = SimpleNamespace(
            nb_client=client, sphinx_env=SimpleNamespace(docname="page")
        )
        self.output = output

    def render_image(self, data):
        image = nodes.image(uri="picture.png")
        if "alt" in data.cell_metadata:
            image["alt"] = data.cell_metadata["alt"]
        return [image]

    def handle(self, mime_type, cell_metadata=None):
        data = MimeData(
            mime_type, self.output[mime_type], cell_metadata or {}, cell_index=0, line=7
        )
        return LiveRenderer.handle_mime(self, data, inline=False)


@pytest.fixture
def renderer(figure):
    figure.caption = "A <caption>."
    state = {**figure.get_state(), "layout": "IPY_MODEL_1", "tooltip": None}
    buffers = [
        {"encoding": "base64", "path": [name], "data": base64.encodebytes(state.pop(name)).decode()}
        for name in ("weights", "codes", "classes")
    ]
    models = {figure.model_id: {"state": state, "buffers": buffers}}
    return Renderer(figure._repr_mimebundle_()[0], models)


def test_a_figure_becomes_a_node_with_its_picture(renderer, figure):
    (node,) = renderer.handle(WIDGET_VIEW_MIMETYPE)
    assert isinstance(node, LiveFigureNode)
    assert node["kind"] == "code_space"
    assert node["caption"] == "A <caption>."
    assert live_extension._figure(node["module"], node["figure"]) is CodeSpace
    assert node.children[0]["alt"] == figure.alt
    assert "live-fallback" in node.children[0]["classes"]
    state = json.loads(node["state"])
    assert base64.b64decode(state["buffers"]["weights"]) == figure.weights
    assert state["values"]["point"] == figure.point
    assert not {"layout", "tooltip", "_esm", "_css"} & state["values"].keys()


def test_the_cells_own_alternative_text_comes_first(renderer):
    (node,) = renderer.handle(WIDGET_VIEW_MIMETYPE, {"alt": "Own words"})
    assert node.children[0]["alt"] == "Own words"


def test_the_picture_alone_is_described_for_other_builders(renderer, figure):
    (image,) = renderer.handle("image/png")
    assert image["alt"] == figure.alt


def test_other_pictures_are_left_alone():
    renderer = Renderer({"image/png": "AAAA"}, {})
    assert renderer.handle("image/png") is None


def test_a_stock_widget_is_reported(monkeypatch):
    warnings = []
    monkeypatch.setattr(
        live_extension.logger, "warning", lambda text, **rest: warnings.append((text, rest))
    )
    renderer = Renderer({WIDGET_VIEW_MIMETYPE: {"model_id": "a"}}, {"a": {"state": {}}})
    assert renderer.handle(WIDGET_VIEW_MIMETYPE) == []
    ((text, rest),) = warnings
    assert "does nothing in the built page" in text
    assert rest["location"] == ("page", 7)


@given(st.text())
def test_no_text_can_end_the_script_that_holds_it(text):
    written = for_script(json.dumps({"a": text + "</script><!--"}))
    assert "<" not in written
    assert json.loads(written) == {"a": text + "</script><!--"}
