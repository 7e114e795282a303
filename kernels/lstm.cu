// Scans of the LSTM: the equations of minigen/ops/lstm.py. Read rnn.cu first.
//
//     version 1   lstm_.._step: one step, one thread a unit; the product with U is a launch before it
//     version 2   lstm_.._scan: all steps in one launch, a block owns ROWS sequences
//
//     forward             a = x + U h + b;   i, f, o = s(a_i), s(a_f), s(a_o),   g = tanh(a_g)
//                         c' = f c + i g,   k = tanh(c'),   h' = o k
//     backward            dh' <- dh' + dh_t,   dc' <- dc' + dh' o (1 - k^2)
//                         da_i = dc' g i (1 - i),   da_f = dc' c f (1 - f),   da_g = dc' i (1 - g^2),   da_o = dh' k o (1 - o)
//                         dc = dc' f,   dh = U^T da
//     tangent             the forward's lines by the product rule
//     backward_tangent    the backward's lines by the product rule; vdh = U^T vda + vU^T da
//
// h, c are the states before the step, h', c' after it. What waits for no sweep, the host has computed for all steps:
// au = U^T da, av = vU^T da, and v = vx + vU h + vb. Where a step does not exist, states and their gradients pass unchanged,
// and gates and da are 0. On its way back the gradient of h is in two parts: what passes is in dh, and u = U^T da comes from
// the step behind.
#include "scan.cuh"

// --- one unit, one step -----------------------------------------------------------------------------------------------------

// h after the step; c after it is written n places behind c before it.
__device__ __forceinline__ real cell(Gates<4> u, real h, int at, const real* x, const real* bias, const unsigned char* mask,
                                     real* c_t, real* gates, int n, int d) {
    auto [ui, uf, ug, uo] = u.of;
    auto [xi, xf, xg, xo] = take<4>(x, at, d).of;
    auto [bi, bf, bg, bo] = take<4>(bias, at % d, d).of;
    real i = sigmoid(xi + ui + bi), f = sigmoid(xf + uf + bf), g = tanh(xg + ug + bg), o = sigmoid(xo + uo + bo);
    bool exists = mask[at / d];
    real c = exists ? f * c_t[at] + i * g : c_t[at];
    put(exists ? Gates<4>{i, f, g, o} : Gates<4>{}, gates, at, d);
    c_t[at + n] = c;
    return exists ? o * tanh(c) : h;
}

// da; dh and dc become what passes.
__device__ __forceinline__ Gates<4> cell_backward(real u, real& dh, real& dc, int at, const real* dh_t, const real* c_t,
                                                  const real* gates, const unsigned char* mask, real* da_t, int n, int d) {
    auto [i, f, g, o] = take<4>(gates, at, d).of;
    real c = c_t[at], k = tanh(c_t[at + n]);
    bool exists = mask[at / d];
    dh += u + dh_t[at];
    real dk = dc + dh * o * (1 - k * k);
    Gates<4> da = {dk * g * i * (1 - i), dk * c * f * (1 - f), dk * i * (1 - g * g), dh * k * o * (1 - o)};
    da = exists ? da : Gates<4>{};
    put(da, da_t, at, d);
    dc = exists ? dk * f : dc, dh = exists ? 0 : dh;
    return da;
}

__device__ __forceinline__ real cell_tangent(Gates<4> vu, real vh, int at, const real* v, const real* c_t, const real* gates,
                                             const unsigned char* mask, real* vc_t, real* vgates, int n, int d) {
    auto [vui, vuf, vug, vuo] = vu.of;
    auto [vai, vaf, vag, vao] = take<4>(v, at, d).of;
    auto [i, f, g, o] = take<4>(gates, at, d).of;
    real c = c_t[at], k = tanh(c_t[at + n]), vc = vc_t[at];
    real vi = i * (1 - i) * (vai + vui), vf = f * (1 - f) * (vaf + vuf);
    real vg = (1 - g * g) * (vag + vug), vo = o * (1 - o) * (vao + vuo);
    bool exists = mask[at / d];
    vc = exists ? vf * c + f * vc + vi * g + i * vg : vc;
    put(Gates<4>{vi, vf, vg, vo}, vgates, at, d);
    vc_t[at + n] = vc;
    return exists ? vo * k + o * (1 - k * k) * vc : vh;
}

