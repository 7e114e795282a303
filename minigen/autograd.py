"""The engine: operations that remember their inputs, and the walk back through them.

A gradient is an operation like any other. `Op.forward` sees arrays; `Op.backward` sees Tensors and computes with the
same operations the user does. So the gradient of an expression is again an expression, and can be differentiated:

    >>> import minigen as mg
    >>> x = mg.tensor(3.0, requires_grad=True)
    >>> (dy,) = mg.grad(x * x * x, x, create_graph=True)      # 3 x^2
    >>> (ddy,) = mg.grad(dy, x)                               # 6 x
    >>> dy.item(), ddy.item()
    (27.0, 18.0)

Four promises, each tested:

- only what was asked for is computed: `grad` walks the paths that lead to the requested inputs, and tells every Op
  through `self.needs` which of its inputs lie on one;
- a value that was changed in place after an Op saved it raises instead of giving a wrong gradient (each Tensor carries
  a version; reading `self.inputs` compares it with the version seen in the forward pass);
- a gradient that does not exist raises and names the Op; it is never zero or None in silence;
- the depth of the graph is limited by memory alone: the walk uses no recursion.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from minigen.tensor import Tensor

Array = Any  # numpy.ndarray, or a device array that follows NumPy's protocols


class GradientError(RuntimeError):
    """A gradient was asked for that does not exist, or can no longer be computed."""


class _Recording(threading.local):
    on = True


_recording = _Recording()


@contextmanager
def _set_recording(on: bool) -> Iterator[None]:
    previous = _recording.on
    _recording.on = on
    try:
        yield
    finally:
        _recording.on = previous


def is_recording() -> bool:
    """Whether operations leave a graph behind at this point."""
    return _recording.on


def no_grad() -> Any:
    """A context in which operations leave no graph behind: for sampling, evaluation and optimiser updates."""
    return _set_recording(False)


def enable_grad() -> Any:
    """A context in which operations are recorded, whatever surrounds it: for gradients inside evaluation code."""
    return _set_recording(True)


class Op:
    """One operation, and one node of the graph.

    Subclasses write `forward(*arrays) -> array or tuple of arrays` and `backward(*grads) -> tuple of Tensors`, one for
    each input, None where `self.needs` is False. What backward needs beside the inputs, forward keeps on `self`; to use
    the Op's own output there, keep the array and wrap it with `self.output(array)`.
    """

    view = False                      # the output shares memory with input 0, and therefore its version
    _inputs: tuple[Tensor, ...] | None = None
    _versions: tuple[int, ...] = ()
    needs: tuple[bool, ...] = ()
    _made: tuple[list[int], int] = ([0], 0)  # the output's version, and what it was when made

    def forward(self, *arrays: Array) -> Any:
        raise NotImplementedError(f"{self.name} has no forward")

    def backward(self, *grads: Any) -> Sequence[Tensor | None]:
        raise GradientError(f"{self.name} has no gradient")

    def __call__(self, *inputs: Tensor) -> Any:
        result = self.forward(*[t._data for t in inputs])
        recorded = False
        if _recording.on:
            needs = tuple([t.requires_grad for t in inputs])
            if True in needs:
                recorded = True
                self.needs = needs
                self._inputs = inputs
                self._versions = tuple([t._version[0] for t in inputs])
        if type(result) is tuple:
            return tuple([self._wrap(array, recorded, i) for i, array in enumerate(result)])
        out = self._wrap(result, recorded, 0, inputs[0]._version if self.view else None)
        if recorded:
            self._made = (out._version, out._version[0])
        return out

    def _wrap(self, array: Array, recorded: bool, index: int, version: list[int] | None = None) -> Tensor:
        out = Tensor.__new__(Tensor)
        out._data = np.asarray(array) if isinstance(array, np.generic) else array
        out.requires_grad = recorded
        out.op = self if recorded else None
        out.index = index
        out.grad = None
        out._version = [0] if version is None else version
        return out

    def output(self, array: Array) -> Tensor:
        """This Op's only output as a Tensor in the graph, after checking that it was not changed in place.

        (Keeping the Tensor itself would make a reference cycle.)
        """
        version, count = self._made
        if version[0] != count:
            raise GradientError(f"{self.name}: its output, shape {array.shape}, was changed in place before backward")
        return self._wrap(array, True, 0, version)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The input Tensors, after checking that none was changed in place since the forward pass."""
        inputs = self._inputs
        if inputs is None:
            raise GradientError(f"{self.name}: this graph was freed by an earlier backward; pass retain_graph=True there")
        for i, (t, version) in enumerate(zip(inputs, self._versions, strict=True)):
            if t._version[0] != version:
                raise GradientError(
                    f"{self.name}: input {i}, shape {t.shape}, was changed in place after this graph was built (by an "
                    f"optimiser step, say). Run the forward pass again, or backpropagate before the update."
                )
        return inputs

    @property
    def input_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the inputs. Needs no version check: an in-place update changes values, never shapes."""
        assert self._inputs is not None
        return [t._data.shape for t in self._inputs]

    @property
    def name(self) -> str:
        return type(self).__name__

    def free(self) -> None:
        """Drop the inputs and everything forward kept."""
        self.__dict__.clear()


class NonDifferentiable(Op):
    """An Op whose output has no gradient (argmax, comparisons). The output keeps its name, for the error message."""

    def __call__(self, *inputs: Tensor) -> Tensor:
        out = self._wrap(self.forward(*[t._data for t in inputs]), False, 0)
        out.op = self
        return out


def _order(outputs: Sequence[Tensor], wanted: set[Any] | None) -> tuple[list[Op], dict[Op, tuple[bool, ...]]]:
    """Ops reachable from `outputs`, inputs first, and for each which of its inputs lead to a wanted Tensor.

    `wanted` holds the keys of the requested Tensors; None asks for all leaves. Depth-first with an explicit stack: an Op
    is pushed again under its inputs, and settled when it is seen the second time.
    """
    order: list[Op] = []
    needs: dict[Op, Any] = {}
    leads: set[Op] = set()
    stack = [t.op for t in outputs if t.op is not None]
    while stack:
        op = stack.pop()
        if op not in needs:
            if op._inputs is None:
                raise GradientError(f"{op.name}: this graph was freed by an earlier backward; pass retain_graph=True there")
            needs[op] = None
            stack.append(op)
            for t in op._inputs:
                if t.requires_grad and t.op is not None and t.op not in needs:
                    stack.append(t.op)
        elif needs[op] is None:
            assert op._inputs is not None
            if wanted is None:
                flags = tuple([t.requires_grad for t in op._inputs])
            else:
                flags = tuple([t.requires_grad and (t.op in leads or _key(t) in wanted) for t in op._inputs])
            needs[op] = flags
            if True in flags:
                leads.add(op)
                order.append(op)
    return order, needs


def _key(t: Tensor) -> Any:
    """What identifies a Tensor in the graph: the Op output it is, or itself where it is a leaf."""
    return id(t) if t.op is None else (t.op, t.index)


def _walk(
    outputs: Sequence[Tensor],
    grad_outputs: Sequence[Tensor | None],
    wanted: set[Any] | None,
    create_graph: bool,
    retain_graph: bool,
) -> tuple[dict[Any, Tensor], dict[int, Tensor]]:
    """Propagate gradients from `outputs`. Returns the gradients by key, and the leaves met, by id."""
    for t in outputs:
        if not t.requires_grad:
            raise GradientError(f"output of shape {t.shape} does not depend on anything that requires a gradient{_why(t)}")
    grads: dict[Any, Tensor] = {}
    leaves: dict[int, Tensor] = {}
    with _set_recording(create_graph):
        for t, g in zip(outputs, grad_outputs, strict=True):
            _accumulate(grads, _key(t), _cotangent(t, g))
            if t.op is None:
                leaves[id(t)] = t
        order, needs = _order(outputs, wanted)
        for op in reversed(order):
            _backward_through(op, needs[op], grads, leaves, wanted)
            if not retain_graph:
                op.free()
    return grads, leaves


def _backward_through(
    op: Op, needs: tuple[bool, ...], grads: dict[Any, Tensor], leaves: dict[int, Tensor], wanted: set[Any] | None
) -> None:
    """Turn the gradients of one Op's outputs into those of its inputs."""
    outs = getattr(op, "outputs", 1)
    given = []
    for i in range(outs):
        key = (op, i)
        given.append(grads.get(key) if wanted is not None and key in wanted else grads.pop(key, None))
    if all(g is None for g in given):
        return
    inputs = op._inputs
    assert inputs is not None
    asked, op.needs = op.needs, needs
    results = op.backward(*given)
    op.needs = asked
    for i, (t, g) in enumerate(zip(inputs, results, strict=True)):
        if not needs[i]:
            continue
        if g is None:
            raise GradientError(f"{op.name} gave no gradient for input {i}, shape {t.shape}")
        if g._data.shape != t._data.shape:
            raise GradientError(f"{op.name} gave a gradient of shape {g.shape} for input {i} of shape {t.shape}")
        if g._data.dtype != t._data.dtype:
            g = g.astype(t._data.dtype)
        _accumulate(grads, _key(t), g)
        if t.op is None:
            leaves[id(t)] = t


