// Runs a cluster's threads, each a fiber, until they have ended or something is wrong.
//
// Of the threads that can run the first in the order does, so that each gets as far ahead of the later ones as the
// kernel's barriers let it: what a missing barrier should have kept apart comes in the wrong sequence in one of the
// orders forward, backward and shuffled. Shared memory begins as NaN patterns, so that reading too early shows.
#include "cluster.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <algorithm>
#include <utility>

namespace emulation {

Cluster cluster;
Grid grid;
Thread* self = nullptr;

namespace {

#ifdef EMULATION_ASAN
constexpr size_t stack_bytes = 128 << 10;
#else
constexpr size_t stack_bytes = 64 << 10;
#endif
constexpr size_t guard_bytes = 16 << 10;  // a page, however large

// The stacks of n fibers, one after the other; kept for the next launch.
char* stacks(size_t n) {
    static char* mapped = nullptr;
    static size_t mapped_bytes = 0;
    const size_t bytes = n * stack_bytes;
    if (bytes <= mapped_bytes) return mapped;
    if (mapped != nullptr) munmap(mapped, mapped_bytes);
    void* result = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON | MAP_NORESERVE, -1, 0);
    if (result == MAP_FAILED) {
        perror("the emulation's stacks");
        abort();
    }
    mapped = static_cast<char*>(result);
    mapped_bytes = bytes;
    for (size_t i = 0; i < n; ++i) mprotect(mapped + i * stack_bytes, guard_bytes, PROT_NONE);
    return mapped;
}

}  // namespace

void Cluster::set_up(int order) {
    const unsigned n = grid.block.x * grid.cluster;
    char* stack = stacks(n);
    order_ = order;
    random_ = static_cast<uint64_t>(order);
    blocks.assign(grid.cluster, {});
    for (RunningBlock& block : blocks) block.shared = static_cast<char*>(malloc(grid.shared_bytes + beyond_shared));
    warps_.assign(n / lanes, {});
    threads.assign(n, {});
    by_rank_.resize(n);
    ready_.reset(n);
    for (unsigned i = 0; i < n; ++i, stack += stack_bytes) {
        RunningThread& thread = threads[i];
        thread.owner = &blocks[i / grid.block.x];
        thread.block = thread.owner;
        thread.index = {i % grid.block.x, 0, 0};
        thread.warp = &warps_[i / lanes];
        thread.lane = i % lanes;
        thread.fiber.stack = stack + guard_bytes;
        thread.fiber.stack_bytes = stack_bytes - guard_bytes;
    }
}

void Cluster::free_memory() {
    for (RunningBlock& block : blocks) free(block.shared);
}

std::string Cluster::run(const Kernel& kernel, const void* job, uint3 first_block) {
    kernel_ = &kernel;
    job_ = job;
    for (unsigned i = 0; i < grid.cluster; ++i) {
        RunningBlock& block = blocks[i];
        memset(block.shared, 0xff, grid.shared_bytes);
        if (finds_races) block.histories.assign(grid.shared_bytes, {});
        block.index = {first_block.x + i, first_block.y, first_block.z};
        block.rank = i;
        block.alive = grid.block.x;
        block.arrived = block.barriers = block.readable_until = 0;
    }
    for (Warp& warp : warps_) warp.arrived = warp.phase = 0;
    set_ranks();
    for (size_t i = 0; i < threads.size(); ++i) {
        RunningThread& thread = threads[i];
        thread.place = {};
        thread.cluster_arrivals = thread.cluster_waits = 0;
        prepare(thread.fiber, enter, i * 832 % 16384);  // tops a power of two apart would share a set of the cache
        resume(thread);
    }
    alive_ = pending_ = static_cast<unsigned>(threads.size());
    phase = 0;
    main_is_known_ = false;
    error_.clear();
    self = by_rank_[0];
    switch_fiber(main_, me().fiber);
    return error_;
}

void Cluster::set_ranks() {
    const size_t n = threads.size();
    for (size_t i = 0; i < n; ++i) by_rank_[i] = &threads[order_ == 1 ? n - 1 - i : i];
    if (order_ > 1) {
        for (size_t i = n - 1; i > 0; --i) std::swap(by_rank_[i], by_rank_[below(i + 1)]);
    }
    for (size_t i = 0; i < n; ++i) by_rank_[i]->rank = static_cast<unsigned>(i);
}

void Cluster::enter() {
    switched(me().fiber, cluster.main_is_known_ ? nullptr : &cluster.main_);
    cluster.main_is_known_ = true;
    cluster.kernel_->call(cluster.kernel_->function, cluster.job_);
    cluster.end_thread();
}