__device__ __forceinline__ Gates<4> cell_backward_tangent(real vu, real& dh, real& dc, real& vdh, real& vdc, int at,
                                                          const real* au, const real* av, const real* dh_t, const real* c_t,
                                                          const real* vc_t, const real* gates, const real* vgates,
                                                          const unsigned char* mask, real* vda_t, int n, int d) {
    auto [i, f, g, o] = take<4>(gates, at, d).of;
    auto [vi, vf, vg, vo] = take<4>(vgates, at, d).of;
    real c = c_t[at], k = tanh(c_t[at + n]), slope = 1 - k * k, vc = vc_t[at], vk = slope * vc_t[at + n];
    bool exists = mask[at / d];
    dh += dh_t[at], vdh += vu;
    real dk = dc + dh * o * slope;
    real vdk = vdc + vdh * o * slope + dh * vo * slope - 2 * dh * o * k * vk;
    Gates<4> vda = {(vdk * g + dk * vg) * i * (1 - i) + dk * g * (1 - 2 * i) * vi,
                    (vdk * c + dk * vc) * f * (1 - f) + dk * c * (1 - 2 * f) * vf,
                    (vdk * i + dk * vi) * (1 - g * g) - 2 * dk * i * g * vg,
                    (vdh * k + dh * vk) * o * (1 - o) + dh * k * (1 - 2 * o) * vo};
    vda = exists ? vda : Gates<4>{};
    put(vda, vda_t, at, d);
    dc = exists ? dk * f : dc, vdc = exists ? vdk * f + dk * vf : vdc;
    dh = (exists ? 0 : dh) + au[at], vdh = (exists ? 0 : vdh) + av[at];
    return vda;
}

// --- version 1 --------------------------------------------------------------------------------------------------------------

extern "C" __global__ void lstm_forward_step(const real* u, const real* x, const real* bias, const unsigned char* mask, real* h,
                                             real* c, real* gates, int t, int n, int d) {
    int i = INDEX, at = t * n + i;
    if (i < n) h[at + n] = cell(take<4>(u, i, d), h[at], at, x, bias, mask, c, gates, n, d);
}

extern "C" __global__ void lstm_backward_step(const real* u, const real* dh_t, const real* c, const real* gates,
                                              const unsigned char* mask, real* dh, real* dc, real* da, int t, int n, int d) {
    int i = INDEX;
    if (i < n) cell_backward(u[i], dh[i], dc[i], t * n + i, dh_t, c, gates, mask, da, n, d);
}

extern "C" __global__ void lstm_tangent_step(const real* vu, const real* v, const real* c, const real* gates,
                                             const unsigned char* mask, real* vh, real* vc, real* vgates, int t, int n, int d) {
    int i = INDEX, at = t * n + i;
    if (i < n) vh[at + n] = cell_tangent(take<4>(vu, i, d), vh[at], at, v, c, gates, mask, vc, vgates, n, d);
}

extern "C" __global__ void lstm_backward_tangent_step(const real* vu, const real* au, const real* av, const real* dh_t,
                                                      const real* c, const real* vc, const real* gates, const real* vgates,
                                                      const unsigned char* mask, real* dh, real* dc, real* vdh, real* vdc,
                                                      real* vda, int t, int n, int d) {
    int i = INDEX, at = t * n + i;
    if (i < n)
        cell_backward_tangent(vu[i], dh[i], dc[i], vdh[i], vdc[i], at, au, av, dh_t, c, vc, gates, vgates, mask, vda, n, d);
}

// --- version 2 --------------------------------------------------------------------------------------------------------------

