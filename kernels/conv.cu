// Two-dimensional convolution and its two gradients: the trilinear form of minigen/ops/conv.py.
//
//     version 1   conv_*_direct: no tiles; one thread an output pixel, or one block a weight. For images of 1 or 3 channels,
//                 whose sums are too short to be matrix products
//     version 2   conv_*_product: the same sums as matrix products (gemm.cuh), whose elements are fetched from where they are:
//                 no unfolded copy of the image is ever made ("implicit GEMM", Chetlur et al. 2014, arXiv 1410.0759)
//
// x (n, i, h, w), weight (o, i, kh, kw), y (n, o, p, q). In products k counts (channel, ky, kx), columns count (image, pixel).
#include "layout.cuh"
#include "block_sum.cuh"
#include "gemm.cuh"

struct Geometry { int n, i, h, w, o, kh, kw, p, q, stride_y, stride_x, pad_y, pad_x, step_y, step_x; };

// x at channel i and tap (ky, kx) of output pixel (p, q); zero in the border.
__device__ __forceinline__ real pixel(const real* x, const Geometry& g, int n, int i, int p, int q, int ky, int kx) {
    int h = p * g.stride_y + ky * g.step_y - g.pad_y, w = q * g.stride_x + kx * g.step_x - g.pad_x;
    return h >= 0 && h < g.h && w >= 0 && w < g.w ? x[((n * g.i + i) * g.h + h) * g.w + w] : (real)0;
}

// y of channel o at the output pixel, if there is one, that sees pixel (h, w) through tap (ky, kx).
__device__ __forceinline__ real seen_by(const real* y, const Geometry& g, int n, int o, int h, int w, int ky, int kx) {
    int p = h + g.pad_y - ky * g.step_y, q = w + g.pad_x - kx * g.step_x;
    if (p < 0 || q < 0 || p % g.stride_y || q % g.stride_x) return 0;
    p /= g.stride_y, q /= g.stride_x;
    return p < g.p && q < g.q ? y[((n * g.o + o) * g.p + p) * g.q + q] : (real)0;
}

// --- version 1 ----------------------------------------------------------------------------------------------------------

extern "C" __global__ void conv_forward_direct(const real* x, const real* weight, real* y, Geometry g, int count) {
    int at = INDEX;
    if (at >= count) return;
    int q = at % g.q, p = at / g.q % g.p, o = at / g.q / g.p % g.o, n = at / g.q / g.p / g.o;
    real total = 0;
    for (int i = 0; i < g.i; i++)
        for (int ky = 0; ky < g.kh; ky++)
            for (int kx = 0; kx < g.kw; kx++)
                total += weight[((o * g.i + i) * g.kh + ky) * g.kw + kx] * pixel(x, g, n, i, p, q, ky, kx);
    y[at] = total;
}

extern "C" __global__ void conv_transpose_direct(const real* y, const real* weight, real* x, Geometry g, int count) {
    int at = INDEX;
    if (at >= count) return;
    int w = at % g.w, h = at / g.w % g.h, i = at / g.w / g.h % g.i, n = at / g.w / g.h / g.i;
    real total = 0;
    for (int o = 0; o < g.o; o++)
        for (int ky = 0; ky < g.kh; ky++)
            for (int kx = 0; kx < g.kw; kx++)
                total += weight[((o * g.i + i) * g.kh + ky) * g.kw + kx] * seen_by(y, g, n, o, h, w, ky, kx);
    x[at] = total;
}

extern "C" __global__ void conv_weight_direct(const real* x, const real* y, real* weight, Geometry g) {
    __shared__ real part[THREADS];
    int at = blockIdx.x, kx = at % g.kw, ky = at / g.kw % g.kh, i = at / g.kw / g.kh % g.i, o = at / g.kw / g.kh / g.i;
    real total = 0;
    for (int j = threadIdx.x; j < g.n * g.p * g.q; j += THREADS) {
        int q = j % g.q, p = j / g.q % g.p, n = j / g.q / g.p;
        total += y[((n * g.o + o) * g.p + p) * g.q + q] * pixel(x, g, n, i, p, q, ky, kx);
    }
    total = block_sum(total, part);
    if (threadIdx.x == 0) weight[at] = total;
}

// --- version 2 ----------------------------------------------------------------------------------------------------------

extern "C" __global__ void __launch_bounds__(256)
conv_forward_product(const real* x, const real* weight, real* y, Geometry g) {
    __shared__ Tiles tiles;
    int taps = g.kh * g.kw, area = g.p * g.q, k = g.i * taps;
    gemm(tiles, g.o, g.n * area, 0, k, [=](int o, int j) { return weight[o * k + j]; },
         [=](int j, int at) {
             int tap = j % taps, pq = at % area;
             return pixel(x, g, at / area, j / taps, pq / g.q, pq % g.q, tap / g.kw, tap % g.kw);
         },
         [=](int o, int at, real value) { y[(at / area * g.o + o) * area + at % area] = value; }, true, false);
}

extern "C" __global__ void __launch_bounds__(256)
conv_transpose_product(const real* y, const real* weight, real* x, Geometry g) {
    __shared__ Tiles tiles;
    int taps = g.kh * g.kw, area = g.h * g.w;
    gemm(tiles, g.i, g.n * area, 0, g.o * taps, [=](int i, int j) { return weight[(j / taps * g.i + i) * taps + j % taps]; },
         [=](int j, int at) {
             int tap = j % taps, hw = at % area;
             return seen_by(y, g, at / area, j / taps, hw / g.w, hw % g.w, tap / g.kw, tap % g.kw);
         },
         [=](int i, int at, real value) { x[(at / area * g.i + i) * area + at % area] = value; }, true, false);
}

// The sum is over images and pixels, many; blockIdx.z takes one of gridDim.z parts of it, and parts (z, o, k) are added after.
extern "C" __global__ void __launch_bounds__(256)
conv_weight_product(const real* x, const real* y, real* parts, Geometry g) {
    __shared__ Tiles tiles;
    int taps = g.kh * g.kw, area = g.p * g.q, k = g.i * taps, each = (g.n * area + gridDim.z - 1) / gridDim.z;
    int first = min((int)blockIdx.z * each, g.n * area);
    parts += blockIdx.z * g.o * k;
    gemm(tiles, g.o, k, first, min(first + each, g.n * area),
         [=](int o, int at) { return y[(at / area * g.o + o) * area + at % area]; },
         [=](int at, int j) {
             int tap = j % taps, pq = at % area;
             return pixel(x, g, at / area, j / taps, pq / g.q, pq % g.q, tap / g.kw, tap % g.kw);
         },
         [=](int o, int j, real value) { parts[o * k + j] = value; }, true, true);
}
