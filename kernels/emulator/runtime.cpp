// Runs the blocks of a launch one after another, and the threads of a block in turns.
//
// A thread is a fiber: a stack of its own, and one switch away. It runs until it has to wait, at a barrier or for the lanes of
// its warp, or until it is done. When all have come as far as they can, the barrier opens; if there is none that could open,
// the launch ends with a message that says who waits where. The order of blocks, and of threads between barriers, is drawn
// anew from a seed.
//
// memory.cpp watches reads and writes in the checked build. This file tells it which thread runs, and which barriers it passed.
#include "runtime.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <random>

// --- switching fibers -------------------------------------------------------------------------------------------------------

#if defined(__x86_64__)
// Saves what the calling convention says a callee must keep, on the old stack, and takes it from the new one.
asm(R"(
.text
.globl emulator_switch
.type emulator_switch, @function
emulator_switch:
    pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
    ret
.size emulator_switch, .-emulator_switch
)");
extern "C" void emulator_switch(void** save, void* load);

struct Context {
    void* stack_pointer = nullptr;
    void prepare(char* stack, size_t size, void (*entry)()) {
        auto top = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(stack + size) & ~uintptr_t(15));
        *--top = nullptr;                               // where a call would have left its return address
        *--top = reinterpret_cast<void*>(entry);        // what `ret` jumps to
        for (int i = 0; i < 6; i++) *--top = nullptr;   // the six registers
        stack_pointer = top;
    }
    static void change(Context& from, Context& to) { emulator_switch(&from.stack_pointer, to.stack_pointer); }
};
#else
#include <ucontext.h>
struct Context {
    ucontext_t u;
    void prepare(char* stack, size_t size, void (*entry)()) {
        getcontext(&u);
        u.uc_stack.ss_sp = stack, u.uc_stack.ss_size = size, u.uc_link = nullptr;
        makecontext(&u, entry, 0);
    }
    static void change(Context& from, Context& to) { swapcontext(&from.u, &to.u); }
};
#endif

// --- the state of a launch --------------------------------------------------------------------------------------------------

extern "C" {
uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;
}

namespace emulator {

constexpr size_t STACK = 256 << 10;     // bytes for each thread; only what is touched is ever backed by memory
enum class State { runnable, at_barrier, in_warp, done };

struct Fiber {
    Context context;
    uint3 index;
    State state;
    int line, number;
    unsigned mask;              // of the lanes it waits for
    int orders_memory;
    int predicate, counted;     // given to a counting barrier, and its result
    uint64_t given;             // to the lanes of its warp
    uint64_t seen[32];          // what they gave
};

Now now;
static std::vector<Fiber> fibers;
static char* stacks = nullptr;
static Context scheduler;
static int current;
static void (*body)(void**);
static void** arguments;
static bool in_fiber = false;
static std::string message;
static void* dynamic_shared;

struct Failure {};

[[noreturn]] void fail(const char* format, ...) {
    char text[1000];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    message = text;
    if (in_fiber) Context::change(fibers[current].context, scheduler);     // never to come back; kernels hold nothing to release
    throw Failure();
}

static void wait(Fiber& f) { Context::change(f.context, scheduler); }

static void entry() {
    Fiber& f = fibers[current];
    body(arguments);
    f.state = State::done;
    wait(f);
}

static void run(int i) {
    Fiber& f = fibers[i];
    current = i, threadIdx = f.index;
    now.thread = i;
    in_fiber = true;
    Context::change(scheduler, f.context);
    in_fiber = false;
    if (!message.empty()) throw Failure();
}

bool on_a_stack(const void* p) { return p >= stacks && p < stacks + fibers.size() * STACK; }

// --- one block --------------------------------------------------------------------------------------------------------------

static void open_barrier() {
    int at = -1, count = 0;
    for (Fiber& f : fibers)
        if (f.state == State::at_barrier) at = f.number;
    if (at < 0) return;
    for (Fiber& f : fibers) {
        if (f.state == State::done)
            fail("divergent barrier: thread %d waits in line %d, but thread %d has left the kernel", at, fibers[at].line, f.number);
        if (f.state == State::in_warp)
            fail("deadlock: thread %d waits in line %d for the lanes of mask 0x%08x, thread %d at the barrier in line %d", f.number,
                 f.line, f.mask, at, fibers[at].line);
        if (f.line != fibers[at].line)
            fail("divergent barrier: thread %d waits in line %d, thread %d in line %d", at, fibers[at].line, f.number, f.line);
        count += f.predicate != 0;
    }
    for (Fiber& f : fibers) f.state = State::runnable, f.counted = count;
    now.epoch++;
}

static void run_block(std::mt19937_64& random) {
    std::vector<int> order(fibers.size());
    for (Fiber& f : fibers) {
        f.context.prepare(stacks + f.number * STACK, STACK, entry);
        f.state = State::runnable;
        order[f.number] = f.number;
    }
    std::fill(now.warp_epoch.begin(), now.warp_epoch.end(), 0);
    now.epoch = 0;
    for (size_t left = fibers.size(); left;) {
        std::shuffle(order.begin(), order.end(), random);
        bool any = false;
        for (int i : order)
            if (fibers[i].state == State::runnable) {
                run(i);
                any = true;
                left -= fibers[i].state == State::done;
            }
        if (!any) {
            for (Fiber& f : fibers)
                if (f.state == State::at_barrier) {
                    open_barrier();
                    any = true;
                    break;
                }
            for (Fiber& f : fibers)
                if (!any && f.state == State::in_warp)
                    fail("deadlock: thread %d waits in line %d for the lanes of mask 0x%08x, which do not come", f.number, f.line, f.mask);
        }
    }
}

}  // namespace emulator

