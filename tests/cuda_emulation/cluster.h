// The blocks that run together, and the order in which their threads do (cluster.cpp); what threads do to one another
// is in operations.cpp.
#ifndef CLUSTER_H
#define CLUSTER_H

#include <stddef.h>
#include <stdint.h>

#include <string>
#include <vector>

#include "emulation.h"
#include "fiber.h"
#include "races.h"
#include "ready_set.h"

namespace emulation {

constexpr unsigned lanes = 32;

// Bytes behind a block's shared memory that nobody may touch; AddressSanitizer has its own.
constexpr size_t beyond_shared = finds_races ? 4096 : 0;

// What a thread waits at.
enum State { ready, at_shuffle, at_barrier, at_cluster_wait, ended };

struct Warp {
    unsigned arrived, phase;  // at the shuffle; shuffles done
    int mask;
    size_t bytes;
    Place place;
    uint64_t values[2][lanes];  // in turns: a lane may reach the next shuffle before the others have read
};

struct RunningBlock : Block {
    unsigned alive, arrived, barriers;  // threads; those at the barrier; barriers done
    Place place;                        // of the barrier
    unsigned readable_until;            // the phase of the cluster that ends after the last read by a peer
    std::vector<History> histories;     // of the bytes of its shared memory
};

struct RunningThread : Thread {
    State state;
    Place place;  // where it last met others
    RunningBlock* owner;
    Warp* warp;
    unsigned lane, rank;                      // rank: in the order of running
    unsigned cluster_arrivals, cluster_waits;
    Fiber fiber;
};

class Cluster {
public:
    // Runs the cluster of blocks from one on. An empty message, or what went wrong.
    std::string run(const Kernel& kernel, const void* job, uint3 first_block);

    // Gets ready for clusters as `grid` says, and an order as emulation_set_order has it.
    void set_up(int order);
    void free_memory();

    // All else is for the thread that runs.

    // Gives the launch up: no thread runs again.
    [[noreturn]] void fail(const std::string& message);
    void wait(State state);
    void resume(RunningThread& thread);
    // Hands the processor to the first thread that can run, maybe to the caller itself.
    void run_first();
    void release_barrier(RunningBlock& block);
    // One thread less to come in this phase.
    void arrived_at_cluster();
    RunningThread* threads_of(const RunningBlock& block);

    std::vector<RunningBlock> blocks;
    std::vector<RunningThread> threads;
    unsigned phase;  // how often all threads have arrived

private:
    static void enter();
    void end_thread();
    void set_ranks();
    void change_places(RunningBlock& block);
    size_t below(size_t end);
    std::string deadlock() const;

    std::vector<Warp> warps_;
    std::vector<RunningThread*> by_rank_;
    ReadySet ready_;
    unsigned alive_, pending_;  // pending: are to arrive in this phase
    int order_;
    uint64_t random_;

    const Kernel* kernel_;
    const void* job_;
    Fiber main_;
    bool main_is_known_;  // a fiber has seen its stack
    std::string error_;
};

extern Cluster cluster;

inline RunningThread& me() { return *static_cast<RunningThread*>(self); }

std::string text(const char* format, ...) __attribute__((format(printf, 1, 2)));
std::string name_of(const Place& place);
std::string name_of(const RunningThread& thread);
bool same(const Place& a, const Place& b);

}  // namespace emulation

#endif
