"""Kernels with one mistake each, which the emulator must find, and kernels without one, of which it must say nothing.

`python -m minigen.kernels.emulator` runs them all and prints a table.
"""

from dataclasses import dataclass

import numpy as np

from . import KernelFault, Library, Memory

THREADS = 64


@dataclass(frozen=True)
class Planted:
    name: str
    kind: str               # what must be found: one of KINDS, "waiting", or "" for nothing
    body: str               # of a kernel of (const real* x, real* y, int n): n = THREADS numbers each
    blocks: int = 1
    shared: int = 0         # bytes
    zeroed: bool = False    # y, beforehand

    @property
    def source(self):
        head = "const real* __restrict__ x, real* y, int n"
        return f'extern "C" __global__ void kernel({head}) {{\n    int t = threadIdx.x;\n    {self.body}\n}}\n'


_SUM = """__shared__ real part[64];
    part[t] = x[t];
    {first}
    for (int d = 32; d > 0; d /= 2) {{
        if (t < d) part[t] += part[t + d];
        {second}
    }}
    if (t == 0) y[0] = part[0];"""

_TILES = """__shared__ real tile[64];
    real total = 0;
    for (int i = 0; i < 4; i++) {{
        tile[t] = x[t] * i;
        __syncthreads();
        total += tile[(t + 1) % 64];
        {end}
    }}
    y[t] = total;"""

_PAIRS = """__shared__ real s[64];
    s[t] = x[t];
    {between}
    y[t] = s[t ^ 1];"""

_REVERSED = """extern __shared__ real s[];
    s[t] = x[t];
    __syncthreads();
    y[t] = s[63 - t];"""

_WARP_SUM = """real v = x[t];
    for (int d = 16; d; d /= 2) v += __shfl_{kind}_sync(0xffffffffu, v, d);
    {end}"""

BUGS = [
    Planted("no barrier after filling shared memory", "race", _SUM.format(first="", second="__syncthreads();")),
    Planted("no barrier between the steps of a reduction", "race", _SUM.format(first="__syncthreads();", second="")),
    Planted("no barrier before a tile is filled again", "race", _TILES.format(end="")),
    Planted("shared memory between the lanes of a warp without __syncwarp", "race", _PAIRS.format(between="")),
    Planted("a shuffle taken for a barrier", "race", _PAIRS.format(between="__shfl_sync(0xffffffffu, t, 0);")),
    Planted("all threads add to one number", "race", """if (t == 0) y[0] = 0;
    __syncthreads();
    y[0] += x[t];"""),
    Planted("two blocks write the same numbers", "race", "y[t] = x[t] + blockIdx.x;", blocks=2),
    Planted("a block reads what another writes", "race", """if (blockIdx.x == 0) y[t] = x[t];
    else y[t] = y[t] + 1;""", blocks=2),
    Planted("a plain read beside atomic additions", "race", """if (t == 0) y[0] = 0, y[1] = 0;
    __syncthreads();
    atomicAdd(y, x[t]);
    if (t == 63) y[1] = y[0];"""),
    Planted("one number read past the end", "outside", "y[t] = x[t + 1];"),
    Planted("one number written before the beginning", "outside", "y[t - 1] = x[t];"),
    Planted("a grid larger than the array, and no test", "outside", "y[blockIdx.x * blockDim.x + t] = x[t];", blocks=2),
    Planted("less dynamic shared memory than is used", "outside", _REVERSED, shared=128),
    Planted("shared memory that half the threads fill", "unwritten", """__shared__ real s[64];
    if (t < 32) s[t] = x[t];
    __syncthreads();
    y[t] = s[63 - t];"""),
    Planted("adding to an output that nobody has set to zero", "unwritten", "y[t] += x[t];"),
    Planted("the wrong row length of a padded tile", "index", """__shared__ real tile[8][9];
    tile[t / 8][t % 8 + t / 32 * 4] = x[t];
    __syncthreads();
    y[t] = tile[t / 8][0];"""),
    Planted("a vector load that is not aligned", "misaligned", """if (t < 8) {
        auto v = *reinterpret_cast<const int4*>(x + 2 * t + 1);
        y[t] = v.x;
    }"""),
    Planted("a barrier in both branches of an if", "waiting", """if (t < 32) {
        y[t] = 1;
        __syncthreads();
    } else {
        __syncthreads();
    }"""),
    Planted("a barrier after some threads have left", "waiting", """if (t >= n - 1) return;
    __syncthreads();
    y[t] = x[t];"""),
    Planted("a shuffle that half the warp does not reach", "waiting", """real v = x[t];
    if (t % 32 < 16) v += __shfl_down_sync(0xffffffffu, v, 8);
    __syncthreads();
    y[t] = v;"""),
    Planted("a shuffle whose mask leaves its own lane out", "waiting", "y[t] = __shfl_xor_sync(0x0000ffffu, x[t], 1);"),
    Planted("one shuffle in each branch of an if", "waiting", """real v = x[t];
    if (t % 2) v = __shfl_xor_sync(0xffffffffu, v, 1);
    else
        v = __shfl_xor_sync(0xffffffffu, v, 1);
    y[t] = v;"""),
]

