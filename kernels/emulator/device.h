// What a .cu file finds instead of CUDA's headers when g++ compiles it (`__init__.py` tells how). Everything is declared with
// the names and types of the CUDA C++ Programming Guide; runtime.cpp carries out what needs the other threads.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>

#define MINIGEN_EMULATED 1

#define __global__
#define __device__
#define __host__
#define __constant__ static
// One host thread runs all threads of a block, so what is static is shared. The linker tells where the section begins and ends.
#define __shared__ static __attribute__((section("emulator_shared")))
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

// --- where a thread is ------------------------------------------------------------------------------------------------------

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x = 1, y = 1, z = 1; };

extern "C" {
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
}
constexpr int warpSize = 32;

// --- vectors ----------------------------------------------------------------------------------------------------------------

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// --- barriers, and what the threads of a warp tell each other ---------------------------------------------------------------

extern "C" {
void* emulator_dynamic_shared();        // `extern __shared__ T name[];` is read as `T* name = (T*)` this
void emulator_barrier(int line);
int emulator_barrier_count(int predicate, int line);
// Waits for all lanes of the mask; then seen[i], 8 bytes each, holds what lane i gave. Returns this thread's lane.
int emulator_meet(unsigned mask, const void* value, unsigned size, const uint64_t** seen, int orders_memory, int line);
void emulator_atomic(const void* address, unsigned size, const void* caller);
}

inline void __syncthreads(int line = __builtin_LINE()) { emulator_barrier(line); }
inline int __syncthreads_count(int predicate, int line = __builtin_LINE()) { return emulator_barrier_count(predicate, line); }
inline int __syncthreads_or(int predicate, int line = __builtin_LINE()) { return emulator_barrier_count(predicate, line) > 0; }
inline int __syncthreads_and(int predicate, int line = __builtin_LINE()) { return emulator_barrier_count(!predicate, line) == 0; }

inline void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE()) {
    const uint64_t* seen;
    emulator_meet(mask, nullptr, 0, &seen, 1, line);
}

// The lane a value comes from is worked out as the Programming Guide's section on warp shuffles says.
template <class T, class Source>
__attribute__((no_sanitize_thread, noinline)) T emulator_shuffle(unsigned mask, T value, int line, Source source) {
    static_assert(sizeof(T) <= 8);
    const uint64_t* seen;
    int lane = emulator_meet(mask, &value, sizeof(T), &seen, 0, line);
    T result;
    std::memcpy(&result, &seen[source(lane)], sizeof(T));
    return result;
}
template <class T> T __shfl_sync(unsigned mask, T value, int from, int width = 32, int line = __builtin_LINE()) {
    return emulator_shuffle(mask, value, line, [=](int lane) { return lane / width * width + (from & (width - 1)); });
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32, int line = __builtin_LINE()) {
    return emulator_shuffle(mask, value, line, [=](int lane) { return lane % width < (int)by ? lane : lane - (int)by; });
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32, int line = __builtin_LINE()) {
    return emulator_shuffle(mask, value, line, [=](int lane) { return lane % width + (int)by >= width ? lane : lane + (int)by; });
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int by, int width = 32, int line = __builtin_LINE()) {
    return emulator_shuffle(mask, value, line,
                            [=](int lane) { return (lane ^ by) / width <= lane / width ? lane ^ by : lane; });
}
__attribute__((no_sanitize_thread, noinline)) inline unsigned __ballot_sync(unsigned mask, int predicate,
                                                                            int line = __builtin_LINE()) {
    const uint64_t* seen;
    int given = predicate != 0;
    emulator_meet(mask, &given, sizeof given, &seen, 0, line);
    unsigned votes = 0;
    for (int lane = 0; lane < 32; lane++)
        if (mask >> lane & 1 && seen[lane]) votes |= 1u << lane;
    return votes;
}
inline int __any_sync(unsigned mask, int p, int line = __builtin_LINE()) { return __ballot_sync(mask, p, line) != 0; }
inline int __all_sync(unsigned mask, int p, int line = __builtin_LINE()) { return __ballot_sync(mask, p, line) == mask; }

inline void __threadfence() {}
inline void __threadfence_block() {}

// --- atomics: only one thread runs at a time, so they need no more than to be marked ------------------------------------------

#define ATOMIC __attribute__((always_inline)) inline     // so that a report names the line that called it
template <class T, class F> __attribute__((no_sanitize_thread, noinline)) T emulator_update(T* address, F f) {
    emulator_atomic(address, sizeof(T), __builtin_return_address(0));
    T old = *address;
    *address = f(old);
    return old;
}
template <class T> ATOMIC T atomicAdd(T* a, T v) { return emulator_update(a, [=](T old) { return (T)(old + v); }); }
template <class T> ATOMIC T atomicSub(T* a, T v) { return emulator_update(a, [=](T old) { return (T)(old - v); }); }
template <class T> ATOMIC T atomicExch(T* a, T v) { return emulator_update(a, [=](T) { return v; }); }
template <class T> ATOMIC T atomicMin(T* a, T v) { return emulator_update(a, [=](T old) { return v < old ? v : old; }); }
template <class T> ATOMIC T atomicMax(T* a, T v) { return emulator_update(a, [=](T old) { return v > old ? v : old; }); }
template <class T> ATOMIC T atomicOr(T* a, T v) { return emulator_update(a, [=](T old) { return old | v; }); }
template <class T> ATOMIC T atomicAnd(T* a, T v) { return emulator_update(a, [=](T old) { return old & v; }); }
template <class T> ATOMIC T atomicCAS(T* a, T expected, T v) {
    return emulator_update(a, [=](T old) { return old == expected ? v : old; });
}

// --- arithmetic -------------------------------------------------------------------------------------------------------------

using std::abs, std::ceil, std::exp, std::fabs, std::floor, std::fma, std::fmax, std::fmin, std::fmod, std::isfinite, std::isinf,
    std::isnan, std::log, std::log1p, std::log2, std::pow, std::round, std::sqrt, std::tanh;

template <class T> T min(T a, T b) { return b < a ? b : a; }
template <class T> T max(T a, T b) { return a < b ? b : a; }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline float rsqrt(float x) { return 1 / std::sqrt(x); }
inline double rsqrt(double x) { return 1 / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline void sincospif(float x, float* s, float* c) { *s = std::sin(x * 3.14159265358979323846), *c = std::cos(x * 3.14159265358979323846); }
inline void sincospi(double x, double* s, double* c) { *s = std::sin(x * 3.14159265358979323846), *c = std::cos(x * 3.14159265358979323846); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (uint64_t)a * b >> 32; }
inline int __float_as_int(float x) { int i; std::memcpy(&i, &x, 4); return i; }
inline float __int_as_float(int i) { float x; std::memcpy(&x, &i, 4); return x; }
inline long long __double_as_longlong(double x) { long long i; std::memcpy(&i, &x, 8); return i; }
inline double __longlong_as_double(long long i) { double x; std::memcpy(&x, &i, 8); return x; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
template <class T> T __ldg(const T* p) { return *p; }
