// Matrix products c = a @ b, of any two views: rows and columns may be any number of elements apart, so transposes are free.
//
//     version 1   matmul_tiles: a block computes 16x16 of c, a thread one element; tiles of a and b go through shared memory,
//                 so each of their elements is read from device memory k/16 times less often
//     version 2   matmul_registers: a block computes 64x64 of c, a thread 4x4 of it, in registers: each element read from shared
//                 memory serves four multiplications instead of one
//
// Batches: blockIdx.z counts them, and the layout (of the batch axes) says where each begins.
#include "layout.cuh"

#define TILE 16

extern "C" __global__ void matmul_tiles(const real* a, const real* b, real* c, int m, int n, int k, int a_row, int a_column,
                                        int b_row, int b_column, Layout batch) {
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
    if (row < m && column < n) c[row * n + column] = total;
}

#define SIDE 64
#define DEPTH 16
#define EACH 4      // rows and columns of c that are one thread's

extern "C" __global__ void __launch_bounds__(256)
matmul_registers(const real* a, const real* b, real* c, int m, int n, int k, int a_row, int a_column, int b_row, int b_column,
                 Layout batch) {
    __shared__ real a_tile[DEPTH][SIDE + 1], b_tile[DEPTH][SIDE + 1];
    a += offset(blockIdx.z, batch.size, batch.a), b += offset(blockIdx.z, batch.size, batch.b), c += blockIdx.z * m * n;
    int row0 = blockIdx.y * SIDE, column0 = blockIdx.x * SIDE, t = threadIdx.x;
    int row = t / 16, column = t % 16;                      // of the thread; its elements are 16 apart, for neighbours to
    real total[EACH][EACH] = {};                            // read neighbouring banks and write neighbouring addresses
    for (int k0 = 0; k0 < k; k0 += DEPTH) {
        for (int i = t; i < SIDE * DEPTH; i += 256) {
            // Neighbouring threads read along whichever axis is dense.
            int r = a_column == 1 ? i / DEPTH : i % SIDE, d = a_column == 1 ? i % DEPTH : i / SIDE;
            a_tile[d][r] = row0 + r < m && k0 + d < k ? a[(row0 + r) * a_row + (k0 + d) * a_column] : 0;
            int s = b_column == 1 ? i % SIDE : i / DEPTH, e = b_column == 1 ? i / SIDE : i % DEPTH;
            b_tile[e][s] = column0 + s < n && k0 + e < k ? b[(k0 + e) * b_row + (column0 + s) * b_column] : 0;
        }
        __syncthreads();
#pragma unroll
        for (int d = 0; d < DEPTH; d++) {
            real left[EACH], right[EACH];
#pragma unroll
            for (int i = 0; i < EACH; i++) left[i] = a_tile[d][row + 16 * i], right[i] = b_tile[d][column + 16 * i];
#pragma unroll
            for (int i = 0; i < EACH; i++)
#pragma unroll
                for (int j = 0; j < EACH; j++) total[i][j] += left[i] * right[j];
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < EACH; i++)
#pragma unroll
        for (int j = 0; j < EACH; j++)
            if (row0 + row + 16 * i < m && column0 + column + 16 * j < n)
                c[(row0 + row + 16 * i) * n + column0 + column + 16 * j] = total[i][j];
}
