// What the recurrent scans share: rnn.cu, gru.cu, gru_cho.cu, lstm.cu.
//
// **Version 1, a launch a step.** The product with U is a launch of matmul.cu, the cell another: one thread a unit.
//
// **Version 2, a launch for all steps.** The sequences of a batch do not touch each other: a block takes ROWS of them from the
// first step to the last, their states in shared memory, and no block waits for another. In each step
//
//     all threads     the product with U: ROWS states times a matrix for each gate
//     barrier         a cell needs products that other threads made
//     all threads     the cells: thread i has the units i, i + blockDim.x, .. in every step, and what is theirs alone
//     barrier         the next product needs all states
//
// An array (T, N, D) has unit j of sequence n at step t in place at = (t N + n) D + j; at / D is its place in the mask (T, N).
// In an array (T, N, G) its numbers for the gates lie D apart. Kernels are given n = N D, how far one step lies behind another.
#pragma once
#include "layout.cuh"

#define ROWS 4          // sequences of a block: each weight that is read serves so many multiplications
#define THREADS 512     // of a block, at most. One block a multiprocessor: more registers let more weights be on their way

__device__ __forceinline__ real sigmoid(real x) { return (real)0.5 * tanh((real)0.5 * x) + (real)0.5; }

// A unit's numbers for the gates.
template <int gates> struct Gates { real of[gates]; };

__device__ __forceinline__ int first_gate(int at, int gates, int d) { return at / d * gates * d + at % d; }

// Read from an array (T, N, G), or from one step of it.
template <int gates> __device__ __forceinline__ Gates<gates> take(const real* y, int at, int d) {
    Gates<gates> values;
#pragma unroll
    for (int gate = 0; gate < gates; gate++) values.of[gate] = y[first_gate(at, gates, d) + gate * d];
    return values;
}

template <int gates> __device__ __forceinline__ void put(Gates<gates> values, real* y, int at, int d) {
#pragma unroll
    for (int gate = 0; gate < gates; gate++) y[first_gate(at, gates, d) + gate * d] = values.of[gate];
}

// --- version 2 --------------------------------------------------------------------------------------------------------------

// One unit of all sequences of a block: together, for a product to read them at once. In shared memory, (D) or (G) of these.
struct alignas(16) Rows { real of[ROWS]; };

// How many units the sequences of this block have; the last block may have fewer sequences. Its unit i is first + i of a step.
__device__ __forceinline__ int units(int n, int d) { return min(ROWS * d, n - (int)blockIdx.x * ROWS * d); }

__device__ __forceinline__ real& unit(Rows* y, int i, int d) { return y[i % d].of[i / d]; }

template <int gates> __device__ __forceinline__ Gates<gates> take(const Rows* y, int i, int d) {
    Gates<gates> values;
#pragma unroll
    for (int gate = 0; gate < gates; gate++) values.of[gate] = y[gate * d + i % d].of[i / d];
    return values;
}

template <int gates> __device__ __forceinline__ void put(Gates<gates> values, Rows* y, int i, int d) {
#pragma unroll
    for (int gate = 0; gate < gates; gate++) y[gate * d + i % d].of[i / d] = values.of[gate];
}

// The sum over the gates: U^T e is the sum of the U_i^T e_i.
template <int gates> __device__ __forceinline__ real sum(const Rows* y, int i, int d) {
    real total = 0;
#pragma unroll
    for (int gate = 0; gate < gates; gate++) total += y[gate * d + i % d].of[i / d];
    return total;
}

// Zeros, which rows without a sequence keep.
__device__ __forceinline__ void clear(Rows* shared, int size) {
    for (int i = threadIdx.x; i < size; i += blockDim.x) shared[i] = {};
    __syncthreads();
}

// y = a m for each gate, with a matrix (D, D) for each, one behind the other:
//
//     y[gate][j] = sum over k of a[gate][k] m[gate][k][j]
//
// of all sequences. The gates of a lie `apart`: 0 if all take the same. Threads are neighbours along j, so that they read
// neighbouring weights; what they read of a is the same for all.
__device__ __forceinline__ void product(const Rows* a, int apart, const real* m, Rows* y, int gates, int d) {
    for (int i = threadIdx.x; i < gates * d; i += blockDim.x) {
        int gate = i / d, j = i % d;
        Rows total = {};
#pragma unroll 8
        for (int k = 0; k < d; k++) {
            Rows left = a[gate * apart + k];
            real weight = m[(gate * d + k) * d + j];
#pragma unroll
            for (int row = 0; row < ROWS; row++) total.of[row] += left.of[row] * weight;
        }
        y[i] = total;
    }
}
