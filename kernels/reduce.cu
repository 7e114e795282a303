// Sums and largest elements over some axes: axes 0 to 2 of the layout are kept, 3 to 5 are reduced.
//
//     version 1   <name>_few: one thread an output, for outputs of few elements
//     version 2   one block an output: each thread takes every 128th element, then halves meet in shared memory
//
// The order of a sum is fixed by the shapes: the result is the same in every run.
#include "layout.cuh"
#include "block_sum.cuh"

#define FEW(name, both)                                                                                                \
    extern "C" __global__ void name(const real* x, real* y, Layout at, int count, int n) {                             \
        if (INDEX >= n) return;                                                                                        \
        int start = offset(INDEX, at.size, at.a, 0, 3);                                                                \
        real l = x[start];                                                                                             \
        for (int i = 1; i < count; i++) {                                                                              \
            real r = x[start + offset(i, at.size, at.a, 3, 6)];                                                        \
            l = both;                                                                                                  \
        }                                                                                                              \
        y[INDEX] = l;                                                                                                  \
    }

FEW(sum_few, l + r)
FEW(largest_few, l != l || l > r ? l : r)
FEW(smallest_few, l != l || l < r ? l : r)

#define REDUCE(name, both)                                                                                             \
    extern "C" __global__ void name(const real* x, real* y, Layout at, int count) {                                    \
        __shared__ real part[THREADS];                                                                                 \
        int t = threadIdx.x, start = offset(blockIdx.x, at.size, at.a, 0, 3);                                          \
        real l = 0;                                                                                                    \
        for (int i = t; i < count; i += THREADS) {                                                                     \
            real r = x[start + offset(i, at.size, at.a, 3, 6)];                                                        \
            l = i == t ? r : both;                                                                                     \
        }                                                                                                              \
        part[t] = l;                                                                                                   \
        __syncthreads();                                                                                               \
        for (int d = THREADS / 2; d > 0; d /= 2) {                                                                     \
            if (t < d && t + d < count) {                                                                              \
                real r = part[t + d];                                                                                  \
                l = both;                                                                                              \
                part[t] = l;                                                                                           \
            }                                                                                                          \
            __syncthreads();                                                                                           \
        }                                                                                                              \
        if (t == 0) y[blockIdx.x] = l;                                                                                 \
    }

REDUCE(sum, l + r)
REDUCE(largest, l != l || l > r ? l : r)
REDUCE(smallest, l != l || l < r ? l : r)

// The position of the largest (sign 1) or smallest (sign -1) element, the first of equals.
extern "C" __global__ void position(const real* x, long long* y, int sign, Layout at, int count) {
    __shared__ real part[THREADS];
    __shared__ int where[THREADS];
    int t = threadIdx.x, start = offset(blockIdx.x, at.size, at.a, 0, 3), best = t;
    real l = 0;
    for (int i = t; i < count; i += THREADS) {
        real r = x[start + offset(i, at.size, at.a, 3, 6)] * sign;
        if (i == t || r > l) l = r, best = i;
    }
    part[t] = l, where[t] = best;
    __syncthreads();
    for (int d = THREADS / 2; d > 0; d /= 2) {
        if (t < d && t + d < count && (part[t + d] > l || (part[t + d] == l && where[t + d] < best)))
            l = part[t + d], best = where[t + d], part[t] = l, where[t] = best;
        __syncthreads();
    }
    if (t == 0) y[blockIdx.x] = best;
}
