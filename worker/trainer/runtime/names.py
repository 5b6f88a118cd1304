"""Weights by the names that the spec and checkpoints know them by."""

import re

from torch import nn

WRAPPERS = ("_checkpoint_wrapped_module.", "_orig_mod.")
"""What wrappers around modules add to names; without them wrapping may change."""
DIVIDED = re.compile(r"parametrizations\.(\w+)\.original$")
"""A weight that is divided whenever it is read keeps the name it had."""


def plain(name: str) -> str:
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return DIVIDED.sub(r"\1", name)


def weights_of(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Weights that are not frozen; one that stands in several places is named once."""
    return [(plain(name), weight) for name, weight in model.named_parameters() if weight.requires_grad]
