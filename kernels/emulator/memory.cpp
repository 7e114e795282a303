// Watches every read and write of a kernel in the checked build.
//
// g++ -fsanitize=thread puts a call before each access to memory that another thread could see. The calls are answered here,
// not by that sanitizer's own library: it knows threads of the system, and these are fibers with barriers.
//
// For every four bytes of device and shared memory there is a cell: who wrote there last, who read there (two readers are
// enough to know that there was another than oneself), and whether anything was ever written. Two accesses of which one writes
// are a race
//   - in the same block, by two threads with no barrier between, and no __syncwarp if they are of one warp;
//   - in two blocks of one launch, always;
// unless both are atomic.
#include "runtime.h"

#include <dlfcn.h>

#include <map>
#include <set>
#include <unordered_set>

namespace emulator {

struct Access {
    unsigned serial = 0, epoch = 0, warp_epoch = 0, block = 0;
    int thread = 0;
    const void* at = nullptr;       // the instruction
    uint8_t bytes = 0;              // of the four
    bool atomic = false;
};

struct Cell {
    Access write, read, other_read;
    uint8_t written = 0;            // bytes that hold something
};

struct Region {
    size_t size;
    bool shared;
    std::vector<Cell> cells;
};

// What Python is told: see `Event` in __init__.py.
struct Event {
    int kind, size;
    const void *at, *other_at, *address, *region;
    int thread, other_thread, block, other_block, writes, other_writes;
};
enum Kind { RACE, OUTSIDE, UNWRITTEN, INDEX, MISALIGNED };

static std::map<uintptr_t, Region> regions;     // by first address
static std::vector<Event> events;
static std::set<std::pair<const void*, const void*>> told;
static uintptr_t shared_at = 0, fixed_at = 0;
constexpr size_t MOST = 50;

static void report(const Event& e) {
    if (events.size() < MOST && told.insert({e.at, e.other_at}).second) events.push_back(e);
}

static std::pair<const uintptr_t, Region>* find(uintptr_t address) {
    auto after = regions.upper_bound(address);
    if (after == regions.begin()) return nullptr;
    auto& found = *--after;
    return address < found.first + found.second.size ? &found : nullptr;
}

static void add(uintptr_t at, size_t size, bool shared, bool written) {
    Region r{size, shared, std::vector<Cell>((size + 3) / 4 + 1)};
    if (written)
        for (Cell& c : r.cells) c.written = 15;
    regions[at] = std::move(r);
}

void begin_block(char* shared, size_t shared_size, char* fixed, size_t fixed_size) {
    regions.erase(shared_at), regions.erase(fixed_at);
    shared_at = fixed_at = 0;
    if (shared_size) add(shared_at = (uintptr_t)shared, shared_size, true, false);
    if (fixed_size) add(fixed_at = (uintptr_t)fixed, fixed_size, true, false);
}

static bool ordered(const Access& before, const Access& me) {
    if (before.serial != me.serial) return before.serial < now.first_serial;
    if (before.thread == me.thread || before.epoch != me.epoch) return true;
    return before.thread / 32 == me.thread / 32 && before.warp_epoch < me.warp_epoch;
}

static void compare(const Access& before, const Access& me, bool wrote, bool writes, uintptr_t address, int size, const void* region) {
    if (!before.serial || !(before.bytes & me.bytes) || (before.atomic && me.atomic) || ordered(before, me)) return;
    report({RACE, size, me.at, before.at, (void*)address, region, me.thread, before.thread, (int)me.block, (int)before.block, writes, wrote});
}

// Constants of the kernel's, and threadIdx and its like.
static bool in_a_library(const void* pointer) {
    static std::unordered_set<uintptr_t> pages;         // asking takes long
    uintptr_t page = (uintptr_t)pointer >> 12;
    Dl_info library;
    if (pages.count(page)) return true;
    return dladdr(pointer, &library) && pages.insert(page).second;
}

static void access(const void* pointer, int size, bool writes, bool atomic, const void* instruction) {
    if (!now.watched || on_a_stack(pointer)) return;
    auto address = reinterpret_cast<uintptr_t>(pointer);
    auto* found = find(address);
    if (!found || address + size > found->first + found->second.size) {
        if (!found && in_a_library(pointer)) return;
        report({OUTSIDE, size, instruction, nullptr, pointer, found ? (void*)found->first : nullptr, now.thread, 0, (int)now.block, 0, writes, 0});
        fail("outside");                                    // going on would crash
    }
    Access me{now.serial, now.epoch, now.warp_epoch[now.thread], now.block, now.thread, instruction, 0, atomic};
    for (uintptr_t a = address & ~uintptr_t(3); a < address + size; a += 4) {
        me.bytes = 0;
        for (int b = 0; b < 4; b++)
            if (a + b >= address && a + b < address + size) me.bytes |= 1 << b;
        Cell& cell = found->second.cells[(a - (found->first & ~uintptr_t(3))) / 4];
        compare(cell.write, me, true, writes, address, size, (void*)found->first);
        if (writes) {
            compare(cell.read, me, false, true, address, size, (void*)found->first);
            compare(cell.other_read, me, false, true, address, size, (void*)found->first);
        }
        if ((!writes || atomic) && (cell.written & me.bytes) != me.bytes)
            report({UNWRITTEN, size, instruction, nullptr, pointer, (void*)found->first, now.thread, 0, (int)now.block, 0, writes, 0});
        if (writes) {
            cell.write = me;
            cell.written |= me.bytes;
        } else {
            if (cell.read.serial != me.serial || cell.read.thread != me.thread) cell.other_read = cell.read;
            cell.read = me;
        }
    }
}

}  // namespace emulator

