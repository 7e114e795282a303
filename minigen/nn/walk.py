"""Finding a model's parameters without a base class: any object is a model, and its attributes are walked.

    Tensor that requires a gradient    parameter
    array                              buffer (running statistics): saved, not trained
    list, tuple, dict, object          walked in turn; attributes that begin with _ are skipped

Names join attribute names and indices with dots, which gives PyTorch's names: "0.weight", "body.3.running_mean".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from minigen.device import is_array, to_host
from minigen.tensor import Tensor


def _children(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, (list, tuple)):
        yield from ((str(i), child) for i, child in enumerate(node))
    elif isinstance(node, dict):
        yield from ((str(k), child) for k, child in node.items())
    elif hasattr(node, "__dict__") and not isinstance(node, type) and not callable(getattr(node, "__get__", None)):
        yield from ((k, child) for k, child in vars(node).items() if not k.startswith("_"))


def walk(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(name, node) for the model and everything inside it, each object once, parents first."""
    seen: set[int] = set()

    def visit(node: Any, name: str) -> Iterator[tuple[str, Any]]:
        if id(node) in seen:
            return
        if not isinstance(node, (int, float, str, bool, type(None))):
            seen.add(id(node))
        yield name, node
        if not (isinstance(node, Tensor) or is_array(node)):
            for key, child in _children(node):
                yield from visit(child, f"{name}.{key}" if name else key)

    yield from visit(model, prefix)


def named_parameters(model: Any) -> dict[str, Tensor]:
    """Parameters by name; one that is shared appears once, under its first name."""
    return {name: node for name, node in walk(model) if isinstance(node, Tensor) and node.requires_grad}


def parameters(model: Any) -> list[Tensor]:
    """The Tensors an optimiser should train, each once."""
    return list(named_parameters(model).values())


def _state(model: Any) -> dict[str, Any]:
    return {
        name: node
        for name, node in walk(model)
        if is_array(node) or (isinstance(node, Tensor) and node.requires_grad)
    }


def state_dict(model: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Copies of all parameters and buffers by name."""
    return {k: np.array(to_host(v._data if isinstance(v, Tensor) else v)) for k, v in _state(model).items()}


def load_state_dict(model: Any, arrays: Mapping[str, Any]) -> None:
    """Copy `arrays` (as `state_dict` gives them, here or in PyTorch) into the model, in place.

    Raises ValueError that names what is missing, unexpected or of another shape; then nothing was changed.
    """
    own = _state(model)
    missing, unexpected = [k for k in own if k not in arrays], [k for k in arrays if k not in own]
    if missing or unexpected:
        raise ValueError(f"state does not fit the model: missing {missing or 'nothing'}, unexpected {unexpected or 'nothing'}")
    given = {k: np.asarray(v) for k, v in arrays.items()}
    for k, node in own.items():
        if node.shape != given[k].shape:
            raise ValueError(f"state does not fit the model: {k} is {node.shape} here and {given[k].shape} there")
    for k, node in own.items():
        if isinstance(node, Tensor):
            node.assign(given[k])
        else:
            node[...] = given[k]


def set_training(model: Any, training: bool) -> None:
    """Switch batch norm, dropout and spectral norm in `model` between training and evaluation."""
    for _, node in walk(model):
        if hasattr(node, "training") and not isinstance(node, Tensor):
            node.training = training
