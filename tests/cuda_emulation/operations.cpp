// Barriers, shuffles, clusters, and the approximate exponential.
//
// What the hardware leaves undefined or hangs on is an error: lanes of a warp at different shuffles, threads of a block
// at different barriers, another block's shared memory before the cluster is known to run or after that block may have
// ended, races.
#include <math.h>
#include <stdint.h>

#include <algorithm>

#include "cluster.h"

namespace emulation {
namespace {

void touch(RunningBlock& block, size_t offset, size_t bytes, bool writes) {
    const RunningThread& thread = me();
    const Touch now = {static_cast<unsigned>(&thread - cluster.threads.data()), thread.owner->rank,
                       thread.owner->barriers, thread.cluster_arrivals, thread.cluster_waits};
    for (size_t i = offset; i < offset + bytes; ++i) {
        History& history = block.histories[i];
        const Touch* other = history.conflict(writes, now);
        if (other == nullptr) {
            history.add(writes, now);
            continue;
        }
        std::string message = name_of(thread) + (writes ? " writes" : " reads") +
                              text(" byte %zu of the shared memory of block %u", i, block.index.x);
        if (thread.place.file != nullptr) message += " after " + name_of(thread.place);
        if (other->thread == Touch::nobody) cluster.fail(message + ", which nobody has written");
        const std::string who =
            other->thread == Touch::several ? "several threads" : name_of(cluster.threads[other->thread]);
        cluster.fail("race: " + message + ", which " + who + (other == &history.write ? " wrote" : " read") +
                     " with no barrier between");
    }
}

}  // namespace

void barrier(Place place) {
    RunningThread& thread = me();
    RunningBlock& block = *thread.owner;
    if (block.arrived == 0) {
        block.place = place;
    } else if (!same(place, block.place)) {
        cluster.fail(name_of(thread) + " is at the barrier " + name_of(place) + ", others at " + name_of(block.place));
    }
    thread.place = place;
    if (++block.arrived == block.alive) {
        cluster.release_barrier(block);
        cluster.run_first();
    } else {
        cluster.wait(at_barrier);
    }
}

void shuffle_xor(void* value, size_t bytes, int mask, Place place) {
    RunningThread& thread = me();
    Warp& warp = *thread.warp;
    if (mask < 0 || mask >= static_cast<int>(lanes)) {
        cluster.fail(name_of(thread) + text(" shuffles by %d at ", mask) + name_of(place));
    }
    if (warp.arrived == 0) {
        warp.mask = mask;
        warp.bytes = bytes;
        warp.place = place;
    } else if (warp.mask != mask || warp.bytes != bytes || !same(place, warp.place)) {
        cluster.fail(name_of(thread) + " is at the shuffle " + name_of(place) + text(" by %d", mask) +
                     ", lanes of its warp at " + name_of(warp.place) + text(" by %d", warp.mask));
    }
    thread.place = place;
    uint64_t* values = warp.values[warp.phase & 1];
    memcpy(&values[thread.lane], value, bytes);
    if (++warp.arrived == lanes) {
        warp.arrived = 0;
        ++warp.phase;
        RunningThread* first = &thread - thread.lane;
        for (unsigned i = 0; i < lanes; ++i) cluster.resume(first[i]);
        cluster.run_first();
    } else {
        cluster.wait(at_shuffle);
    }
    memcpy(value, &values[thread.lane ^ static_cast<unsigned>(mask)], bytes);
}

void cluster_arrive(Place place) {
    RunningThread& thread = me();
    if (thread.cluster_arrivals != thread.cluster_waits) {
        cluster.fail(name_of(thread) + " arrives twice before a cluster_wait, at " + name_of(place));
    }
    thread.place = place;
    ++thread.cluster_arrivals;
    cluster.arrived_at_cluster();
    cluster.run_first();  // others may go on before what follows the arrival
}

void cluster_wait(Place place) {
    RunningThread& thread = me();
    if (thread.cluster_arrivals == thread.cluster_waits) {
        cluster.fail(name_of(thread) + " waits without having arrived, at " + name_of(place));
    }
    thread.place = place;
    if (cluster.phase < thread.cluster_arrivals) cluster.wait(at_cluster_wait);
    ++thread.cluster_waits;
}

const void* peer(const void* shared, size_t bytes, unsigned rank, Place place) {
    RunningThread& thread = me();
    if (rank >= grid.cluster) {
        cluster.fail(name_of(thread) + text(" reads from block %u of a cluster of %u, at ", rank, grid.cluster) +
                     name_of(place));
    }
    const uintptr_t offset = reinterpret_cast<uintptr_t>(shared) - reinterpret_cast<uintptr_t>(thread.block->shared);
    if (offset > grid.shared_bytes || grid.shared_bytes - offset < bytes) {
        cluster.fail(name_of(thread) + " asks its peers for what is not shared memory, at " + name_of(place));
    }
    RunningBlock& block = cluster.blocks[rank];
    if (&block != thread.owner) {
        if (thread.cluster_waits == 0) {
            cluster.fail(name_of(thread) + " reads a peer's memory before any cluster_wait, at " + name_of(place));
        }
        if (block.alive == 0) {
            cluster.fail(name_of(thread) + text(" reads the memory of block %u, which has ended, at ", block.index.x) +
                         name_of(place));
        }
        block.readable_until = std::max(block.readable_until, thread.cluster_arrivals + 1);
    }
    if (finds_races) touch(block, offset, bytes, false);
    return block.shared + offset;
}

void touched(const void* address, size_t bytes, bool writes) {
    if (self == nullptr) return;  // a constructor
    const uintptr_t offset = reinterpret_cast<uintptr_t>(address) - reinterpret_cast<uintptr_t>(self->block->shared);
    if (offset >= grid.shared_bytes + beyond_shared) return;
    if (offset + bytes > grid.shared_bytes) {
        cluster.fail(name_of(me()) + text(" touches byte %zu of %zu of shared memory", offset, grid.shared_bytes));
    }
    touch(*me().owner, offset, bytes, writes);
}

bool exp2_errs = true;

float exp2_approx(float x) {
    const float argument = fabsf(x) < 0x1p-126f ? 0.0f : x;
    double result = exp2(static_cast<double>(argument));
    if (exp2_errs && argument != 0 && result > 0x1p-130 && result < 0x1p128) {
        uint32_t bits;
        memcpy(&bits, &argument, sizeof bits);
        bits = (bits ^ bits >> 16) * 0x85ebca6bu;
        bits = (bits ^ bits >> 13) * 0xc2b2ae35u;
        bits ^= bits >> 16;
        uint64_t power;
        memcpy(&power, &result, sizeof power);
        power &= 0x7ff0000000000000u;
        double ulp;
        memcpy(&ulp, &power, sizeof ulp);
        ulp *= 0x1p-23;
        result += 1.5 * (static_cast<double>(bits) * 0x1p-31 - 1) * ulp;  // with the half of rounding 2
    }
    const float rounded = static_cast<float>(result);
    return rounded < 0x1p-126f ? 0.0f : rounded;
}

}  // namespace emulation
