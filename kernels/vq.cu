// The nearest code of each vector: the sums of minigen/ops/vq.py, in its order and in double precision, so that the same code
// is found, and the same ties go to the lowest index.
//
//     version 1   one block a vector: it lies in shared memory, and each thread looks at every 128th code
#ifndef real
#define real float
#endif

#include "block_sum.cuh"

__device__ __forceinline__ double square_distance(const real* a, const real* b, int size) {
    double total = 0;
    for (int d = 0; d < size; d++) total += ((double)a[d] - (double)b[d]) * ((double)a[d] - (double)b[d]);
    return total;
}

extern "C" __global__ void nearest_code(const real* z, const real* codes, long long* index, real* distance, int count, int size) {
    extern __shared__ real vector[];
    __shared__ double least[THREADS];
    __shared__ int where[THREADS];
    int t = threadIdx.x, best = 0;
    for (int d = t; d < size; d += THREADS) vector[d] = z[blockIdx.x * size + d];
    __syncthreads();
    double nearest = -1;                                        // none yet
    for (int k = t; k < count; k += THREADS) {
        double total = square_distance(vector, codes + k * size, size);
        if (total == total && (nearest < 0 || total < nearest)) nearest = total, best = k;  // not a number is near to nothing
    }
    least[t] = nearest, where[t] = best;
    __syncthreads();
    for (int d = THREADS / 2; d > 0; d /= 2) {
        if (t < d && least[t + d] >= 0 &&
            (nearest < 0 || least[t + d] < nearest || (least[t + d] == nearest && where[t + d] < best)))
            nearest = least[t + d], best = where[t + d], least[t] = nearest, where[t] = best;
        __syncthreads();
    }
    // The distance again, for a vector that is near to nothing.
    if (t == 0) index[blockIdx.x] = best, distance[blockIdx.x] = (real)square_distance(vector, codes + best * size, size);
}
