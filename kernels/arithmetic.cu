// Arithmetic of each element, with broadcasting, on numbers of any kind: integers and truth values too.
//
//     version 1   one thread an element; reads through strides, writes densely
#include "layout.cuh"

typedef unsigned char truth;

BINARY(add, real, l + r)
BINARY(subtract, real, l - r)
BINARY(multiply, real, l * r)
BINARY(maximum, real, l != l || l > r ? l : r)      // not a number wins, as in NumPy
BINARY(minimum, real, l != l || l < r ? l : r)
BINARY(less, truth, l < r)
BINARY(less_equal, truth, l <= r)
BINARY(equal, truth, l == r)
BINARY(not_equal, truth, l != r)
BINARY(bitwise_and, truth, (l != 0) & (r != 0))     // of truth values
BINARY(bitwise_or, truth, (l != 0) | (r != 0))

UNARY(negative, real, -x)
UNARY(absolute, real, x < 0 ? -x : x)
UNARY(sign, real, x != x ? x : (real)((x > 0) - (x < 0)))
UNARY(invert, truth, x == 0)

UNARY(to_bool, truth, x != 0)
UNARY(to_uint8, unsigned char, x)
UNARY(to_int32, int, x)
UNARY(to_int64, long long, x)
UNARY(to_float32, float, x)
UNARY(to_float64, double, x)

extern "C" __global__ void where(const truth* held, const real* a, const real* b, real a_number, real b_number, real* y,
                                 Layout at, int n) {
    int i = INDEX;
    if (i >= n) return;
    real l = a ? a[offset(i, at.size, at.b)] : a_number;
    real r = b ? b[offset(i, at.size, at.c)] : b_number;
    y[i] = held[offset(i, at.size, at.a)] ? l : r;
}

// y, through its strides c, becomes a, or one number.
extern "C" __global__ void put(const real* a, real a_number, real* y, Layout at, int n) {
    int i = INDEX;
    if (i < n) y[offset(i, at.size, at.c)] = a ? a[offset(i, at.size, at.a)] : a_number;
}