void Cluster::end_thread() {
    RunningThread& thread = me();
    RunningBlock& block = *thread.owner;
    thread.state = ended;
    ready_.remove(thread.rank);
    --alive_;
    if (--block.alive == 0) {
        unsigned waits = 0;
        for (unsigned i = 0; i < grid.block.x; ++i) waits = std::max(waits, threads_of(block)[i].cluster_waits);
        if (waits < block.readable_until) {
            fail(text("block %u ends before its peers are known to have read its shared memory", block.index.x));
        }
    } else if (block.arrived == block.alive) {
        release_barrier(block);
    }
    if (thread.cluster_arrivals == phase) arrived_at_cluster();
    run_first();
    abort();
}

void Cluster::run_first() {
    const long rank = ready_.least();
    if (rank < 0) {
        if (alive_ != 0) fail(deadlock());
        switch_fiber(me().fiber, main_);
        abort();
    }
    RunningThread& from = me();
    RunningThread& to = *by_rank_[static_cast<size_t>(rank)];
    if (&to == &from) return;
    self = &to;
    switch_fiber(from.fiber, to.fiber);
}

void Cluster::wait(State state) {
    me().state = state;
    ready_.remove(me().rank);
    run_first();
}

void Cluster::resume(RunningThread& thread) {
    thread.state = ready;
    ready_.insert(thread.rank);
}

void Cluster::release_barrier(RunningBlock& block) {
    block.arrived = 0;
    ++block.barriers;
    for (unsigned i = 0; i < grid.block.x; ++i) {
        RunningThread& thread = threads_of(block)[i];
        if (thread.state == at_barrier) resume(thread);
    }
    if (order_ > 1) change_places(block);
}

// All the block's threads can run: shuffled anew, another one gets ahead than before.
void Cluster::change_places(RunningBlock& block) {
    for (unsigned i = grid.block.x - 1; i > 0; --i) {
        RunningThread &a = threads_of(block)[i], &b = threads_of(block)[below(i + 1)];
        if (a.state != ready || b.state != ready) continue;
        std::swap(a.rank, b.rank);
        std::swap(by_rank_[a.rank], by_rank_[b.rank]);
    }
}

// A pseudo-random number (SplitMix64).
size_t Cluster::below(size_t end) {
    uint64_t bits = random_ += 0x9e3779b97f4a7c15u;
    bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9u;
    bits = (bits ^ bits >> 27) * 0x94d049bb133111ebu;
    return static_cast<size_t>((bits ^ bits >> 31) % end);
}

void Cluster::arrived_at_cluster() {
    if (--pending_ != 0) return;
    ++phase;
    pending_ = alive_;
    for (RunningThread& thread : threads) {
        if (thread.state == at_cluster_wait) resume(thread);
    }
}

RunningThread* Cluster::threads_of(const RunningBlock& block) { return &threads[block.rank * grid.block.x]; }

void Cluster::fail(const std::string& message) {
    error_ = message;
    switch_fiber(me().fiber, main_);
    abort();
}

std::string Cluster::deadlock() const {
    static const char* const names[] = {"can run", "at a shuffle, ", "at a barrier, ", "at a cluster_wait, ", "ended"};
    struct Group {
        std::string what;
        unsigned count;
        const RunningThread* first;
    };
    std::vector<Group> groups;
    for (const RunningThread& thread : threads) {
        const std::string what = names[thread.state] + (thread.state == ended ? "" : name_of(thread.place));
        const auto alike = [&](const Group& group) { return group.what == what; };
        const auto group = std::find_if(groups.begin(), groups.end(), alike);
        if (group == groups.end()) {
            groups.push_back({what, 1, &thread});
        } else {
            ++group->count;
        }
    }
    std::string message = "deadlock";
    for (const Group& group : groups) {
        message += text("; %u threads ", group.count) + group.what + " (first: " + name_of(*group.first) + ")";
    }
    return message;
}

std::string text(const char* format, ...) {
    char buffer[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(buffer, sizeof buffer, format, arguments);
    va_end(arguments);
    return buffer;
}

std::string name_of(const Place& place) {
    const char* slash = strrchr(place.file, '/');
    return text("%s:%d", slash == nullptr ? place.file : slash + 1, place.line);
}

std::string name_of(const RunningThread& thread) {
    return text("thread %u of block %u", thread.index.x, thread.owner->index.x);
}

bool same(const Place& a, const Place& b) {
    return a.line == b.line && (a.file == b.file || strcmp(a.file, b.file) == 0);
}

}  // namespace emulation
