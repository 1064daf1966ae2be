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
x = np.random.default_rng(0).normal(size=100)
exact("eq-a", "a thing is itself", x, 1 * x, wrong={"doubled": 2 * x})
""",
    "diffusion": """
import torch
from evidence.diffusion import bound, clouds, flow_matching, guidance, losses, networks
from evidence.diffusion import sampling, schedule
data, generator = clouds.mixture(), torch.Generator()
sampling.ancestral(data, data.sample(2, generator), schedule.linear(3, 0.1, 0.4), generator)
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
