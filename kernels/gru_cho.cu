// Scans of the GRU with the reset gate before the product: the equations of minigen/ops/gru_cho.py. Read gru.cu first.
//
//     version 1   gru_cho_.._step: one step, one thread a unit; the products with U are launches before each
//     version 2   gru_cho_.._scan: all steps in one launch, a block owns ROWS sequences
//
// Two products stand in a row in a step, and so do two cells:
//
//     forward             gates   u = (U_r, U_z) h;   r = s(x_r + u_r + b_r),   z = s(x_z + u_z + b_z),   p = r h
//                                 u_n = U_n p;   n = tanh(x_n + u_n + b_n),   h' = n + z (h - n)
//     backward            n       dh' <- dh' + dh_t;   da_n = dh' (1 - z) (1 - n^2);   dp = U_n^T da_n
//                         rz      da_z = dh' (h - n) z (1 - z),   da_r = dp h r (1 - r)
//                                 dh = dh' z + dp r + U_r^T da_r + U_z^T da_z
//     tangent             the forward's lines by the product rule
//     backward_tangent    the backward's lines by the product rule
//
// h is the state before the step, h' after it. What waits for no sweep, the host has computed for all steps: dp = U_n^T da_n,
// dpv = vU_n^T da_n, au = U^T da and av = vU^T da of r and z, and v = vx + vb + vU (h, h, p). Where a step does not exist,
// states and their gradients pass unchanged, and gates and da are 0. On its way back a state's gradient is in two parts: what
// passes is in dh, and the product u of r and z comes from the step behind.
#include "scan.cuh"

// --- one unit, one step -----------------------------------------------------------------------------------------------------

enum { R, Z, N };

// Where a unit's number for one gate is, in an array (T, N, 3D).
__device__ __forceinline__ int of(int gate, int at, int d) { return first_gate(at, 3, d) + gate * d; }

// p
__device__ __forceinline__ real cell_gates(Gates<2> u, real h, int at, const real* x, const real* bias, real* gates, int d) {
    auto [ur, uz] = u.of;
    real r = sigmoid(x[of(R, at, d)] + ur + bias[of(R, at % d, d)]);
    gates[of(R, at, d)] = r;
    gates[of(Z, at, d)] = sigmoid(x[of(Z, at, d)] + uz + bias[of(Z, at % d, d)]);
    return r * h;
}

// The state after the step.
__device__ __forceinline__ real cell(real un, real h, int at, const real* x, const real* bias, real* gates,
                                     const unsigned char* mask, int d) {
    real r = gates[of(R, at, d)], z = gates[of(Z, at, d)], n = tanh(x[of(N, at, d)] + un + bias[of(N, at % d, d)]);
    bool exists = mask[at / d];
    put(exists ? Gates<3>{r, z, n} : Gates<3>{}, gates, at, d);
    return exists ? n + z * (h - n) : h;
}

// da_n; dh takes in what arrives at this step.
__device__ __forceinline__ real cell_backward_n(real u, real& dh, int at, const real* dh_t, const real* gates,
                                                const unsigned char* mask, real* da, int d) {
    real z = gates[of(Z, at, d)], n = gates[of(N, at, d)];
    dh += u + dh_t[at];
    return da[of(N, at, d)] = mask[at / d] ? dh * (1 - z) * (1 - n * n) : 0;
}

// da_r and da_z; dh becomes what passes.
__device__ __forceinline__ Gates<2> cell_backward_rz(real dp, real& dh, int at, const real* h_t, const real* gates,
                                                     const unsigned char* mask, real* da, int d) {
    auto [r, z, n] = take<3>(gates, at, d).of;
    real h = h_t[at], da_z = dh * (h - n) * z * (1 - z), da_r = dp * h * r * (1 - r);
    bool exists = mask[at / d];
    Gates<2> da_rz = exists ? Gates<2>{da_r, da_z} : Gates<2>{};
    da[of(R, at, d)] = da_rz.of[0], da[of(Z, at, d)] = da_rz.of[1];
    dh = exists ? dh * z + dp * r : dh;
    return da_rz;
}

