"""Weights by the names that the spec and checkpoints know them by."""

from torch import nn

WRAPPERS = ("_checkpoint_wrapped_module.", "_orig_mod.")
"""What wrappers around modules add to names; without them wrapping may change."""


def plain(name: str) -> str:
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def weights_of(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Weights that are not frozen; one that stands in several places is named once."""
    return [(plain(name), weight) for name, weight in model.named_parameters() if weight.requires_grad]
