// Where the elements of a broadcast or transposed array are.
//
// Sizes of at most six axes of a result (the host merges those it can), and for each operand how far apart neighbours lie
// along each: 0 where it is broadcast.
#pragma once
#ifndef real
#define real float
#endif

struct Layout { int size[6], a[6], b[6], c[6]; };

__device__ __forceinline__ int offset(int i, const int* size, const int* stride, int first = 0, int last = 6) {
    int at = 0;
#pragma unroll
    for (int axis = 5; axis >= 0; axis--) {
        if (axis < first || axis >= last || size[axis] == 1) continue;
        at += i % size[axis] * stride[axis];
        i /= size[axis];
    }
    return at;
}

// One thread an element. The time is the memory's: what is computed costs nothing beside it.
#define INDEX (int)(blockIdx.x * blockDim.x + threadIdx.x)

#define UNARY(name, type, expression)                                                                                  \
    extern "C" __global__ void name(const real* a, type* y, Layout at, int n) {                                        \
        int i = INDEX;                                                                                                 \
        if (i >= n) return;                                                                                            \
        real x = a[offset(i, at.size, at.a)];                                                                          \
        y[i] = (type)(expression);                                                                                     \
    }

// An operand may be one number instead of an array: then its pointer is null.
#define BINARY(name, type, expression)                                                                                 \
    extern "C" __global__ void name(const real* a, const real* b, real a_number, real b_number, type* y, Layout at,    \
                                    int n) {                                                                           \
        int i = INDEX;                                                                                                 \
        if (i >= n) return;                                                                                            \
        real l = a ? a[offset(i, at.size, at.a)] : a_number;                                                           \
        real r = b ? b[offset(i, at.size, at.b)] : b_number;                                                           \
        y[i] = (type)(expression);                                                                                     \
    }