// vp
__device__ __forceinline__ real cell_tangent_gates(Gates<2> vu, real vh, int at, const real* v, const real* h_t,
                                                   const real* gates, real* vgates, int d) {
    auto [vur, vuz] = vu.of;
    real r = gates[of(R, at, d)], z = gates[of(Z, at, d)], vr = r * (1 - r) * (v[of(R, at, d)] + vur);
    vgates[of(R, at, d)] = vr;
    vgates[of(Z, at, d)] = z * (1 - z) * (v[of(Z, at, d)] + vuz);
    return vr * h_t[at] + r * vh;
}

__device__ __forceinline__ real cell_tangent(real vun, real vh, int at, const real* v, const real* h_t, const real* gates,
                                             real* vgates, const unsigned char* mask, int d) {
    real z = gates[of(Z, at, d)], n = gates[of(N, at, d)], h = h_t[at], vz = vgates[of(Z, at, d)];
    real vn = (1 - n * n) * (v[of(N, at, d)] + vun);
    vgates[of(N, at, d)] = vn;
    return mask[at / d] ? vn + vz * (h - n) + z * (vh - vn) : vh;
}

__device__ __forceinline__ real cell_backward_tangent_n(real vu, real& dh, real& vdh, int at, const real* dh_t,
                                                        const real* gates, const real* vgates, const unsigned char* mask,
                                                        real* vda, int d) {
    real z = gates[of(Z, at, d)], n = gates[of(N, at, d)], vz = vgates[of(Z, at, d)], vn = vgates[of(N, at, d)];
    dh += dh_t[at], vdh += vu;
    real dn = dh * (1 - z), vdn = vdh * (1 - z) - dh * vz;
    return vda[of(N, at, d)] = mask[at / d] ? vdn * (1 - n * n) - 2 * dn * n * vn : 0;
}

__device__ __forceinline__ Gates<2> cell_backward_tangent_rz(real vu, real& dh, real& vdh, int at, const real* au,
                                                             const real* av, const real* dp_t, const real* dpv,
                                                             const real* h_t, const real* vh_t, const real* gates,
                                                             const real* vgates, const unsigned char* mask, real* vda, int d) {
    auto [r, z, n] = take<3>(gates, at, d).of;
    auto [vr, vz, vn] = take<3>(vgates, at, d).of;
    real h = h_t[at], vh = vh_t[at], dp = dp_t[at], vdp = vu + dpv[at];
    real dz = dh * (h - n), vdz = vdh * (h - n) + dh * (vh - vn), vdr = vdp * h + dp * vh;
    real va_r = vdr * r * (1 - r) + dp * h * (1 - 2 * r) * vr, va_z = vdz * z * (1 - z) + dz * (1 - 2 * z) * vz;
    bool exists = mask[at / d];
    Gates<2> vda_rz = exists ? Gates<2>{va_r, va_z} : Gates<2>{};
    vda[of(R, at, d)] = vda_rz.of[0], vda[of(Z, at, d)] = vda_rz.of[1];
    vdh = (exists ? vdh * z + dh * vz + vdp * r + dp * vr : vdh) + av[at];
    dh = (exists ? dh * z + dp * r : dh) + au[at];
    return vda_rz;
}

// --- version 1 --------------------------------------------------------------------------------------------------------------

extern "C" __global__ void gru_cho_forward_gates_step(const real* u, const real* x, const real* bias, const real* h,
                                                      real* gates, real* p, int t, int n, int d) {
    int i = INDEX, at = t * n + i;
    if (i < n) p[i] = cell_gates(take<2>(u, i, d), h[at], at, x, bias, gates, d);
}

extern "C" __global__ void gru_cho_forward_step(const real* u, const real* x, const real* bias, real* h, real* gates,
                                                const unsigned char* mask, int t, int n, int d) {
    int i = INDEX, at = t * n + i;
    if (i < n) h[at + n] = cell(u[i], h[at], at, x, bias, gates, mask, d);
}

