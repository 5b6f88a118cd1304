"""Names that PyTorch marks as private and the trainer needs. An upgrade of torch begins with this file."""

from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.nn.modules.batchnorm import _BatchNorm as AnyBatchNorm
from torch.utils._pytree import tree_leaves

__all__ = ["AnyBatchNorm", "FakeTensorMode", "compute_local_shape_and_global_offset", "tree_leaves"]
