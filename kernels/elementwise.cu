// What only floating-point numbers have, of each element.
//
//     version 1   as in arithmetic.cu
#include "layout.cuh"

BINARY(divide, real, l / r)
BINARY(power, real, pow(l, r))

UNARY(exp_, real, exp(x))
UNARY(log_, real, log(x))
UNARY(log1p_, real, log1p(x))
UNARY(sqrt_, real, sqrt(x))
UNARY(tanh_, real, tanh(x))
UNARY(isnan_, unsigned char, isnan(x))
UNARY(isfinite_, unsigned char, isfinite(x))
