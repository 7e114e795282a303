// The sum of one number of each thread of a block of THREADS, in an order that is the same in every run; all threads get it.
#pragma once

#define THREADS 128     // a power of two

template <class T> __device__ __forceinline__ T block_sum(T mine, T* part) {
    part[threadIdx.x] = mine;
    __syncthreads();
    for (int d = THREADS / 2; d > 0; d /= 2) {
        if (threadIdx.x < d) part[threadIdx.x] += part[threadIdx.x + d];
        __syncthreads();
    }
    T total = part[0];
    __syncthreads();        // part may be filled again
    return total;
}
