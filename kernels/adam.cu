// Adam's update, in place: the equations of minigen/ops/adam.py, whose corrections 1 - beta^t the host has worked out.
//
//     version 1   one thread an element: p, m, v read and written once, g read once
#include "layout.cuh"

extern "C" __global__ void adam_update(real* p, real* m, real* v, const real* g, real rate, real keep, real one_minus_beta1,
                                       real one_minus_beta2, real root, real eps, int n) {
    int i = INDEX;
    if (i >= n) return;
    real m_i = m[i] + one_minus_beta1 * (g[i] - m[i]);
    real v_i = v[i] + one_minus_beta2 * (g[i] * g[i] - v[i]);
    m[i] = m_i, v[i] = v_i;
    p[i] = keep * p[i] - rate * m_i / (sqrt(v_i) * root + eps);
}
