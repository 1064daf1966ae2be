"""What takes long to import is imported where it is used: whoever does without need not wait."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

COSTLY = ("sympy", "scipy", "sklearn", "torch._dynamo")
REPORT = f"import json, sys; print(json.dumps([n for n in {COSTLY} if n in sys.modules]))"

USES = {
    "claims": """
from evidence.claims import exact
import numpy as np
exact("a", "1 = 1", np.ones(9), np.ones(9), wrong={"2": 2 * np.ones(9)})
""",
    "diffusion": """
import torch
from evidence.diffusion import bound, flow_matching, guidance, losses, networks, sampling, schedule
from evidence.diffusion.prediction import NetworkDenoiser
model = NetworkDenoiser(networks.VectorNetwork(2, 4, 1))
chain = schedule.linear(3, 0.1, 0.4)
sampling.ancestral(model, (2, 2), chain, torch.Generator())
""",
    "networks trained once": """
import evidence.diffusion.trained, evidence.digit_models, evidence.training
""",
    "live figures": """
from evidence.live import Jensen
""",
    "the rest": """
import evidence.estimators, evidence.inference_gap, evidence.latent_use, evidence.likelihood
import evidence.objectives, evidence.plotting, evidence.toys, evidence.two_samples
""",
}


@pytest.mark.parametrize("use", USES)
def test_nothing_costly_is_imported_in_vain(use):
    run = subprocess.run(
        [sys.executable, "-c", USES[use] + REPORT], capture_output=True, text=True, check=True
    )
    assert json.loads(run.stdout.splitlines()[-1]) == []