extern "C" __global__ void gru_cho_backward_n_step(const real* u, const real* dh_t, const real* gates,
                                                   const unsigned char* mask, real* dh, real* da, int t, int n, int d) {
    int i = INDEX;
    if (i < n) cell_backward_n(u[i], dh[i], t * n + i, dh_t, gates, mask, da, d);
}

extern "C" __global__ void gru_cho_backward_rz_step(const real* dp, const real* h, const real* gates, const unsigned char* mask,
                                                    real* dh, real* da, int t, int n, int d) {
    int i = INDEX;
    if (i < n) cell_backward_rz(dp[i], dh[i], t * n + i, h, gates, mask, da, d);
}

extern "C" __global__ void gru_cho_tangent_gates_step(const real* vu, const real* v, const real* h, const real* gates,
                                                      const real* vh, real* vgates, real* vp, int t, int n, int d) {
    int i = INDEX, at = t * n + i;
    if (i < n) vp[i] = cell_tangent_gates(take<2>(vu, i, d), vh[at], at, v, h, gates, vgates, d);
}

extern "C" __global__ void gru_cho_tangent_step(const real* vu, const real* v, const real* h, const real* gates, real* vh,
                                                real* vgates, const unsigned char* mask, int t, int n, int d) {
    int i = INDEX, at = t * n + i;
    if (i < n) vh[at + n] = cell_tangent(vu[i], vh[at], at, v, h, gates, vgates, mask, d);
}

extern "C" __global__ void gru_cho_backward_tangent_n_step(const real* vu, const real* dh_t, const real* gates,
                                                           const real* vgates, const unsigned char* mask, real* dh, real* vdh,
                                                           real* vda, int t, int n, int d) {
    int i = INDEX;
    if (i < n) cell_backward_tangent_n(vu[i], dh[i], vdh[i], t * n + i, dh_t, gates, vgates, mask, vda, d);
}

extern "C" __global__ void gru_cho_backward_tangent_rz_step(const real* vu, const real* au, const real* av, const real* dp,
                                                            const real* dpv, const real* h, const real* vh, const real* gates,
                                                            const real* vgates, const unsigned char* mask, real* dh, real* vdh,
                                                            real* vda, int t, int n, int d) {
    int i = INDEX;
    if (i < n) cell_backward_tangent_rz(vu[i], dh[i], vdh[i], t * n + i, au, av, dp, dpv, h, vh, gates, vgates, mask, vda, d);
}

// --- version 2 --------------------------------------------------------------------------------------------------------------

// h begins with the initial state; the others are written behind it. ut is U^T of each gate, that of n behind those of r and z.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
gru_cho_forward_scan(const real* ut, const real* x, const real* bias, real* h, real* gates, const unsigned char* mask,
                     int steps, int n, int d) {
    extern __shared__ Rows shared[];
    Rows *state = shared, *u = state + d, *p = u + 2 * d, *un = p + d;
    int first = blockIdx.x * ROWS * d, own = units(n, d);
    clear(shared, 5 * d);
    for (int i = threadIdx.x; i < own; i += blockDim.x) unit(state, i, d) = h[first + i];
    __syncthreads();
    for (int t = 0; t < steps; t++) {
        int at = t * n + first;
        product(state, 0, ut, u, 2, d);
        __syncthreads();
        for (int i = threadIdx.x; i < own; i += blockDim.x)
            unit(p, i, d) = cell_gates(take<2>(u, i, d), unit(state, i, d), at + i, x, bias, gates, d);
        __syncthreads();
        product(p, 0, ut + 2 * d * d, un, 1, d);
        __syncthreads();
        for (int i = threadIdx.x; i < own; i += blockDim.x)
            h[at + i + n] = unit(state, i, d) = cell(unit(un, i, d), unit(state, i, d), at + i, x, bias, gates, mask, d);
        __syncthreads();
    }
}

