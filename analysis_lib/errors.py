"""The two errors of the study: input that cannot be used at all, and one sample that cannot be used.

Both carry one line for the reader, which names the thing and the fix. The command line prints it. What another library
says of its failure is cut down to such a line."""


class StudyError(ValueError):
    """Input that stops a run: an unknown model, a folder without weights, settings that contradict stored results."""

    code = 2  # what the command line exits with


class SampleError(StudyError):
    """One sample that cannot be measured. The sweep records the reason in `skipped.parquet` and goes on."""


def reason_of(error: Exception) -> str:
    """Why another library failed, in one line: its message's first line, the next too where that one only leads to it;
    the error's kind where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
