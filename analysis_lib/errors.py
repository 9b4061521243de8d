"""The two errors of the study: input that cannot be used at all, and one sample that cannot be used.

Both carry one line for the reader, which names the thing and the fix. The command line prints it."""


class StudyError(ValueError):
    """Input that stops a run: an unknown model, a folder without weights, settings that contradict stored results."""

    code = 2  # what the command line exits with


class SampleError(StudyError):
    """One sample that cannot be measured. The sweep records the reason in `skipped.parquet` and goes on."""
