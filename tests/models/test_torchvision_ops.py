"""torchvision beside any torch: importable, and its two declared operators stay unusable."""

import subprocess
import sys

import pytest

from analysis_lib import paths

FRESH = """
import torch
from analysis_lib.models.torchvision_ops import ensure_torchvision
found = ensure_torchvision()
assert found == ensure_torchvision()
from transformers import LlavaConfig
if found == "declared":
    from torchvision.transforms import InterpolationMode
    try:
        torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except NotImplementedError:
        found = "declared, and not callable"
print(found)
"""


@pytest.mark.slow
def test_import_in_a_fresh_interpreter():
    out = subprocess.run([sys.executable, "-c", FRESH], check=True, cwd=paths.ROOT, capture_output=True, text=True)
    assert out.stdout.strip() in ("own operators", "absent", "declared, and not callable")
