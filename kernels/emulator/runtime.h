// What runtime.cpp and memory.cpp tell each other.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x = 1, y = 1, z = 1; };

extern "C" int emulator_barrier_count(int predicate, int line);

namespace emulator {

// Who runs, and what has happened before it. Blocks are numbered from the first launch on: `serial`.
struct Now {
    bool watched = false;                   // a launch of the checked build is running
    unsigned serial = 0, first_serial = 0, block = 0;
    int thread = 0;
    unsigned epoch = 0;                     // barriers passed in this block
    std::vector<unsigned> warp_epoch;       // of each thread: __syncwarps passed, as a clock
};
extern Now now;

[[noreturn]] void fail(const char* format, ...);
bool on_a_stack(const void* address);
void begin_block(char* shared, size_t shared_size, char* fixed, size_t fixed_size);

}  // namespace emulator
