// Matrix products c = a @ b, of any two views: rows and columns may be any number of elements apart, so transposes are free.
//
//     version 1   matmul_tiles: a block computes 16x16 of c, a thread one element; tiles of a and b go through shared memory,
//                 so each of their elements is read from device memory k/16 times less often
//     version 2   matmul_registers: a block computes 64x64 of c, a thread 4x4 of it in registers; see gemm.cuh
//
// A linear layer is one more line: c = act(a @ b + bias), the bias (n) one for each column. The plain product has no bias, and
// slope 1, which is no activation.
//
// Batches: blockIdx.z counts them, and the layout (of the batch axes) says where each begins.
#include "layout.cuh"
#include "act.cuh"
#include "gemm.cuh"

#define TILE 16

__device__ __forceinline__ real finished(real value, const real* bias, int column, real slope) {
    return act(bias ? value + bias[column] : value, slope);
}

extern "C" __global__ void matmul_tiles(const real* a, const real* b, const real* bias, real slope, real* c, int m, int n, int k,
                                        int a_row, int a_column, int b_row, int b_column, Layout batch) {
    __shared__ real a_tile[TILE][TILE + 1], b_tile[TILE][TILE + 1];     // + 1: a column is not all in one bank
    a += offset(blockIdx.z, batch.size, batch.a), b += offset(blockIdx.z, batch.size, batch.b), c += blockIdx.z * m * n;
    int row = blockIdx.y * TILE + threadIdx.y, column = blockIdx.x * TILE + threadIdx.x;
    real total = 0;
    for (int k0 = 0; k0 < k; k0 += TILE) {
        int a_k = k0 + threadIdx.x, b_k = k0 + threadIdx.y;
        a_tile[threadIdx.y][threadIdx.x] = row < m && a_k < k ? a[row * a_row + a_k * a_column] : 0;
        b_tile[threadIdx.y][threadIdx.x] = b_k < k && column < n ? b[b_k * b_row + column * b_column] : 0;
        __syncthreads();
        for (int i = 0; i < TILE; i++) total += a_tile[threadIdx.y][i] * b_tile[i][threadIdx.x];
        __syncthreads();
    }
    if (row < m && column < n) c[row * n + column] = finished(total, bias, column, slope);
}

extern "C" __global__ void __launch_bounds__(256)
matmul_registers(const real* a, const real* b, const real* bias, real slope, real* c, int m, int n, int k, int a_row,
                 int a_column, int b_row, int b_column, Layout batch) {
    __shared__ Tiles tiles;
    a += offset(blockIdx.z, batch.size, batch.a), b += offset(blockIdx.z, batch.size, batch.b), c += blockIdx.z * m * n;
    gemm(tiles, m, n, 0, k, [=](int row, int i) { return a[row * a_row + i * a_column]; },
         [=](int i, int column) { return b[i * b_row + column * b_column]; },
         [=](int row, int column, real value) { c[row * n + column] = finished(value, bias, column, slope); }, a_column == 1,
         b_row == 1);
}