using namespace emulator;

// --- what Python calls --------------------------------------------------------------------------------------------------------

extern "C" void emulator_allocated(void* at, unsigned long size) { add((uintptr_t)at, size, false, false); }
extern "C" void emulator_freed(void* at) { regions.erase((uintptr_t)at); }
// Bytes that the host has written.
extern "C" void emulator_written(void* at, unsigned long size) {
    if (!size) return;
    auto* found = find((uintptr_t)at);
    if (!found) return;
    size_t first = ((uintptr_t)at - found->first) / 4, last = ((uintptr_t)at + size - 1 - found->first) / 4;
    for (size_t i = first; i <= last; i++) found->second.cells[i].written = 15;
}
extern "C" unsigned long emulator_events(const Event** first) {
    *first = events.data();
    return events.size();
}
extern "C" void emulator_forget() {
    events.clear();
    told.clear();
}

// --- what the compiler calls --------------------------------------------------------------------------------------------------

#define HERE __builtin_return_address(0)
extern "C" {
void emulator_atomic(const void* address, unsigned size, const void* caller) { access(address, size, true, true, caller); }

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
#define HOOKS(size)                                                               \
    void __tsan_read##size(void* p) { access(p, size, false, false, HERE); }      \
    void __tsan_write##size(void* p) { access(p, size, true, false, HERE); }      \
    void __tsan_unaligned_read##size(void* p) { access(p, size, false, false, HERE); } \
    void __tsan_unaligned_write##size(void* p) { access(p, size, true, false, HERE); }
HOOKS(1) HOOKS(2) HOOKS(4) HOOKS(8) HOOKS(16)
void __tsan_read_range(void* p, unsigned long n) { access(p, n, false, false, HERE); }
void __tsan_write_range(void* p, unsigned long n) { access(p, n, true, false, HERE); }

// -fsanitize=bounds,alignment: these know file and line themselves, at the beginning of what they are given.
struct Source { const char* file; uint32_t line, column; };
static void index_outside(Source* source, unsigned long index) {
    report({INDEX, (int)index, source->file, (void*)(uintptr_t)source->line, nullptr, nullptr, now.thread, 0, (int)now.block, 0, 0, 0});
    fail("outside");
}
void __ubsan_handle_out_of_bounds(Source* source, unsigned long index) { index_outside(source, index); }
void __ubsan_handle_out_of_bounds_abort(Source* source, unsigned long index) { index_outside(source, index); }
struct Mismatch { Source source; void* type; unsigned char log_alignment, check; };
static void misaligned(Mismatch* m, void* p) {
    report({MISALIGNED, 1 << m->log_alignment, m->source.file, (void*)(uintptr_t)m->source.line, p, nullptr, now.thread, 0, (int)now.block, 0, 0, 0});
    fail("outside");
}
void __ubsan_handle_type_mismatch_v1(Mismatch* m, void* p) { misaligned(m, p); }
void __ubsan_handle_type_mismatch_v1_abort(Mismatch* m, void* p) { misaligned(m, p); }
}
