// Scans of Elman's net: the equations of minigen/ops/rnn.py. scan.cuh says how each version shares the work.
//
//     version 1   rnn_.._step: one step, one thread a unit; the product with U is a launch before it
//     version 2   rnn_.._scan: all steps in one launch, a block owns ROWS sequences
//
//     forward             k = tanh(x + U h + b)                        h: the state before the step, k: the one after it
//     backward            dk <- dk + dh_t,   da = dk (1 - k^2),        dh = U^T da
//     tangent             va = v + U vh,                               vk = va (1 - k^2)
//     backward_tangent    vda = vdk (1 - k^2) - 2 dk k vk,             vdh = U^T vda + av
//
// The last two are the double backward's sweeps. What waits for no sweep, the host has computed for all steps: au = U^T da,
// av = vU^T da, and v = vx + vU h + vb. Where a step does not exist, states and their gradients pass unchanged and da is 0.
// On its way back a state's gradient is in two parts: what passes is in dh, and u = U^T da comes from the step behind.
#include "scan.cuh"

// --- one unit, one step -----------------------------------------------------------------------------------------------------

// The state after the step.
__device__ __forceinline__ real cell(real u, real h, int at, const real* x, const real* bias, const unsigned char* mask,
                                     int d) {
    return mask[at / d] ? tanh(x[at] + u + bias[at % d]) : h;
}

// da; dh becomes what passes.
__device__ __forceinline__ real cell_backward(real u, real& dh, int at, const real* dh_t, const real* k_t,
                                              const unsigned char* mask, real* da, int d) {
    real dk = dh + u + dh_t[at], k = k_t[at];
    bool exists = mask[at / d];
    dh = exists ? 0 : dk;
    return da[at] = exists ? dk * (1 - k * k) : 0;
}

__device__ __forceinline__ real cell_tangent(real vu, real vh, int at, const real* v, const real* k_t,
                                             const unsigned char* mask, int d) {
    real va = v[at] + vu, k = k_t[at];
    return mask[at / d] ? va * (1 - k * k) : vh;
}

__device__ __forceinline__ real cell_backward_tangent(real vu, real& dh, real& vdh, int at, const real* au, const real* av,
                                                      const real* dh_t, const real* k_t, const real* vk_t,
                                                      const unsigned char* mask, real* vda, int d) {
    real dk = dh + dh_t[at], vdk = vdh + vu, k = k_t[at], vk = vk_t[at];
    bool exists = mask[at / d];
    dh = (exists ? 0 : dk) + au[at], vdh = (exists ? 0 : vdk) + av[at];
    return vda[at] = exists ? vdk * (1 - k * k) - 2 * dk * k * vk : 0;
}

// --- version 1 --------------------------------------------------------------------------------------------------------------

extern "C" __global__ void rnn_forward_step(const real* u, const real* x, const real* bias, const unsigned char* mask, real* h,
                                            int t, int n, int d) {
    int i = INDEX, at = t * n + i;
    if (i < n) h[at + n] = cell(u[i], h[at], at, x, bias, mask, d);
}

extern "C" __global__ void rnn_backward_step(const real* u, const real* dh_t, const real* h, const unsigned char* mask,
                                             real* dh, real* da, int t, int n, int d) {
    int i = INDEX;
    if (i < n) cell_backward(u[i], dh[i], t * n + i, dh_t, h + n, mask, da, d);
}

extern "C" __global__ void rnn_tangent_step(const real* vu, const real* v, const real* h, const unsigned char* mask, real* vh,
                                            int t, int n, int d) {
    int i = INDEX, at = t * n + i;
    if (i < n) vh[at + n] = cell_tangent(vu[i], vh[at], at, v, h + n, mask, d);
}

extern "C" __global__ void rnn_backward_tangent_step(const real* vu, const real* au, const real* av, const real* dh_t,
                                                     const real* h, const real* vh, const unsigned char* mask, real* dh,
                                                     real* vdh, real* vda, int t, int n, int d) {
    int i = INDEX;
    if (i < n) cell_backward_tangent(vu[i], dh[i], vdh[i], t * n + i, au, av, dh_t, h + n, vh + n, mask, vda, d);
}

