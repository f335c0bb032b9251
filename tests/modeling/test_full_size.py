"""Full-size transformers train one iteration at batch 8 on a CPU.

`pytest -s -m recipes tests/modeling/test_full_size.py` prints time and peak memory.
"""

import json
import subprocess
import sys

import pytest

STEP = """
import json, resource, sys, time
import torch
import torch.nn.functional as F
from ember_reid.config import load_config
from ember_reid.modeling import build_model

torch.manual_seed(0)
words = ["MODEL.BACKBONE.NAME", sys.argv[1], "MODEL.BACKBONE.WEIGHTS", "none"]
model = build_model(load_config(None, words), num_classes=751)
optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
images, pids = torch.rand(8, 3, 256, 128), torch.arange(8)
before = [p.detach().clone() for p in model.parameters() if p.requires_grad]
start = time.perf_counter()
loss = F.cross_entropy(model(images).logits[0], pids)
loss.backward()
optimizer.step()
seconds = time.perf_counter() - start
after = [p for p in model.parameters() if p.requires_grad]
unchanged = sum(torch.equal(a, b) for a, b in zip(before, after))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"loss": loss.item(), "unchanged": unchanged, "seconds": seconds, "MiB": peak}))
"""


@pytest.mark.recipes
@pytest.mark.parametrize("name", ["timm:vit_small_patch16_224", "solider_swin_tiny"])
def test_a_full_size_network_trains_an_iteration_on_a_cpu(name):
    run = subprocess.run([sys.executable, "-c", STEP, name], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    measured = json.loads(run.stdout.splitlines()[-1])
    print(f"{name}: {measured['seconds']:.1f} s, {measured['MiB']:.0f} MiB")
    # ln 751 = 6.62: the classifier starts with small weights.
    assert measured["loss"] == pytest.approx(6.62, abs=0.3)
    # AdamW moves every parameter.
    assert measured["unchanged"] == 0
    assert measured["MiB"] < 4096
