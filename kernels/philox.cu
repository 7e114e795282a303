// Random numbers by counting, uniform and normal: the equations of minigen/ops/philox.py. state: seed, counter.
//
//     version 1   one thread a block of four words: they make four floats or two doubles, 16 bytes, which are written at once
#include "layout.cuh"

#define COUNT (int)(16 / sizeof(real))

struct __align__(16) Numbers { real of[COUNT]; };

__device__ __forceinline__ uint4 philox(unsigned long long counter, unsigned long long seed) {
    uint4 c = make_uint4((unsigned)counter, (unsigned)(counter >> 32), 0, 0);
    unsigned k0 = (unsigned)seed, k1 = (unsigned)(seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const unsigned m0 = 0xD2511F53u, m1 = 0xCD9E8D57u;
        c = make_uint4(__umulhi(m1, c.z) ^ c.y ^ k0, m1 * c.z, __umulhi(m0, c.x) ^ c.w ^ k1, m0 * c.x);
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    return c;
}

// As many bits of a word, or of two, as the number has: in [0, 1), and nothing is rounded.
__device__ __forceinline__ float fraction(unsigned w) { return (w >> 8) * 0x1p-24f; }
__device__ __forceinline__ double fraction(unsigned low, unsigned high) {
    return (((unsigned long long)high << 32 | low) >> 11) * 0x1p-53;
}
__device__ __forceinline__ void fractions(uint4 w, float* u) {
    u[0] = fraction(w.x), u[1] = fraction(w.y), u[2] = fraction(w.z), u[3] = fraction(w.w);
}
__device__ __forceinline__ void fractions(uint4 w, double* u) { u[0] = fraction(w.x, w.y), u[1] = fraction(w.z, w.w); }

// sin and cos of 2 pi u. To sincosf the angle would be handed rounded, and it would need memory for the reduction of large ones.
__device__ __forceinline__ void on_circle(float u, float* s, float* c) { sincospif(2 * u, s, c); }
__device__ __forceinline__ void on_circle(double u, double* s, double* c) { sincospi(2 * u, s, c); }

__device__ __forceinline__ Numbers uniform(const long long* state, int i) {
    Numbers u;
    fractions(philox((unsigned long long)state[1] + i, state[0]), u.of);
    return u;
}

__device__ __forceinline__ void write(Numbers x, real* y, int i, int n) {
    int left = n - COUNT * i;
    if (left >= COUNT) {
        *reinterpret_cast<Numbers*>(y + COUNT * i) = x;
        return;
    }
#pragma unroll
    for (int j = 0; j < COUNT; j++)
        if (j < left) y[COUNT * i + j] = x.of[j];
}

extern "C" __global__ void philox_uniform(const long long* state, real* y, int n) {
    int i = INDEX;
    if (i <= (n - 1) / COUNT) write(uniform(state, i), y, i, n);
}

extern "C" __global__ void philox_normal(const long long* state, real* y, int n) {
    int i = INDEX;
    if (i > (n - 1) / COUNT) return;
    Numbers x = uniform(state, i);
#pragma unroll
    for (int j = 0; j < COUNT; j += 2) {
        real radius = sqrt(-2 * log(1 - x.of[j])), s, c;
        on_circle(x.of[j + 1], &s, &c);
        x.of[j] = radius * c, x.of[j + 1] = radius * s;
    }
    write(x, y, i, n);
}

// One thread, in a launch of its own after the draw: every block of the draw reads the counter, and only the end of a launch
// says that all of them have.
extern "C" __global__ void philox_advance(long long* state, long long blocks) { state[1] += blocks; }
