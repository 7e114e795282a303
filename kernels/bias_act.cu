// Bias and leaky ReLU, x (n, c, l) and a bias for each c: y = act(x + b), and back.
//
//     version 1   forward: one thread an element; backward: one block a channel, which also sums its db in a fixed order
#include "layout.cuh"
#include "act.cuh"
#include "block_sum.cuh"

extern "C" __global__ void bias_act_forward(const real* x, const real* bias, real slope, real* y, int channels, int length, int n) {
    int i = INDEX;
    if (i >= n) return;
    y[i] = act(x[i] + bias[i / length % channels], slope);
}

extern "C" __global__ void bias_act_backward(const real* dy, const real* y, real slope, real* dx, real* dbias, int count,
                                             int channels, int length) {
    __shared__ real part[THREADS];
    int t = threadIdx.x, channel = blockIdx.x;
    real total = 0;
    for (int i = t; i < count * length; i += THREADS) {
        int at = (i / length * channels + channel) * length + i % length;
        real d = through(dy[at], y[at], slope);
        dx[at] = d;
        total += d;
    }
    total = block_sum(total, part);
    if (t == 0) dbias[channel] = total;
}
