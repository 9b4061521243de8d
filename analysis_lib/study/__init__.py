"""From a request to stored tables.

In: what a notebook or the command line asks for: model, benchmark, edge sets, measures. Out: tidy tables in a results
folder, of which only missing rows are measured, with a manifest that says where they come from. May import
`instrument`, `models` and `inputs`, and the door of `embedded`. Names below are imported on first use, so that whoever
reads tables does not wait for torch.
"""

from importlib import import_module
from typing import Any

_HOME = dict.fromkeys(("MEASURES", "Results", "example", "keywords", "sweep"), "runs")
_HOME |= {"results_dir": "provenance", "instrument_checks": "single_samples", "open_routes": "single_samples"}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
