// Rows by index, and rows added up at an index.
//
//     version 1   gather: one thread an element; scatter_add: one block a target row, which looks for its sources in their
//                 order, so that sums come out the same in every run (atomic additions would come in any)
//
// A row that does not exist is not a number, and nothing is added to it: see index.cuh.
#include "layout.cuh"
#include "index.cuh"

extern "C" __global__ void gather_rows(const real* w, const long long* index, real* y, int rows, int width, int n) {
    int i = INDEX;
    if (i >= n) return;
    long long row = index[i / width];
    y[i] = inside(row, rows) ? w[row * width + i % width] : nothing((real)0);
}

extern "C" __global__ void scatter_add_rows(const real* y, const long long* index, real* w, int rows, int width) {
    for (int column = threadIdx.x; column < width; column += blockDim.x) {
        real total = 0;
        for (int row = 0; row < rows; row++)
            if (index[row] == blockIdx.x) total += y[row * width + column];
        w[blockIdx.x * width + column] = total;
    }
}
