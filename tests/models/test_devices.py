"""The device of a model: digits and memory are kept."""

import ctypes
import resource

import pytest
import torch

from analysis_lib.instrument.checks import load_model
from analysis_lib.models import devices


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library")
def test_memory_that_tensors_free_is_used_again(tiny_model_dir):
    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(10 << 20)  # 40 MiB, which glibc by itself takes from the system anew each time
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    load_model(str(tiny_model_dir))
    # The system takes pages back for reasons of its own, so the best of some tries counts.
    assert min(faults() for _ in range(9)) < 1000  # of 10,240 pages


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_float32_on_a_gpu_is_no_tf32(dtype):
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [part.allow_tf32 for part in flags]
    try:
        for part in flags:
            part.allow_tf32 = True
        devices.keep_digits(torch.device("cpu"), dtype)
        assert all(part.allow_tf32 for part in flags)
        devices.keep_digits(torch.device("cuda"), dtype)
        rounds = dtype != torch.float32  # other formats round more anyhow
        assert [part.allow_tf32 for part in flags] == [rounds, rounds]
    finally:
        for part, was in zip(flags, before, strict=True):
            part.allow_tf32 = was
