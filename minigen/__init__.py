"""minigen: a from-scratch autograd engine and small generators, in NumPy, Numba and raw CUDA."""

from __future__ import annotations

import importlib
from typing import Any

from minigen import ops
from minigen.autograd import GradientError, enable_grad, grad, no_grad
from minigen.dispatch import mode
from minigen.errors import UserError
from minigen.gradcheck import GradcheckError, gradcheck
from minigen.random import rand, randn, seed
from minigen.tensor import Tensor, from_dlpack, tensor

__version__ = "0.1.0"
__all__ = [
    "GradcheckError", "GradientError", "Tensor", "UserError", "enable_grad", "from_dlpack", "grad", "gradcheck", "mode",
    "no_grad", "ops", "rand", "randn", "seed", "tensor",
]  # fmt: skip

_LAZY = ("data", "metrics", "models", "nn", "optim", "train")  # so that `import minigen` stays fast


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f"minigen.{name}")
    raise AttributeError(f"module 'minigen' has no attribute {name!r}")
