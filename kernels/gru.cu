// Scans of the GRU with the reset gate after the product: the equations of minigen/ops/gru.py. Read rnn.cu first.
//
//     version 1   gru_.._step: one step, one thread a unit; the product with U is a launch before it
//     version 2   gru_.._scan: all steps in one launch, a block owns ROWS sequences
//
//     forward             u = U h;   r = s(x_r + u_r + b_r),   z = s(x_z + u_z + b_z),   q = u_n + b_q
//                         n = tanh(x_n + b_n + r q),   h' = n + z (h - n)
//     backward            dh' <- dh' + dh_t;   da_n = dh' (1 - z) (1 - n^2),   da_z = dh' (h - n) z (1 - z)
//                         da_r = da_n q r (1 - r);   e = (da_r, da_z, da_n r),   dh = dh' z + U^T e
//     tangent             the forward's lines by the product rule
//     backward_tangent    the backward's lines by the product rule; vdh = vdh' z + dh' vz + U^T ve + vU^T e
//
// h is the state before the step, h' after it; x's gradient is da = (da_r, da_z, da_n). What waits for no sweep, the host has
// computed for all steps: eu = U^T e, ev = vU^T e, and v, what the tangents of (a_r, a_z, a_n, q) have beside U vh. Where a
// step does not exist, states and their gradients pass unchanged, and gates, da and e are 0. On its way back a state's gradient
// is in two parts: what passes is in dh, and u = U^T e comes from the step behind.
#include "scan.cuh"

// --- one unit, one step -----------------------------------------------------------------------------------------------------

// The state after the step.
__device__ __forceinline__ real cell(Gates<3> u, real h, int at, const real* x, const real* bias, const unsigned char* mask,
                                     real* gates, int d) {
    auto [ur, uz, un] = u.of;
    auto [xr, xz, xn] = take<3>(x, at, d).of;
    auto [br, bz, bn, bq] = take<4>(bias, at % d, d).of;
    real r = sigmoid(xr + ur + br), z = sigmoid(xz + uz + bz), q = un + bq, n = tanh(xn + bn + r * q);
    bool exists = mask[at / d];
    put(exists ? Gates<4>{r, z, n, q} : Gates<4>{}, gates, at, d);
    return exists ? n + z * (h - n) : h;
}

// e; dh becomes what passes.
__device__ __forceinline__ Gates<3> cell_backward(real u, real& dh, int at, const real* dh_t, const real* h_t,
                                                  const real* gates, const unsigned char* mask, real* da, real* e, int d) {
    auto [r, z, n, q] = take<4>(gates, at, d).of;
    real h = h_t[at];
    bool exists = mask[at / d];
    dh += u + dh_t[at];
    real da_n = dh * (1 - z) * (1 - n * n), da_z = dh * (h - n) * z * (1 - z), da_r = da_n * q * r * (1 - r);
    Gates<3> e_t = exists ? Gates<3>{da_r, da_z, da_n * r} : Gates<3>{};
    put(exists ? Gates<3>{da_r, da_z, da_n} : Gates<3>{}, da, at, d);
    put(e_t, e, at, d);
    dh = exists ? dh * z : dh;
    return e_t;
}

__device__ __forceinline__ real cell_tangent(Gates<3> vu, real vh, int at, const real* v, const real* h_t, const real* gates,
                                             const unsigned char* mask, real* vgates, int d) {
    auto [vur, vuz, vun] = vu.of;
    auto [var, vaz, van, vaq] = take<4>(v, at, d).of;
    auto [r, z, n, q] = take<4>(gates, at, d).of;
    real h = h_t[at], vr = r * (1 - r) * (var + vur), vz = z * (1 - z) * (vaz + vuz), vq = vaq + vun;
    real vn = (1 - n * n) * (van + vr * q + r * vq);
    put(Gates<4>{vr, vz, vn, vq}, vgates, at, d);
    return mask[at / d] ? vn + vz * (h - n) + z * (vh - vn) : vh;
}

__device__ __forceinline__ Gates<3> cell_backward_tangent(real vu, real& dh, real& vdh, int at, const real* eu, const real* ev,
                                                          const real* dh_t, const real* h_t, const real* vh_t,
                                                          const real* gates, const real* vgates, const real* da,
                                                          const unsigned char* mask, real* vda, real* ve, int d) {
    auto [r, z, n, q] = take<4>(gates, at, d).of;
    auto [vr, vz, vn, vq] = take<4>(vgates, at, d).of;
    real h = h_t[at], vh = vh_t[at], da_n = take<3>(da, at, d).of[2];
    bool exists = mask[at / d];
    dh += dh_t[at], vdh += vu;
    real dn = dh * (1 - z), dz = dh * (h - n), dr = da_n * q;
    real vdn = vdh * (1 - z) - dh * vz, vdz = vdh * (h - n) + dh * (vh - vn);
    real va_n = vdn * (1 - n * n) - 2 * dn * n * vn;
    real vdr = va_n * q + da_n * vq, vdq = va_n * r + da_n * vr;
    real va_r = vdr * r * (1 - r) + dr * (1 - 2 * r) * vr, va_z = vdz * z * (1 - z) + dz * (1 - 2 * z) * vz;
    Gates<3> ve_t = exists ? Gates<3>{va_r, va_z, vdq} : Gates<3>{};
    put(exists ? Gates<3>{va_r, va_z, va_n} : Gates<3>{}, vda, at, d);
    put(ve_t, ve, at, d);
    vdh = (exists ? vdh * z + dh * vz : vdh) + ev[at];
    dh = (exists ? dh * z : dh) + eu[at];
    return ve_t;
}

// --- version 1 --------------------------------------------------------------------------------------------------------------