def _accumulate(grads: dict[Any, Tensor], key: Any, g: Tensor) -> None:
    # Never in place: the same array may be another Tensor's gradient too (both sides of an addition share theirs).
    previous = grads.get(key)
    grads[key] = g if previous is None else previous + g


def _cotangent(t: Tensor, g: Any) -> Tensor:
    if g is None:
        if t._data.size != 1:
            raise GradientError(f"an output of shape {t.shape} needs grad_outputs; only a scalar can do without")
        return Tensor(np.ones_like(t._data))
    g = g.astype(t._data.dtype) if isinstance(g, Tensor) else Tensor(np.asarray(g, dtype=t._data.dtype)).to(t.device)
    if g.shape != t.shape:
        raise GradientError(f"grad_outputs of shape {g.shape} for an output of shape {t.shape}")
    return g


def _why(t: Tensor) -> str:
    """Name the Op without a gradient that cut the path, if one did."""
    return f": {t.op.name} has no gradient" if t.op is not None else ""


def _as_list(x: Any) -> list[Any]:
    return list(x) if isinstance(x, (tuple, list)) else [x]


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    create_graph: bool = False,
    allow_unused: bool = False,
    retain_graph: bool | None = None,
) -> tuple[Tensor, ...]:
    """Gradients of sum_i <grad_outputs_i, outputs_i> with respect to each of `inputs`, in their order.

    `grad_outputs` may be left out (or None) for outputs of one element. With `create_graph` the gradients are expressions
    that can be differentiated again, and the graph is kept; else it is freed unless `retain_graph`. An input on which the
    outputs do not depend raises GradientError; with `allow_unused` its entry is None.
    """
    outs, ins = _as_list(outputs), _as_list(inputs)
    gs = [None] * len(outs) if grad_outputs is None else _as_list(grad_outputs)
    if len(gs) != len(outs):
        raise GradientError(f"{len(gs)} grad_outputs for {len(outs)} outputs")
    for i, t in enumerate(ins):
        if not t.requires_grad:
            raise GradientError(f"input {i}, shape {t.shape}, does not require a gradient{_why(t)}")
    wanted = {_key(t) for t in ins}
    retain = create_graph if retain_graph is None else retain_graph
    grads, _ = _walk(outs, gs, wanted, create_graph, retain)
    results = [grads.get(_key(t)) for t in ins]
    for i, g in enumerate(results):
        if g is None and not allow_unused:
            raise GradientError(f"the outputs do not depend on input {i}, shape {ins[i].shape} (allow_unused=True gives None)")
    return tuple(results)  # type: ignore[arg-type]


def backward(
    output: Tensor, gradient: Any = None, create_graph: bool = False, retain_graph: bool | None = None
) -> None:
    """Add the gradient of `output` to `.grad` of every leaf it depends on. Only leaves accumulate."""
    retain = create_graph if retain_graph is None else retain_graph
    grads, leaves = _walk([output], [gradient], None, create_graph, retain)
    for key, leaf in leaves.items():
        with _set_recording(create_graph):
            leaf.grad = grads[key] if leaf.grad is None else leaf.grad + grads[key]
