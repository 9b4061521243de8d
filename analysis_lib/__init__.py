"""Where, layer by layer, does a Video LLM get its answer from?

The package measures information flow by cutting attention edges and reading what is left (`study.sweep`), and stores
tidy tables from which figures and claims are made. Names below are imported on first use, so that `import
analysis_lib` and the command line's help do not wait for torch.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "Clip": "inputs.records",
    "Results": "study.runs",
    "Sample": "inputs.records",
    "SampleError": "errors",
    "Skip": "inputs.records",
    "Store": "study.store",
    "StudyError": "errors",
    "example": "study.runs",
    "load_benchmark": "embedded.door",
    "load_clip": "inputs.videos",
    "load_model": "instrument.checks",
    "read_table": "study.tables",
    "results_dir": "study.provenance",
    "sweep": "study.runs",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
