"""From a request to stored tables.

In: what a notebook or the command line asks for: model, benchmark, edge sets, measures. Out: tidy tables in a results
folder, of which only missing rows are measured, with a manifest that says where they come from. May import
`instrument`, `models` and `inputs`, and the door of `embedded`.

The way goes through `request`, `folders` (what is missing), `measure` (one sample's rows, with `knockouts` and
`response`) and `store`, whose files `parts` writes; `runs.sweep` takes all of it. `workers` measure many samples at a
time, where `cluster` starts or finds Ray. Names below are imported on first use, so that whoever reads
tables does not wait for torch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "folders": ["results_dir"], "runs": ["Results", "example", "sweep"],
    "single_samples": ["instrument_checks", "open_routes"], "tables": ["read_manifest", "read_table"],
})  # fmt: skip
