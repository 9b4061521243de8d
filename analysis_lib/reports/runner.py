"""Runs one notebook with checked parameters and writes an executed copy that is the same every time.

papermill replaces the values of a notebook's parameter cell and executes it in a fresh kernel. This module makes it
strict: parameters are checked before a kernel starts; the kernel is this very interpreter, whatever the machine has
registered, in the caller's folder; what changes from run to run (times, paths, random cell ids) is removed."""

import ast
import logging
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat

from analysis_lib.errors import StudyError
from analysis_lib.paths import write_atomic

TYPES = ("str", "int", "float", "bool")
YES_NO = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
VOLATILE = ("papermill", "widgets", "execution", "collapsed", "scrolled")  # metadata of notebooks and cells
BAR_TIMES = re.compile(r"\s*\[\d+:\d+[^\]\n]*\]")  # the `[00:03<00:00, 9.7it/s]` of a progress bar
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class NotebookFailed(StudyError):
    """A notebook stopped, and not because its input was bad."""

    code = 1


def parameters_of(notebook: Path) -> dict[str, str | int | float | bool]:
    """The defaults of the parameters that a notebook takes, by name, in the order of its cell tagged `parameters`.
    Raises StudyError when there is not exactly one such cell, or it holds anything but typed plain values."""
    sources = [cell.source for cell in read(notebook).cells if "parameters" in cell.metadata.get("tags", [])]
    if len(sources) != 1:
        raise StudyError(f"{notebook.name}: {len(sources)} cells are tagged `parameters`; exactly one is needed")
    defaults = {}
    for node in ast.parse(sources[0]).body:
        try:
            name, kind, default = node.target.id, node.annotation.id, ast.literal_eval(node.value)
            if kind not in TYPES or type(default).__name__ != kind:
                raise TypeError
        except (AttributeError, TypeError, ValueError):
            line = sources[0].splitlines()[node.lineno - 1]
            message = f"{notebook.name}: `{line}` in the parameter cell must read `name: type = value  # comment`"
            raise StudyError(f"{message}, with a type out of {', '.join(TYPES)}") from None
        defaults[name] = default
    return defaults


def check_parameters(notebook: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given values in the types that the notebook declares; text from a command line is converted. Raises
    StudyError for a name that the notebook does not take, and for a value that is not of its type."""
    defaults, values = parameters_of(notebook), {}
    for name, value in given.items():
        if name not in defaults:
            raise StudyError(f"{notebook.name}: unknown parameter {name}; it takes {', '.join(defaults)}")
        kind = type(defaults[name])
        try:
            if type(value) not in (str, kind) and (type(value), kind) != (int, float):
                raise TypeError
            values[name] = YES_NO[str(value).lower()] if kind is bool else kind(value)
        except (KeyError, TypeError, ValueError):
            raise StudyError(f"{notebook.name}: parameter {name} takes {kind.__name__}, not {value!r}") from None
    return values


def read(notebook: Path) -> nbformat.NotebookNode:
    """The notebook in nbformat 4; StudyError when it is missing or not a notebook."""
    try:
        return nbformat.read(notebook, as_version=4)
    except (OSError, ValueError) as error:  # nbformat's own errors are ValueErrors
        raise StudyError(f"cannot read the notebook {notebook}: {str(error).splitlines()[0]}") from None


def _kernel_manager(scratch: str) -> type:
    """A kernel manager that starts this interpreter, with a private IPython folder and inline figures."""
    from ipykernel.kernelspec import get_kernel_dict  # heavy
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    # A start-up script of the user, MPLBACKEND left over in the shell or the order of a set must not change a notebook.
    environment = {"IPYTHONDIR": scratch, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    environment |= {"PYTHONHASHSEED": "0", "PYTHONWARNINGS": "ignore:IProgress"}  # a warning that names local paths

    class ThisInterpreter(AsyncKernelManager):
        # the kernel's own log only says that it talks over TCP and that it was asked to stop
        kernel_spec = KernelSpec(**get_kernel_dict(extra_arguments=["--log-level=CRITICAL"]), env=environment)

    return ThisInterpreter


def run_notebook(notebook: Path, parameters: Mapping[str, Any], target: Path) -> None:
    """Execute `notebook` with `parameters` and write the executed copy to `target`. Raises StudyError when its input is
    bad, wrong parameters before a kernel starts, and NotebookFailed when a cell raises anything else or the kernel
    dies. A copy with the error is kept as `<name>.failed.ipynb` beside `target`."""
    import papermill  # heavy
    from nbclient.exceptions import DeadKernelError

    logging.getLogger("papermill").setLevel(logging.ERROR)  # it warns of parameters that it cannot parse; we have
    values = check_parameters(notebook, parameters)
    failed = target.with_suffix(".failed.ipynb")
    failed.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "notebook.ipynb"
        try:
            papermill.execute_notebook(
                read(notebook), copy, values, kernel_name="python3", language="python", progress_bar=False,
                kernel_manager_class=_kernel_manager(scratch), coalesce_streams=True,
            )  # fmt: skip
        except papermill.PapermillExecutionError as error:
            _keep(copy, failed)
            line = (ANSI.sub("", error.evalue).strip().splitlines() or [""])[-1]  # the last that Python would print
            bad_input = error.ename in ("StudyError", "SampleError")
            kind, what = (StudyError, line) if bad_input else (NotebookFailed, f"{error.ename}: {line}".rstrip(": "))
            raise kind(f"{notebook.name}, In [{error.exec_count}]: {what} (kept as {failed})") from None
        except DeadKernelError:
            cause = "its kernel died, most often for want of memory; fewer SAMPLES or TASKS need less"
            raise NotebookFailed(f"{notebook.name}: {cause}") from None
        _keep(copy, target)


def _lift_summary(nb: nbformat.NotebookNode) -> None:
    """Move what the cell tagged `summary` said, the last to run, to the top, under the title."""
    for cell in [cell for cell in nb.cells if "summary" in cell.metadata.get("tags", [])]:
        texts = [output.data["text/markdown"] for output in cell.outputs if "text/markdown" in output.get("data", {})]
        cell.outputs = [output for output in cell.outputs if "text/markdown" not in output.get("data", {})]
        nb.cells[1:1] = [nbformat.v4.new_markdown_cell(text, id=f"summary-{i}") for i, text in enumerate(texts)]


def _keep(copy: Path, target: Path) -> None:
    """Write an executed notebook to `target`, without what differs from run to run although nothing changed."""
    nb = read(copy)
    _lift_summary(nb)
    for position, part in enumerate([nb, *nb.cells]):
        tag = next(iter(part.metadata.get("tags", [])), "")
        if tag.startswith(("injected-parameters", "papermill")):
            part.id = f"{tag}-{position}"  # papermill draws these at random
        for key in VOLATILE if tag else (*VOLATILE, "tags"):  # papermill adds empty lists of tags
            part.metadata.pop(key, None)
        for output in [output for output in part.get("outputs", []) if output.get("name") == "stderr"]:
            output.text = BAR_TIMES.sub("", output.text)
            if not output.text.strip():
                part.outputs.remove(output)
    write_atomic(target, f"{nbformat.writes(nb)}\n".encode())
