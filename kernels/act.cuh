// Leaky ReLU, and its gradient read off the sign of its result: slope 1 is no activation, 0 is ReLU.
#pragma once

// ReLU of -inf is 0, not 0 * inf; not a number stays what it is.
__device__ __forceinline__ real act(real v, real slope) { return !(v <= 0) ? v : slope > 0 ? v * slope : slope; }
__device__ __forceinline__ real through(real d, real y, real slope) { return y > 0 ? d : slope > 0 ? d * slope : slope; }