// --- what kernels call ------------------------------------------------------------------------------------------------------

using namespace emulator;

extern "C" void* emulator_dynamic_shared() { return dynamic_shared; }

extern "C" void emulator_barrier(int line) { emulator_barrier_count(0, line); }

extern "C" int emulator_barrier_count(int predicate, int line) {
    Fiber& f = fibers[current];
    f.state = State::at_barrier, f.line = line, f.predicate = predicate;
    wait(f);
    return f.counted;
}

extern "C" int emulator_meet(unsigned mask, const void* value, unsigned size, const uint64_t** seen, int orders_memory, int line) {
    Fiber& f = fibers[current];
    int lane = f.number % 32, first = f.number - lane;
    if (!(mask >> lane & 1)) fail("thread %d calls a warp function in line %d with mask 0x%08x, which leaves its own lane %d out", f.number, line, mask, lane);
    f.given = 0;
    if (size) std::memcpy(&f.given, value, size);
    f.state = State::in_warp, f.mask = mask, f.line = line, f.orders_memory = orders_memory;
    *seen = f.seen;
    for (int i = 0; i < 32; i++) {
        if (!(mask >> i & 1)) continue;
        if (first + i >= (int)fibers.size()) fail("thread %d waits in line %d for lane %d, but the block ends with lane %d", f.number, line, i, (int)fibers.size() - 1 - first);
        Fiber& other = fibers[first + i];
        if (other.state == State::done) fail("thread %d waits in line %d for thread %d, which has left the kernel", f.number, line, other.number);
        if (other.state != State::in_warp || other.mask != mask) {      // not all are here yet
            wait(f);
            return lane;
        }
        if (other.line != line) fail("thread %d meets the lanes of its warp in line %d, thread %d in line %d", f.number, line, other.number, other.line);
    }
    unsigned latest = 0;
    for (int i = 0; i < 32; i++)
        if (mask >> i & 1) latest = std::max(latest, now.warp_epoch[first + i]);
    for (int i = 0; i < 32; i++) {
        if (!(mask >> i & 1)) continue;
        Fiber& other = fibers[first + i];
        for (int j = 0; j < 32; j++) other.seen[j] = mask >> j & 1 ? fibers[first + j].given : 0;
        other.state = State::runnable;
        if (orders_memory) now.warp_epoch[first + i] = latest + 1;
    }
    return lane;
}

// --- what Python calls ------------------------------------------------------------------------------------------------------

// Runs the kernel that `call` unpacks the arguments for. Returns 0, or 1 with a message in `text`.
extern "C" int emulator_launch(const unsigned* grid, const unsigned* block, unsigned shared, char* shared_at, char* static_at,
                               unsigned long static_size, unsigned long seed, int watched, void (*call)(void**), void** args, char* text,
                               unsigned long text_size) {
    gridDim = {grid[0], grid[1], grid[2]}, blockDim = {block[0], block[1], block[2]};
    body = call, arguments = args;
    size_t threads = (size_t)block[0] * block[1] * block[2], blocks = (size_t)grid[0] * grid[1] * grid[2];
    if (threads != fibers.size()) {
        if (stacks) munmap(stacks, fibers.size() * STACK);
        int kind = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        void* room = mmap(nullptr, threads * STACK, PROT_READ | PROT_WRITE, kind, -1, 0);
        stacks = room == MAP_FAILED ? nullptr : static_cast<char*>(room);
        if (!stacks) {
            fibers.clear();
            snprintf(text, text_size, "there is no memory for the stacks of %zu threads", threads);
            return 1;
        }
        fibers.assign(threads, Fiber());
        now.warp_epoch.assign(threads, 0);
    }
    for (size_t i = 0; i < threads; i++) {
        fibers[i].number = i;
        fibers[i].index = {unsigned(i % block[0]), unsigned(i / block[0] % block[1]), unsigned(i / block[0] / block[1])};
    }
    std::mt19937_64 random(seed);
    std::vector<unsigned> order(blocks);
    for (size_t b = 0; b < blocks; b++) order[b] = b;
    std::shuffle(order.begin(), order.end(), random);
    now.watched = watched, now.first_serial = now.serial + 1;
    dynamic_shared = shared_at;
    message.clear();
    try {
        for (unsigned b : order) {
            blockIdx = {b % grid[0], b / grid[0] % grid[1], b / grid[0] / grid[1]};
            now.serial++, now.block = b;
            std::memset(shared_at, 0xff, shared);       // every byte 255: not a number, and -1 as an integer
            std::memset(static_at, 0xff, static_size);
            begin_block(shared_at, shared, static_at, static_size);
            run_block(random);
        }
    } catch (Failure) {
        snprintf(text, text_size, "%s", message.c_str());
    }
    now.watched = in_fiber = false;
    return !message.empty();
}
