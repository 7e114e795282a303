// Indices out of device memory: nobody has looked at them, and nothing can raise here. What one that is out of range would give
// is not a number; 0, among numbers of which all are one.
#pragma once

__device__ __forceinline__ bool inside(long long index, int size) { return 0 <= index && index < size; }

template <class T> __device__ __forceinline__ T nothing(T) { return 0; }
__device__ __forceinline__ float nothing(float) { return __int_as_float(0x7fc00000); }
__device__ __forceinline__ double nothing(double) { return __longlong_as_double(0x7ff8000000000000LL); }
