"""What tests of the instrument share: the conditions of a sweep on the tiny checkpoint, and a count of hooks."""

from analysis_lib.instrument.edges import EDGE_SETS, blocked_edges, windows
from analysis_lib.instrument.knockout import Condition


def sweep(inputs, names=EDGE_SETS, k=3, style="center"):
    """One condition per edge set and window of the twelve layers."""
    blocked = {name: blocked_edges(name, inputs.roles) for name in names}
    return [Condition(name, window, blocked[name]) for name in names for window in windows(12, k, style)]


def all_hooks(vlm):
    """How many hooks the model's modules have."""
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in vlm.hf.modules())
