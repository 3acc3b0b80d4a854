// Rows: slices contiguous in memory, the lanes running along each. Three passes (maximum; exponentials and their sum;
// output) that run side by side: while one row is exponentiated, which keeps the arithmetic busy, one before it is written
// and the maximum of one after it found, which keep the memory busy.
//
// A long row goes alone, and its maximum is found in the pass that exponentiates: until then the maximum of its beginning
// stands for it, which serves as well unless it lies far below (exp.h); then the pass is done again. So memory is read once,
// but in place, where a second pass would find the exponentials: there the maximum itself is found first.
//
// Shorter rows go by groups, and what a row computes once (its scale, its factors) is computed for a whole group, a row in
// each lane: for short rows that is most of the work. The neighbours of a row stand in the groups beside its own, so that no
// result is waited for. A lane never sees its neighbours: a row alone gives the bits of one among many. The shortest go
// transposed.
//
// The exponentials wait in the output where it has their type, else in scratch memory; there too where the output is
// written past the caches, which is to see each line once. (Rows too long for scratch memory have no such luck.) Only rows
// that go alone are written so: groups take 1.1 to 1.3 times as long so, at 15 as at 250 MB.
#ifndef FASTSOFTMAX_KERNELS_ROWS_H
#define FASTSOFTMAX_KERNELS_ROWS_H

// A row of at least so many elements goes alone: what it computes once is little beside the rest. Shorter ones go by groups
// of about so many elements: what three groups in flight take is then still found in the second cache. (Groups that fit the
// first one, of 2048 elements, take 1.2 times as long on rows of 1000.)
constexpr int64_t kLoneRow = 2048;
constexpr int64_t kGroupElements = 8192;

// Rows of at most so many vectors, where they are not transposed, have loops of their own, of little more than the arithmetic:
// unrolled over the vectors of a row, with the exponentials in a tile in the first cache.
constexpr int64_t kShortVectors = 4;

// Rows of more bytes of exponentials than this are not kept in scratch memory (which has two of them for each thread).
constexpr int64_t kRowScratch = int64_t(1) << 20;

// Groups of rows of C vectors, in the order begin, -, sum, -, write: what a group computes once between two of its passes has
// the time of another group's passes to be ready.
template <int C, class V, class E, class Op, class Start>
void short_rows(const Start &start) {
    using T = typename V::T;
    alignas(64) T tiles[3][C * V::W * V::W];
    RowGroup<V, E, Op> groups[5];
    int64_t started = 0;
    bool more = true;
    for (int64_t step = 0; more || step - 4 < started; ++step) {
        auto at = [&](int64_t i) { return i >= 0 && i < started ? &groups[i % 5] : nullptr; };
        more = more && start(groups[step % 5], {tiles[step % 3], C * V::W});
        if (more) ++started;
        RowGroup<V, E, Op>::template run_short<C>(at(step - 4), at(step - 2), more ? &groups[step % 5] : nullptr);
    }
}

template <class V, class E, class Op>
fs_status rows(const fs_call &call, int64_t begin, int64_t end, const Team &team, bool beyond_caches) {
    using T = typename V::T;
    using Group = RowGroup<V, E, Op>;
    const int64_t together = call.n >= kLoneRow ? 1 : smaller(kGroupElements / call.n, V::W);
    const bool lone = together == 1, stream = beyond_caches && lone;
    int64_t next_row = begin;
    // The next group that there is something to do for; false behind the last.
    auto start = [&](Group &group, Room<T> room) -> bool {
        [[maybe_unused]] const bool has_room = room.begin != nullptr;
        while (next_row < end) {
            const int64_t count = smaller(together, end - next_row);
            if constexpr (Op::kWrite == Write::kExponentials && sizeof(E) == sizeof(T)) {
                if (!has_room)
                    room = {static_cast<T *>(call.out) + next_row * call.out_strides.outer, call.out_strides.outer};
            }
            group.start(call, next_row, count, room, stream);
            next_row += count;
            if (!lone || !group.skip()) return true;
        }
        return false;
    };
    if constexpr (Op::kTakesLse) {
        if (call.given_lse != nullptr) {
            Group group;
            while (start(group, {nullptr, 0})) {
                group.prepare_with_lse();
                group.write(0, team);
                group.done();
            }
            return FS_OK;
        }
    }
    if (call.n <= kTransposed) {
        TransposedRows<V, E, Op>::run(call, begin, end);
        return FS_OK;
    }
    static_assert(kTransposed >= V::W);
    if constexpr (kShortVectors * V::W > kTransposed) {
        if (call.n <= kShortVectors * V::W) {
            auto run = [&](auto vectors) {
                constexpr int count = decltype(vectors)::value;
                if constexpr (count * V::W > kTransposed) short_rows<count, V, E, Op>(start);  // others are transposed
            };
            switch (ceil_divide(call.n, V::W)) {
                case 2: run(Int<2>()); break;
                case 3: run(Int<3>()); break;
                default: run(Int<4>()); break;
            }
            return FS_OK;
        }
    }
    // Rows in scratch memory start at whole cache lines, an odd number of them apart: not all in the same cache sets.
    const int64_t distance = (ceil_divide(call.n * int64_t(sizeof(T)), 64) | 1) * 64 / int64_t(sizeof(T));
    const bool in_scratch = Op::kWrite == Write::kExponentials && (stream || sizeof(E) < sizeof(T)) &&
                            call.n * int64_t(sizeof(T)) <= kRowScratch;
    const Scratch<T, 2 * (kLoneRow + 32 * V::W)> kept(in_scratch ? 2 * together * distance : 0);
    const Scratch<typename Group::Piece, 4> pieces(Group::pieces_of(call.n));
    if (pieces.data == nullptr || kept.data == nullptr) return FS_NO_MEMORY;

    Group flying[3];
    int64_t started = 0;
    auto start_next = [&]() -> Group * {
        Group *group = &flying[started % 3];
        const Room<T> room = {in_scratch ? kept.data + started % 2 * together * distance : nullptr, distance};
        if (!start(*group, room)) return nullptr;
        ++started;
        return group;
    };
    V found[V::W];
    Group *before = nullptr, *group = start_next();
    if (lone) {
        if (group != nullptr) group->guess_maximum(pieces.data, team);
    } else {
        group->find_maxima(found);
        group->prepare(found);
    }
    while (group != nullptr) {
        Group *next = start_next();
        if (lone) {
            if (next != nullptr) next->guess_maximum(pieces.data, team);
            group->reduce_lone(pieces.data, team, before);
        } else {
            group->reduce(before, next == nullptr ? group : next, found);
            if (next != nullptr) next->prepare(found);
        }
        if (before != nullptr) {
            before->write(group->count(), team);
            before->done();
        }
        before = group;
        group = next;
    }
    if (before != nullptr) {
        before->write(0, team);
        before->done();
    }
    return FS_OK;
}

#endif
