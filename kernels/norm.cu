// Batch and layer normalisation: the equations of minigen/ops/norm.py.
//
//     version 1   one block a mean: a channel (batch norm) or a row (layer norm); each value is read three times
//
// Sums for means and variances are in double precision: a mean near zero of many values would otherwise lose its digits.
#include "layout.cuh"
#include "act.cuh"
#include "block_sum.cuh"

struct Statistics { real mean, inv_std; };

// Of n values x(i), which the threads of a block read twice.
template <class Value> __device__ __forceinline__ Statistics statistics(Value x, int n, real eps, double* part) {
    double total = 0;
    for (int i = threadIdx.x; i < n; i += THREADS) total += x(i);
    real mean = block_sum(total, part) / n;
    total = 0;
    for (int i = threadIdx.x; i < n; i += THREADS) total += (x(i) - mean) * (x(i) - mean);
    return {mean, (real)(1 / sqrt(block_sum(total, part) / n + eps))};
}

// x (count, channels, length): value i of a channel, of count * length.
#define AT ((i / length * channels + channel) * length + i % length)

extern "C" __global__ void batch_norm_forward(const real* x, const real* weight, const real* bias, real eps, real slope, real* y,
                                              real* mean, real* inv_std, int count, int channels, int length) {
    __shared__ double part[THREADS];
    int channel = blockIdx.x, n = count * length;
    auto [m, s] = statistics([=](int i) { return x[AT]; }, n, eps, part);
    if (threadIdx.x == 0) mean[channel] = m, inv_std[channel] = s;
    for (int i = threadIdx.x; i < n; i += THREADS) y[AT] = act((x[AT] - m) * (weight[channel] * s) + bias[channel], slope);
}

extern "C" __global__ void batch_norm_backward(const real* dy, const real* x, const real* y, const real* mean,
                                               const real* inv_std, const real* weight, real slope, real* dx, real* dweight,
                                               real* dbias, int count, int channels, int length) {
    __shared__ real part[THREADS];
    int channel = blockIdx.x, n = count * length;
    real m = mean[channel], s = inv_std[channel], sum_d = 0, sum_dxh = 0;
    for (int i = threadIdx.x; i < n; i += THREADS) {
        real d = through(dy[AT], y[AT], slope);
        sum_d += d;
        sum_dxh += d * (x[AT] - m) * s;
    }
    sum_d = block_sum(sum_d, part), sum_dxh = block_sum(sum_dxh, part);
    if (threadIdx.x == 0) dbias[channel] = sum_d, dweight[channel] = sum_dxh;
    for (int i = threadIdx.x; i < n; i += THREADS)
        dx[AT] = weight[channel] * s * (through(dy[AT], y[AT], slope) - sum_d / n - (x[AT] - m) * s * (sum_dxh / n));
}

extern "C" __global__ void layer_norm_forward(const real* x, const real* weight, const real* bias, real eps, real* y, real* mean,
                                              real* inv_std, int size) {
    __shared__ double part[THREADS];
    int row = blockIdx.x;
    x += row * size, y += row * size;
    auto [m, s] = statistics([=](int d) { return x[d]; }, size, eps, part);
    if (threadIdx.x == 0) mean[row] = m, inv_std[row] = s;
    for (int d = threadIdx.x; d < size; d += THREADS) y[d] = (x[d] - m) * s * weight[d] + bias[d];
}

extern "C" __global__ void layer_norm_backward(const real* dy, const real* x, const real* mean, const real* inv_std,
                                               const real* weight, real* dx, int size) {
    __shared__ real part[THREADS];
    int row = blockIdx.x;
    x += row * size, dy += row * size, dx += row * size;
    real m = mean[row], s = inv_std[row], sum_d = 0, sum_dxh = 0;
    for (int d = threadIdx.x; d < size; d += THREADS) {
        sum_d += dy[d] * weight[d];
        sum_dxh += dy[d] * weight[d] * (x[d] - m) * s;
    }
    sum_d = block_sum(sum_d, part), sum_dxh = block_sum(sum_dxh, part);
    for (int d = threadIdx.x; d < size; d += THREADS)
        dx[d] = s * (dy[d] * weight[d] - sum_d / size - (x[d] - m) * s * (sum_dxh / size));
}

// The sums over rows, one thread a column: neighbours read neighbours.
extern "C" __global__ void layer_norm_parameters(const real* dy, const real* x, const real* mean, const real* inv_std,
                                                 real* dweight, real* dbias, int rows, int size) {
    int d = INDEX;
    if (d >= size) return;
    real sum_d = 0, sum_dxh = 0;
    for (int row = 0; row < rows; row++) {
        sum_d += dy[row * size + d];
        sum_dxh += dy[row * size + d] * (x[row * size + d] - mean[row]) * inv_std[row];
    }
    dweight[d] = sum_dxh, dbias[d] = sum_d;
}