GOOD = [
    Planted("a reduction", "", _SUM.format(first="__syncthreads();", second="__syncthreads();")),
    Planted("tiles that are filled again", "", _TILES.format(end="__syncthreads();")),
    Planted("lanes with __syncwarp between", "", _PAIRS.format(between="__syncwarp();")),
    Planted("sums of warps, added up", "", _WARP_SUM.format(kind="down", end="if (t % 32 == 0) atomicAdd(y, v);"), zeroed=True),
    Planted("a butterfly", "", _WARP_SUM.format(kind="xor", end="y[t] = v;")),
    Planted("half warps", "", """unsigned half = t % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
    y[t] = __shfl_xor_sync(half, x[t], 8);"""),
    Planted("blocks that share nothing", "", "if (t % 2 == blockIdx.x) y[t] = x[t];", blocks=2),
    Planted("blocks that add atomically", "", "atomicAdd(y, x[t]);", blocks=2, zeroed=True),
    Planted("dynamic shared memory", "", _REVERSED, shared=64 * 8),
    Planted("a transposed tile with padding", "", """__shared__ real tile[8][9];
    tile[t / 8][t % 8] = x[t];
    __syncthreads();
    y[t] = tile[t % 8][t / 8];"""),
    Planted("a counting barrier", "", "y[t] = __syncthreads_count(x[t] > 0);"),
    Planted("votes", "", "y[t] = __ballot_sync(0xffffffffu, t % 3 == 0) + __any_sync(0xffffffffu, t == 40);"),
    Planted("vectors", "", "if (t < 8) reinterpret_cast<int4*>(y)[t] = reinterpret_cast<const int4*>(x)[t];"),
]


def run(planted, real=np.float32, checked=True, seed=0):
    """Launch it on x = 1, 2, .. Returns y; raises KernelFault."""
    library = Library(planted.source, real, checked, name="planted")
    x, y = (Memory(THREADS * np.dtype(real).itemsize) for _ in range(2))
    x.bytes.view(real)[:] = np.arange(1, THREADS + 1)
    x.written()
    if planted.zeroed:
        y.bytes[:] = 0
        y.written()
    arguments = [x.address, y.address, np.int32(THREADS)]
    library.launch("kernel", (planted.blocks, 1, 1), (THREADS, 1, 1), planted.shared, arguments, seed)
    return y.bytes.view(real)


def found(planted, seeds=(0, 1, 2)):
    """What was reported under each seed: a list of (kinds, first line)."""
    reports = []
    for seed in seeds:
        try:
            run(planted, seed=seed)
            reports.append(((), ""))
        except KernelFault as e:
            reports.append((tuple(e.kinds), str(e).splitlines()[0]))
    return reports


def table():
    """Lines of a table, and whether every mistake was found and nothing else reported."""
    lines, fine = [], True
    for planted in BUGS + GOOD:
        reports = found(planted)
        right = all(planted.kind in kinds if planted.kind else not kinds for kinds, _ in reports)
        fine = fine and right
        lines += [f"{'ok  ' if right else 'FAIL'} {planted.name}", *([f"       {reports[0][1]}"] if reports[0][1] else [])]
    return lines, fine
