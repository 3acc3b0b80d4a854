// A set of small numbers of which the least is found in a few instructions: bits, and bits that say which words of them
// are not 0.
#ifndef READY_SET_H
#define READY_SET_H

#include <stddef.h>
#include <stdint.h>

#include <vector>

namespace emulation {

class ReadySet {
public:
    void reset(size_t n) {
        words_.assign((n + 63) / 64, 0);
        summary_.assign((words_.size() + 63) / 64, 0);
    }

    void insert(size_t i) {
        words_[i / 64] |= bit(i);
        summary_[i / 4096] |= bit(i / 64);
    }

    void remove(size_t i) {
        words_[i / 64] &= ~bit(i);
        if (words_[i / 64] == 0) summary_[i / 4096] &= ~bit(i / 64);
    }

    // -1 if there is none.
    long least() const {
        for (size_t s = 0; s < summary_.size(); ++s) {
            if (summary_[s] == 0) continue;
            const size_t word = s * 64 + static_cast<size_t>(__builtin_ctzll(summary_[s]));
            return static_cast<long>(word * 64 + static_cast<size_t>(__builtin_ctzll(words_[word])));
        }
        return -1;
    }

private:
    static uint64_t bit(size_t i) { return uint64_t{1} << (i % 64); }

    std::vector<uint64_t> words_, summary_;
};

}  // namespace emulation

#endif