extern "C" __global__ void gru_forward_step(const real* u, const real* x, const real* bias, const unsigned char* mask, real* h,
                                            real* gates, int t, int n, int d) {
    int i = INDEX, at = t * n + i;
    if (i < n) h[at + n] = cell(take<3>(u, i, d), h[at], at, x, bias, mask, gates, d);
}

extern "C" __global__ void gru_backward_step(const real* u, const real* dh_t, const real* h, const real* gates,
                                             const unsigned char* mask, real* dh, real* da, real* e, int t, int n, int d) {
    int i = INDEX;
    if (i < n) cell_backward(u[i], dh[i], t * n + i, dh_t, h, gates, mask, da, e, d);
}

extern "C" __global__ void gru_tangent_step(const real* vu, const real* v, const real* h, const real* gates,
                                            const unsigned char* mask, real* vh, real* vgates, int t, int n, int d) {
    int i = INDEX, at = t * n + i;
    if (i < n) vh[at + n] = cell_tangent(take<3>(vu, i, d), vh[at], at, v, h, gates, mask, vgates, d);
}

extern "C" __global__ void gru_backward_tangent_step(const real* vu, const real* eu, const real* ev, const real* dh_t,
                                                     const real* h, const real* vh, const real* gates, const real* vgates,
                                                     const real* da, const unsigned char* mask, real* dh, real* vdh, real* vda,
                                                     real* ve, int t, int n, int d) {
    int i = INDEX, at = t * n + i;
    if (i < n) cell_backward_tangent(vu[i], dh[i], vdh[i], at, eu, ev, dh_t, h, vh, gates, vgates, da, mask, vda, ve, d);
}

// --- version 2 --------------------------------------------------------------------------------------------------------------

// h begins with the initial state; the others are written behind it. ut is U^T of each gate.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
gru_forward_scan(const real* ut, const real* x, const real* bias, const unsigned char* mask, real* h, real* gates, int steps,
                 int n, int d) {
    extern __shared__ Rows shared[];
    Rows *state = shared, *u = state + d;
    int first = blockIdx.x * ROWS * d, own = units(n, d);
    clear(shared, 4 * d);
    for (int i = threadIdx.x; i < own; i += blockDim.x) unit(state, i, d) = h[first + i];
    __syncthreads();
    for (int t = 0; t < steps; t++) {
        product(state, 0, ut, u, 3, d);
        __syncthreads();
        for (int i = threadIdx.x; i < own; i += blockDim.x) {
            int at = t * n + first + i;
            h[at + n] = unit(state, i, d) = cell(take<3>(u, i, d), unit(state, i, d), at, x, bias, mask, gates, d);
        }
        __syncthreads();
    }
}

// dh is given as zeros and becomes the initial state's gradient.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
gru_backward_scan(const real* w, const real* dh_t, const real* h, const real* gates, const unsigned char* mask, real* dh,
                  real* da, real* e, int steps, int n, int d) {
    extern __shared__ Rows shared[];
    Rows *rows = shared, *u = rows + 3 * d;
    int first = blockIdx.x * ROWS * d, own = units(n, d);
    clear(shared, 6 * d);
    for (int t = steps - 1; t >= 0; t--) {
        for (int i = threadIdx.x; i < own; i += blockDim.x) {
            int place = first + i;
            put(cell_backward(sum<3>(u, i, d), dh[place], t * n + place, dh_t, h, gates, mask, da, e, d), rows, i, d);
        }
        __syncthreads();
        product(rows, d, w, u, 3, d);
        __syncthreads();
    }
    for (int i = threadIdx.x; i < own; i += blockDim.x) dh[first + i] += sum<3>(u, i, d);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
gru_tangent_scan(const real* ut, const real* v, const real* h, const real* gates, const unsigned char* mask, real* vh,
                 real* vgates, int steps, int n, int d) {
    extern __shared__ Rows shared[];
    Rows *state = shared, *vu = state + d;
    int first = blockIdx.x * ROWS * d, own = units(n, d);
    clear(shared, 4 * d);
    for (int i = threadIdx.x; i < own; i += blockDim.x) unit(state, i, d) = vh[first + i];
    __syncthreads();
    for (int t = 0; t < steps; t++) {
        product(state, 0, ut, vu, 3, d);
        __syncthreads();
        for (int i = threadIdx.x; i < own; i += blockDim.x) {
            int at = t * n + first + i;
            real vh_i = cell_tangent(take<3>(vu, i, d), unit(state, i, d), at, v, h, gates, mask, vgates, d);
            vh[at + n] = unit(state, i, d) = vh_i;
        }
        __syncthreads();
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
gru_backward_tangent_scan(const real* w, const real* eu, const real* ev, const real* dh_t, const real* h, const real* vh,
                          const real* gates, const real* vgates, const real* da, const unsigned char* mask, real* dh,
                          real* vdh, real* vda, real* ve, int steps, int n, int d) {
    extern __shared__ Rows shared[];
    Rows *rows = shared, *vu = rows + 3 * d;
    int first = blockIdx.x * ROWS * d, own = units(n, d);
    clear(shared, 6 * d);
    for (int t = steps - 1; t >= 0; t--) {
        for (int i = threadIdx.x; i < own; i += blockDim.x) {
            int place = first + i, at = t * n + place;
            Gates<3> ve_i = cell_backward_tangent(sum<3>(vu, i, d), dh[place], vdh[place], at, eu, ev, dh_t, h, vh, gates,
                                                  vgates, da, mask, vda, ve, d);
            put(ve_i, rows, i, d);
        }
        __syncthreads();
        product(rows, d, w, vu, 3, d);
        __syncthreads();
    }
    for (int i = threadIdx.x; i < own; i += blockDim.x) vdh[first + i] += sum<3>(vu, i, d);
}