// --- version 2 --------------------------------------------------------------------------------------------------------------

// h begins with the initial state; the others are written behind it. ut is U^T.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
rnn_forward_scan(const real* ut, const real* x, const real* bias, const unsigned char* mask, real* h, int steps, int n, int d) {
    extern __shared__ Rows shared[];
    Rows *state = shared, *u = state + d;
    int first = blockIdx.x * ROWS * d, own = units(n, d);
    clear(shared, 2 * d);
    for (int i = threadIdx.x; i < own; i += blockDim.x) unit(state, i, d) = h[first + i];
    __syncthreads();
    for (int t = 0; t < steps; t++) {
        product(state, 0, ut, u, 1, d);
        __syncthreads();
        for (int i = threadIdx.x; i < own; i += blockDim.x) {
            int at = t * n + first + i;
            h[at + n] = unit(state, i, d) = cell(unit(u, i, d), unit(state, i, d), at, x, bias, mask, d);
        }
        __syncthreads();
    }
}

// dh is given as zeros and becomes the initial state's gradient.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
rnn_backward_scan(const real* w, const real* dh_t, const real* h, const unsigned char* mask, real* dh, real* da, int steps,
                  int n, int d) {
    extern __shared__ Rows shared[];
    Rows *e = shared, *u = e + d;
    int first = blockIdx.x * ROWS * d, own = units(n, d);
    clear(shared, 2 * d);
    for (int t = steps - 1; t >= 0; t--) {
        for (int i = threadIdx.x; i < own; i += blockDim.x) {
            int at = t * n + first + i;
            unit(e, i, d) = cell_backward(unit(u, i, d), dh[first + i], at, dh_t, h + n, mask, da, d);
        }
        __syncthreads();
        product(e, 0, w, u, 1, d);
        __syncthreads();
    }
    for (int i = threadIdx.x; i < own; i += blockDim.x) dh[first + i] += unit(u, i, d);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
rnn_tangent_scan(const real* ut, const real* v, const real* h, const unsigned char* mask, real* vh, int steps, int n, int d) {
    extern __shared__ Rows shared[];
    Rows *state = shared, *vu = state + d;
    int first = blockIdx.x * ROWS * d, own = units(n, d);
    clear(shared, 2 * d);
    for (int i = threadIdx.x; i < own; i += blockDim.x) unit(state, i, d) = vh[first + i];
    __syncthreads();
    for (int t = 0; t < steps; t++) {
        product(state, 0, ut, vu, 1, d);
        __syncthreads();
        for (int i = threadIdx.x; i < own; i += blockDim.x) {
            int at = t * n + first + i;
            vh[at + n] = unit(state, i, d) = cell_tangent(unit(vu, i, d), unit(state, i, d), at, v, h + n, mask, d);
        }
        __syncthreads();
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
rnn_backward_tangent_scan(const real* w, const real* au, const real* av, const real* dh_t, const real* h, const real* vh,
                          const unsigned char* mask, real* dh, real* vdh, real* vda, int steps, int n, int d) {
    extern __shared__ Rows shared[];
    Rows *ve = shared, *vu = ve + d;
    int first = blockIdx.x * ROWS * d, own = units(n, d);
    clear(shared, 2 * d);
    for (int t = steps - 1; t >= 0; t--) {
        for (int i = threadIdx.x; i < own; i += blockDim.x) {
            int place = first + i, at = t * n + place;
            unit(ve, i, d) = cell_backward_tangent(unit(vu, i, d), dh[place], vdh[place], at, au, av, dh_t, h + n, vh + n, mask,
                                                   vda, d);
        }
        __syncthreads();
        product(ve, 0, w, vu, 1, d);
        __syncthreads();
    }
    for (int i = threadIdx.x; i < own; i += blockDim.x) vdh[first + i] += unit(vu, i, d);
}
