"""All live figures in JupyterLab, where a figure and Python tell each other what changes."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import nbformat
import pytest
from browser import Record

from evidence.live.bound import LEAST_SIGMA

pytestmark = pytest.mark.browser

# Small, and not trained: what is looked at here is what passes between figure and kernel.
MODELS = """
import json
import numpy as np
import torch
from torch import nn
from evidence.diffusion.networks import VectorNetwork
from evidence.diffusion.prediction import NetworkDenoiser
from evidence.live import Bound, CodeSpace, Forward, Gradients, Jensen, LatentMap, Sampling

torch.manual_seed(0)
decoder = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 784), nn.Sigmoid())
codes, labels = np.random.default_rng(0).normal(size=(600, 2)), np.arange(600) // 60
denoiser = NetworkDenoiser(VectorNetwork(2, hidden=26, blocks=2, condition=8), "eps")
figures = {}
"""
FIGURES = {
    "CodeSpace": "decoder, codes, labels, point=(0.0, 0.0)",
    "Jensen": "",
    "Bound": "",
    "Gradients": "",
    "LatentMap": "decoder, codes, labels",
    "Forward": "",
    "Sampling": "denoiser",
}
# The key pressed on a slider of the figure, and what Python knows then.
PRESSED = {
    "CodeSpace": ("z₁ of", "Home", "figure.point[0] - figure.plane['left']", 0),
    "Jensen": ("Weight", "Home", "figure.weight", 0),
    "Bound": ("Width of q", "Home", "figure.sigma", LEAST_SIGMA),
    "Gradients": ("Mean of q", "End", "figure.mu", 2),
    "LatentMap": ("How far walked", "End", "figure.walked", 1),
    "Forward": ("Time t over T", "End", "figure.share", 1),
    "Sampling": ("Number of steps", "Home", "figure.num_steps", 5),
}
# What Python sets, and the slider that shows it.
SET = {
    "CodeSpace": ("point", [0.5, -0.25], "z₁ of"),
    "Jensen": ("weight", 0.25, "Weight"),
    "Bound": ("mu", -0.5, "Mean of q"),
    "Gradients": ("sigma", 0.75, "Width of q"),
    "LatentMap": ("walked", 0.5, "How far walked"),
    "Forward": ("share", 0.25, "Time t over T"),
    "Sampling": ("num_steps", 20, "Number of steps"),
}
CELLS = [
    MODELS,
    *(
        f"figures[{name!r}] = {name}({arguments})\nfigures[{name!r}]"
        for name, arguments in FIGURES.items()
    ),
    # Run by a test, once it has moved the figures.
    "print(json.dumps({name: eval(what, {'figure': figures[name]}) for name, what in "
    f"{ ({name: what for name, (_, _, what, _) in PRESSED.items()})!r}.items()}}))",
    "\n".join(f"figures[{name!r}].{trait} = {value}" for name, (trait, value, _) in SET.items()),
]
REPORT, SETTER = len(CELLS) - 2, len(CELLS) - 1
# Nothing is to be asked of Jupyter's own site.
SETTINGS = {
    "IdentityProvider": {"token": ""},
    "LabApp": {
        "news_url": None,
        "check_for_updates_class": "jupyterlab.handlers.announcements.NeverCheckForUpdate",
        "expose_app_in_browser": True,
    },
}
RUN = """async ([first, last]) => {
  const { commands, shell } = jupyterapp;
  const { content, sessionContext } = shell.currentWidget;
  await sessionContext.ready;
  for (let i = first; i <= last; i++) {
    content.activeCellIndex = i;
    await commands.execute("notebook:run-cell");
  }
}"""
OUTPUT = """index => {
  const { content } = jupyterapp.shell.currentWidget;
  return content.widgets[index].model.outputs.toJSON();
}"""
ACTIVE = "jupyterapp.shell.currentWidget.content.activeCellIndex"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """JupyterLab with a notebook of all live figures; its own settings, not those of the user."""
    folder, root = tmp_path_factory.mktemp("jupyter"), tmp_path_factory.mktemp("lab")
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in CELLS],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    nbformat.write(notebook, root / "figures.ipynb")
    (folder / "jupyter_lab_config.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    own = {f"JUPYTER_{kind}_DIR": str(folder) for kind in ("CONFIG", "DATA", "RUNTIME")}
    port = free_port()
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    with (folder / "log").open("w", encoding="utf-8") as log:
        lab = subprocess.Popen(
            command, cwd=root, env={**os.environ, **own}, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(address, lab, folder / "log")
            yield address
        finally:
            lab.terminate()
            lab.wait(timeout=30)


def wait_for(address, lab, log, seconds=120):
    for _ in range(10 * seconds):
        assert lab.poll() is None, log.read_text(encoding="utf-8")
        try:
            with urllib.request.urlopen(f"{address}/api"):
                return
        except urllib.error.URLError:
            time.sleep(0.1)
    pytest.fail(log.read_text(encoding="utf-8"))


class Lab:
    """The notebook, open in a window so high that all its cells are drawn."""

    def __init__(self, page, address):
        self.page = page
        self.record = Record(page, address)
        page.goto(f"{address}/lab/tree/figures.ipynb")
        page.wait_for_function("window.jupyterapp?.shell.currentWidget?.content?.widgets")
        page.evaluate("jupyterapp.restored")
        self.run(0, len(FIGURES))

    def run(self, first, last):
        self.page.evaluate(RUN, [first, last])

    def output(self, index):
        return self.page.evaluate(OUTPUT, index)

    def figure(self, name):
        index = 1 + list(FIGURES).index(name)
        return self.page.locator(f"[data-windowed-list-index='{index}'] .live-root")

    def slider(self, name, label):
        return self.figure(name).get_by_role("slider", name=label).first


@pytest.fixture(scope="module")
def lab(chromium, address):
    context = chromium.new_context(
        viewport={"width": 1280, "height": 7000}, reduced_motion="reduce"
    )
    context.set_default_timeout(60_000)
    yield Lab(context.new_page(), address)
    context.close()


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_drawn(lab, name):
    lab.figure(name).locator(".live-ticks text").first.wait_for()


def test_what_a_reader_moves_changes_in_python(lab):
    for index, (name, (label, key, _, _)) in enumerate(PRESSED.items(), start=1):
        # JupyterLab, which goes to the next cell by this key, leaves it to the figure.
        lab.slider(name, label).press("ArrowDown")
        lab.slider(name, label).press(key)
        assert lab.page.evaluate(ACTIVE) == index
    lab.run(REPORT, REPORT)
    (output,) = lab.output(REPORT)
    assert json.loads(output["text"]) == pytest.approx(
        {name: value for name, (_, _, _, value) in PRESSED.items()}, abs=1e-9
    )


def test_what_python_sets_is_shown(lab):
    lab.run(SETTER, SETTER)
    assert lab.output(SETTER) == []
    for name, (_, value, label) in SET.items():
        shown = lab.slider(name, label)
        goal = value[0] if isinstance(value, list) else value
        lab.page.wait_for_function(
            "([slider, goal]) => Math.abs(slider.value - goal) < 1e-6",
            arg=[shown.element_handle(), goal],
        )


def test_nothing_goes_wrong_and_nothing_is_asked_of_another_host(lab):
    assert lab.record.faults == []
    assert lab.record.foreign == []