// dh is given as zeros and becomes the initial state's gradient.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
gru_cho_backward_scan(const real* w, const real* dh_t, const real* h, const real* gates, const unsigned char* mask, real* dh,
                      real* da, int steps, int n, int d) {
    extern __shared__ Rows shared[];
    Rows *da_n = shared, *da_rz = da_n + d, *dp = da_rz + 2 * d, *u = dp + d;
    int first = blockIdx.x * ROWS * d, own = units(n, d);
    clear(shared, 6 * d);
    for (int t = steps - 1; t >= 0; t--) {
        int at = t * n + first;
        for (int i = threadIdx.x; i < own; i += blockDim.x)
            unit(da_n, i, d) = cell_backward_n(sum<2>(u, i, d), dh[first + i], at + i, dh_t, gates, mask, da, d);
        __syncthreads();
        product(da_n, 0, w + 2 * d * d, dp, 1, d);
        __syncthreads();
        for (int i = threadIdx.x; i < own; i += blockDim.x)
            put(cell_backward_rz(unit(dp, i, d), dh[first + i], at + i, h, gates, mask, da, d), da_rz, i, d);
        __syncthreads();
        product(da_rz, d, w, u, 2, d);
        __syncthreads();
    }
    for (int i = threadIdx.x; i < own; i += blockDim.x) dh[first + i] += sum<2>(u, i, d);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
gru_cho_tangent_scan(const real* ut, const real* v, const real* h, const real* gates, real* vh, real* vgates,
                     const unsigned char* mask, int steps, int n, int d) {
    extern __shared__ Rows shared[];
    Rows *state = shared, *vu = state + d, *vp = vu + 2 * d, *vun = vp + d;
    int first = blockIdx.x * ROWS * d, own = units(n, d);
    clear(shared, 5 * d);
    for (int i = threadIdx.x; i < own; i += blockDim.x) unit(state, i, d) = vh[first + i];
    __syncthreads();
    for (int t = 0; t < steps; t++) {
        int at = t * n + first;
        product(state, 0, ut, vu, 2, d);
        __syncthreads();
        for (int i = threadIdx.x; i < own; i += blockDim.x)
            unit(vp, i, d) = cell_tangent_gates(take<2>(vu, i, d), unit(state, i, d), at + i, v, h, gates, vgates, d);
        __syncthreads();
        product(vp, 0, ut + 2 * d * d, vun, 1, d);
        __syncthreads();
        for (int i = threadIdx.x; i < own; i += blockDim.x) {
            real vh_i = cell_tangent(unit(vun, i, d), unit(state, i, d), at + i, v, h, gates, vgates, mask, d);
            vh[at + i + n] = unit(state, i, d) = vh_i;
        }
        __syncthreads();
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
gru_cho_backward_tangent_scan(const real* w, const real* dh_t, const real* au, const real* av, const real* dp, const real* dpv,
                              const real* h, const real* vh, const real* gates, const real* vgates, const unsigned char* mask,
                              real* dh, real* vdh, real* vda, int steps, int n, int d) {
    extern __shared__ Rows shared[];
    Rows *vda_n = shared, *vda_rz = vda_n + d, *vdp = vda_rz + 2 * d, *vu = vdp + d;
    int first = blockIdx.x * ROWS * d, own = units(n, d);
    clear(shared, 6 * d);
    for (int t = steps - 1; t >= 0; t--) {
        for (int i = threadIdx.x; i < own; i += blockDim.x) {
            int place = first + i, at = t * n + place;
            unit(vda_n, i, d) = cell_backward_tangent_n(sum<2>(vu, i, d), dh[place], vdh[place], at, dh_t, gates, vgates, mask,
                                                        vda, d);
        }
        __syncthreads();
        product(vda_n, 0, w + 2 * d * d, vdp, 1, d);
        __syncthreads();
        for (int i = threadIdx.x; i < own; i += blockDim.x) {
            int place = first + i, at = t * n + place;
            Gates<2> vda_i = cell_backward_tangent_rz(unit(vdp, i, d), dh[place], vdh[place], at, au, av, dp, dpv, h, vh, gates,
                                                      vgates, mask, vda, d);
            put(vda_i, vda_rz, i, d);
        }
        __syncthreads();
        product(vda_rz, d, w, vu, 2, d);
        __syncthreads();
    }
    for (int i = threadIdx.x; i < own; i += blockDim.x) vdh[first + i] += sum<2>(vu, i, d);
}