// h and c begin with the initial states; the others are written behind them. ut is U^T of each gate.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
lstm_forward_scan(const real* ut, const real* x, const real* bias, const unsigned char* mask, real* h, real* c, real* gates,
                  int steps, int n, int d) {
    extern __shared__ Rows shared[];
    Rows *state = shared, *u = state + d;
    int first = blockIdx.x * ROWS * d, own = units(n, d);
    clear(shared, 5 * d);
    for (int i = threadIdx.x; i < own; i += blockDim.x) unit(state, i, d) = h[first + i];
    __syncthreads();
    for (int t = 0; t < steps; t++) {
        product(state, 0, ut, u, 4, d);
        __syncthreads();
        for (int i = threadIdx.x; i < own; i += blockDim.x) {
            int at = t * n + first + i;
            h[at + n] = unit(state, i, d) = cell(take<4>(u, i, d), unit(state, i, d), at, x, bias, mask, c, gates, n, d);
        }
        __syncthreads();
    }
}

// dh is given as zeros, dc as the last state's gradient; they become the initial states'.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
lstm_backward_scan(const real* w, const real* dh_t, const real* c, const real* gates, const unsigned char* mask, real* dh,
                   real* dc, real* da, int steps, int n, int d) {
    extern __shared__ Rows shared[];
    Rows *rows = shared, *u = rows + 4 * d;
    int first = blockIdx.x * ROWS * d, own = units(n, d);
    clear(shared, 8 * d);
    for (int t = steps - 1; t >= 0; t--) {
        for (int i = threadIdx.x; i < own; i += blockDim.x) {
            int place = first + i, at = t * n + place;
            put(cell_backward(sum<4>(u, i, d), dh[place], dc[place], at, dh_t, c, gates, mask, da, n, d), rows, i, d);
        }
        __syncthreads();
        product(rows, d, w, u, 4, d);
        __syncthreads();
    }
    for (int i = threadIdx.x; i < own; i += blockDim.x) dh[first + i] += sum<4>(u, i, d);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
lstm_tangent_scan(const real* ut, const real* v, const real* c, const real* gates, const unsigned char* mask, real* vh,
                  real* vc, real* vgates, int steps, int n, int d) {
    extern __shared__ Rows shared[];
    Rows *state = shared, *vu = state + d;
    int first = blockIdx.x * ROWS * d, own = units(n, d);
    clear(shared, 5 * d);
    for (int i = threadIdx.x; i < own; i += blockDim.x) unit(state, i, d) = vh[first + i];
    __syncthreads();
    for (int t = 0; t < steps; t++) {
        product(state, 0, ut, vu, 4, d);
        __syncthreads();
        for (int i = threadIdx.x; i < own; i += blockDim.x) {
            int at = t * n + first + i;
            real vh_i = cell_tangent(take<4>(vu, i, d), unit(state, i, d), at, v, c, gates, mask, vc, vgates, n, d);
            vh[at + n] = unit(state, i, d) = vh_i;
        }
        __syncthreads();
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
lstm_backward_tangent_scan(const real* w, const real* au, const real* av, const real* dh_t, const real* c, const real* vc,
                           const real* gates, const real* vgates, const unsigned char* mask, real* dh, real* dc, real* vdh,
                           real* vdc, real* vda, int steps, int n, int d) {
    extern __shared__ Rows shared[];
    Rows *rows = shared, *vu = rows + 4 * d;
    int first = blockIdx.x * ROWS * d, own = units(n, d);
    clear(shared, 8 * d);
    for (int t = steps - 1; t >= 0; t--) {
        for (int i = threadIdx.x; i < own; i += blockDim.x) {
            int place = first + i, at = t * n + place;
            Gates<4> vda_i = cell_backward_tangent(sum<4>(vu, i, d), dh[place], dc[place], vdh[place], vdc[place], at, au, av,
                                                   dh_t, c, vc, gates, vgates, mask, vda, n, d);
            put(vda_i, rows, i, d);
        }
        __syncthreads();
        product(rows, d, w, vu, 4, d);
        __syncthreads();
    }
    for (int i = threadIdx.x; i < own; i += blockDim.x) vdh[first + i] += sum<4>(vu, i, d);
}
