// Finds races in shared memory, in whatever order threads run: two of them touch a byte, one writes, and no barrier
// stands between. And reads of what nobody has written.
//
// A block's barrier orders all before it against all after it; a cluster's, what a thread does before it arrives
// against what another does after it has waited. Shuffles order nothing, as CUDA has it.
#ifndef RACES_H
#define RACES_H

#include <stddef.h>

#include <vector>

namespace emulation {

// Who touches memory, and when: after how many barriers of its block, arrivals at the cluster's, and waits for it.
struct Touch {
    static constexpr unsigned nobody = ~0u, several = ~1u;
    unsigned thread = nobody, block = 0;
    unsigned barriers = 0, arrivals = 0, waits = 0;

    bool comes_before(const Touch& next) const {
        if (thread == nobody || thread == next.thread) return true;
        return (block == next.block && barriers < next.barriers) || arrivals < next.waits;
    }
};

// The last to read and to write a byte. Of readers that nothing orders one is kept, as `several`.
struct History {
    Touch write, read;

    // The other one of a race; null if there is none. A reader of what nobody has written gets the nobody.
    const Touch* conflict(bool writes, const Touch& now) const {
        if (!write.comes_before(now) || (!writes && write.thread == Touch::nobody)) return &write;
        return writes && !read.comes_before(now) ? &read : nullptr;
    }

    void add(bool writes, const Touch& now) {
        if (writes) {
            write = now;
            return;
        }
        const bool alone = read.comes_before(now);
        read = now;
        if (!alone) read.thread = Touch::several;
    }
};

}  // namespace emulation

#endif
