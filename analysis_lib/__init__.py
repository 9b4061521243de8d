"""Where, layer by layer, does a Video LLM get its answer from?

The package measures information flow by cutting attention edges and reading what is left (`study.sweep`), and stores
tidy tables from which figures and claims are made. Names below are imported on first use, so that `import
analysis_lib` and the command line's help do not wait for torch."""

import os

import lazy_loader

# Read by OpenMP when torch is imported: how long a thread that waits for another spins before it sleeps. With OpenMP's
# default a sweep on two cores took 4.3 s a question beside other work, with this 2.2 s; alone, 0.18 s either way.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "embedded.door": ["load_benchmark"], "errors": ["SampleError", "StudyError"],
    "inputs.records": ["Clip", "Sample", "Skip"], "inputs.videos": ["load_clip"],
    "instrument.checks": ["load_model"], "study.folders": ["results_dir"],
    "study.runs": ["Results", "example", "sweep"], "study.store": ["Store"], "study.tables": ["read_table"],
})  # fmt: skip
