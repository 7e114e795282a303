// Adam's update, in place: the equations of minigen/ops/adam.py, whose rate, keep and root the host works out for each parameter.
//
//     version 1   one launch for many parameters, blockIdx.y says which; p, m, v read and written once, g read once
#include "layout.cuh"

#define MANY 24         // their addresses and sizes are 864 of the 4096 bytes that arguments may take

struct Arrays { real* of[MANY]; };
struct Sizes { int of[MANY]; };

extern "C" __global__ void adam_update(Arrays p_of, Arrays m_of, Arrays v_of, Arrays g_of, const real* rates,
                                       real one_minus_beta1, real one_minus_beta2, real eps, Sizes n) {
    int which = blockIdx.y;
    real *p = p_of.of[which], *m = m_of.of[which], *v = v_of.of[which];
    const real* g = g_of.of[which];
    real rate = rates[3 * which], keep = rates[3 * which + 1], root = rates[3 * which + 2];
    for (int i = INDEX; i < n.of[which]; i += gridDim.x * blockDim.x) {
        real m_i = m[i] + one_minus_beta1 * (g[i] - m[i]);
        real v_i = v[i] + one_minus_beta2 * (g[i] * g[i] - v[i]);
        m[i] = m_i, v[i] = v_i;
        p[i] = keep * p[i] - rate * m_i / (sqrt(v_i) * root + eps);
    }
}
