// One matrix product for all that are one in disguise: c = a @ b, where functions say what the elements are.
//
//     gemm(tiles, m, n, first, last, left, right, out, left_by_k, right_by_k)
//
// left(row, k) and right(k, column) fetch an element, out(row, column, value) takes one. A block of 256 threads computes
// 64x64 of c, a thread 4x4 of it in registers: each element that is read from shared memory serves four multiplications.
// k runs from `first` to `last`: a sum of many terms can be cut into parts for several blocks.
//
// Neighbouring threads fetch neighbouring k where `left_by_k` or `right_by_k`, otherwise neighbouring rows or columns:
// whichever are neighbours in memory.
#pragma once

#define SIDE 64
#define DEPTH 16
#define EACH 4          // rows, and columns, of c that are one thread's; 16 apart, so that neighbours use neighbouring banks

struct Tiles { real a[DEPTH][SIDE + 1], b[DEPTH][SIDE + 1]; };

template <class Left, class Right, class Out>
__device__ __forceinline__ void gemm(Tiles& tiles, int m, int n, int first, int last, Left left, Right right, Out out,
                                     bool left_by_k, bool right_by_k) {
    int row0 = blockIdx.y * SIDE, column0 = blockIdx.x * SIDE, t = threadIdx.x;
    real total[EACH][EACH] = {};
    for (int k0 = first; k0 < last; k0 += DEPTH) {
        for (int i = t; i < SIDE * DEPTH; i += 256) {
            int r = left_by_k ? i / DEPTH : i % SIDE, d = left_by_k ? i % DEPTH : i / SIDE;
            tiles.a[d][r] = row0 + r < m && k0 + d < last ? left(row0 + r, k0 + d) : (real)0;
            int s = right_by_k ? i / DEPTH : i % SIDE, e = right_by_k ? i % DEPTH : i / SIDE;
            tiles.b[e][s] = column0 + s < n && k0 + e < last ? right(k0 + e, column0 + s) : (real)0;
        }
        __syncthreads();
#pragma unroll
        for (int d = 0; d < DEPTH; d++) {
            real a[EACH], b[EACH];
#pragma unroll
            for (int i = 0; i < EACH; i++) a[i] = tiles.a[d][t / 16 + 16 * i], b[i] = tiles.b[d][t % 16 + 16 * i];
#pragma unroll
            for (int i = 0; i < EACH; i++)
#pragma unroll
                for (int j = 0; j < EACH; j++) total[i][j] += a[i] * b[j];
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < EACH; i++)
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            int row = row0 + t / 16 + 16 * i, column = column0 + t % 16 + 16 * j;
            if (row < m && column < n) out(row, column, total[i][j]);
        }
}
