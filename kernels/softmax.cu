// Softmax, its logarithm and the cross-entropy, of each row of x (rows, size): the equations of minigen/ops/softmax.py.
//
//     version 1   one warp a row: lane i takes every 32nd number from i on, and shuffles make one maximum and one sum of the
//                 lanes' own. Each number is read once for each of these and once for the result; from the second time on it is
//                 in the cache. e^x is computed anew rather than kept: arithmetic is cheaper than memory
//
// The maximum may overlook NaN. The sum does not, and every number of a row is made of it.
#include "layout.cuh"
#include "index.cuh"

#define WARP 32

// One number made of all lanes' own, in every lane the same: partners exchange, and each halving doubles what a number is made of.
template <class Both> __device__ __forceinline__ real of_all_lanes(real mine, Both both) {
#pragma unroll
    for (int d = WARP / 2; d > 0; d /= 2) mine = both(mine, __shfl_xor_sync(0xffffffffu, mine, d));
    return mine;
}

__device__ __forceinline__ real sum(real mine) {
    return of_all_lanes(mine, [](real l, real r) { return l + r; });
}

// Which row is this warp's, and which of its numbers this lane's. A warp is of one mind: it has a row, or returns as a whole.
#define ROW (int)(blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP)
#define LANES for (int k = threadIdx.x % WARP; k < size; k += WARP)

__device__ __forceinline__ real largest(const real* x, int size) {
    real most = x[0];
    LANES most = x[k] > most ? x[k] : most;
    return of_all_lanes(most, [](real l, real r) { return r > l ? r : l; });
}

// The sum of e^(x - most).
__device__ __forceinline__ real exponentials(const real* x, real most, int size) {
    real total = 0;
    LANES total += exp(x[k] - most);
    return sum(total);
}

extern "C" __global__ void softmax_forward(const real* x, real* y, int rows, int size) {
    if (ROW >= rows) return;
    x += ROW * size, y += ROW * size;
    real most = largest(x, size), total = exponentials(x, most, size);
    LANES y[k] = exp(x[k] - most) / total;
}

extern "C" __global__ void softmax_backward(const real* dy, const real* y, real* dx, int rows, int size) {
    if (ROW >= rows) return;
    dy += ROW * size, y += ROW * size, dx += ROW * size;
    real total = 0;
    LANES total += dy[k] * y[k];
    total = sum(total);
    LANES dx[k] = y[k] * (dy[k] - total);
}

extern "C" __global__ void log_softmax_forward(const real* x, real* l, int rows, int size) {
    if (ROW >= rows) return;
    x += ROW * size, l += ROW * size;
    real most = largest(x, size), logarithm = log(exponentials(x, most, size));
    LANES l[k] = (x[k] - most) - logarithm;
}

extern "C" __global__ void log_softmax_backward(const real* dl, const real* l, real* dx, int rows, int size) {
    if (ROW >= rows) return;
    dl += ROW * size, l += ROW * size, dx += ROW * size;
    real total = 0;
    LANES total += dl[k];
    total = sum(total);
    LANES dx[k] = dl[k] - exp(l[k]) * total;
}

extern "C" __global__ void cross_entropy_forward(const real* x, const long long* target, real* nll, int rows, int size) {
    if (ROW >= rows) return;
    x += ROW * size;
    long long t = target[ROW];
    real most = largest(x, size), total = exponentials(x, most, size);
    if (threadIdx.x % WARP == 0) nll[ROW] = inside(t, size) ? log(total) - (x[t] - most) : nothing(total);
}

extern "C" __global__ void cross_entropy_backward(const real* dnll, const real* x, const long long* target, real* dx, int rows,
                                                  int size) {
    if (ROW >= rows) return;
    x += ROW * size, dx += ROW * size;
    long long t = target[ROW];
    real most = largest(x, size), total = exponentials(x, most, size), d = inside(t, size) ? dnll[ROW] : nothing(total);
    LANES dx[k] = (exp(x[k] - most) / total - (k == t)) * d;
}
