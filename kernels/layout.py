"""Strides: where the elements of views lie, and the Layout of layout.cuh that tells a kernel. In elements, not in bytes."""

from itertools import chain

AXES = 6        # of a Layout


def dense(shape):
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


def merged(shape, *operands):
    """The same elements with fewer axes: an axis is one with the next if every operand's strides say so."""
    axes = [(n, s) for n, *s in zip(shape, *operands, strict=True) if n != 1]
    found = axes[:1]
    for n, strides in axes[1:]:
        before, outer = found[-1]
        if all(o == n * s for o, s in zip(outer, strides, strict=True)):
            found[-1] = before * n, strides
        else:
            found.append((n, strides))
    return found


def packed(axes, room, count):
    """[sizes, strides of each operand], each with `room` entries, filled up in front."""
    if len(axes) > room:
        raise ValueError(f"{len(axes)} axes that cannot be merged; kernels take {room}")
    missing = room - len(axes)
    return [[1] * missing + [n for n, _ in axes]] + [[0] * missing + [s[k] for _, s in axes] for k in range(count)]


def layout(shape, *operands):
    """The Layout of layout.cuh for a result of `shape` and operands given by their strides."""
    rows = packed(merged(shape, *operands), AXES, len(operands))
    return [*chain.from_iterable(rows), *[0] * AXES * (3 - len(operands))]


def spread(x, shape):
    """The strides of x broadcast to `shape`."""
    added = len(shape) - x.ndim
    return (0,) * added + tuple(0 if n == 1 else s for n, s in zip(x.shape, x.strides, strict=True))
