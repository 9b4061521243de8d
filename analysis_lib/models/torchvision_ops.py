"""Makes `import torchvision` work beside a torch build that torchvision's compiled operators do not fit.

The registry's torchvision wheel is compiled against the registry's torch. Beside a CPU-only torch its shared library
does not load, and then its Python half stops at two operator names that nobody defined. transformers imports
torchvision for plain image transforms only, which need neither operator. So the two names are declared, without an
implementation, and only after an import has failed for want of them. Calling either still fails, loudly, as it should.
"""

import importlib.util

_declared = []  # keeps the torch.library handle alive: its operators vanish with it


def ensure_torchvision() -> str:
    """Import torchvision, declaring its two missing operators if need be. Returns what was found: "own operators",
    "declared", or "absent" (transformers then works without it)."""
    if importlib.util.find_spec("torchvision") is None:
        return "absent"
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        from torch.library import Library  # here: a name is checked without torch

        _declared.append(Library("torchvision", "FRAGMENT"))
        for name in ("nms", "qnms"):
            _declared[0].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision")
    return "declared" if _declared else "own operators"
