// Columns: the slices' elements stand apart, and neighbouring slices stand side by side (axis 0, or any axis but the last).
// A group of up to kGroup vectors of neighbours is walked by blocks of rows, so that memory is read by whole cache lines.
//
// The maximum of a slice's first rows stands for its own, as in rows.h: memory is read once, and again only where a slice's
// maximum lies far above. Three groups are on their way together: while one is exponentiated, which keeps the arithmetic
// busy, the one before it is written and the maxima of the one after it found, which keep the memory busy; and none waits for
// what is computed once for each slice.
//
// What the passes hand on stands in tiles, because the rows of an array may be a power of two apart, where no cache would
// keep them. Slices too long for a tile go alone, in pieces that several threads may share.
#ifndef FASTSOFTMAX_KERNELS_COLUMNS_H
#define FASTSOFTMAX_KERNELS_COLUMNS_H

constexpr int kGroup = 4;

// A tile; three are in use, and fit the second cache.
constexpr int64_t kTileBytes = int64_t(1) << 17;

template <class V, class E, class Op>
struct ColumnGroup {
    using Piece = typename Column<V, E, Op>::Piece;
    Column<V, E, Op> columns[kGroup];
    Piece pieces[kGroup];  // of slices of one piece
    int64_t count = 0;

    Column<V, E, Op> *column(int64_t c) { return c < count ? &columns[c] : nullptr; }
};

// Slices before the first whose element stands at the beginning of a cache line, in every row; 0 where the rows differ in that
// or where there are few slices. NumPy's arrays begin within a line: groups that begin there share none with their neighbours
// (4096 slices of 1000 elements: a tenth faster), and only whole lines are written past the caches.
template <class V, class E, class Op>
int64_t slices_before_line(const fs_call &call) {
    constexpr int64_t line = 64 / int64_t(sizeof(E));
    constexpr bool kWrites = Op::kWrite != Write::kNothing;
    const fs_strides &strides = kWrites ? call.out_strides : call.x_strides;
    if (call.inner < 4 * kGroup * V::W || strides.n % line != 0 || (call.outer > 1 && strides.outer % line != 0)) return 0;
    const uintptr_t start = reinterpret_cast<uintptr_t>(kWrites ? call.out : call.x);
    return int64_t(64 - start % 64) % 64 / int64_t(sizeof(E));
}

// The groups of some units, one after the other. A unit is one group's width of slices, the first also those before the first
// whole line.
template <class V, class E, class Op>
class ColumnGroups {
    using T = typename V::T;
    static constexpr int64_t width = kGroup * V::W;

   public:
    // `together` slices in a group, which divides those of a unit. `tiles`: three, or NULL.
    ColumnGroups(const fs_call &call, int64_t begin, int64_t end, int64_t together, T *tiles, bool stream)
        : call(call), together(together), skew(slices_before_line<V, E, Op>(call)),
          units_inside(ceil_divide(call.inner, width)), left(end - begin), outer(begin / units_inside),
          unit(begin % units_inside), inner(first_of(unit)), tiles(tiles), stream(stream) {}

    // False behind the last: the group is empty then.
    bool next(ColumnGroup<V, E, Op> &group) {
        group.count = 0;
        while (left > 0 && inner == first_of(unit + 1)) {
            --left;
            if (++unit < units_inside) continue;
            unit = inner = 0;
            ++outer;
        }
        if (left == 0) return false;
        T *tile = tiles == nullptr ? nullptr : tiles + started % 3 * tile_rows(call) * together;
        ++started;
        const int64_t stop = smaller(inner + together, inner < skew ? skew : call.inner);
        for (; inner < stop; inner += V::W) {
            T *own = tile == nullptr ? nullptr : tile + group.count * V::W;
            group.columns[group.count++].start(call, outer, inner, smaller(V::W, stop - inner), own, together, stream);
        }
        inner = stop;
        return true;
    }

    // Where nothing is written, only the beginning waits for its maximum.
    static int64_t tile_rows(const fs_call &call) {
        return Op::kWrite == Write::kNothing ? smaller(call.n, kGuessRows) : call.n;
    }

   private:
    int64_t first_of(int64_t some_unit) const {
        return some_unit == 0 ? 0 : smaller(some_unit * width + skew, call.inner);
    }

    const fs_call &call;
    const int64_t together, skew, units_inside;
    int64_t left, outer, unit, inner, started = 0;
    T *const tiles;
    const bool stream;
};

// Finishes columns in whose sums something stood for the maximum: each(f) calls f(column, its pieces), sum() finds all of their
// sums again. (By itself: inlined, it slows the others down.)
template <class Each, class Sum>
__attribute__((noinline)) void finish_guessed(int64_t count, int64_t distance, const Each &each, const Sum &sum) {
    bool again = false;
    each([&](auto &column, auto *pieces) { again |= column.settle(pieces, count, distance); });
    if (again) sum();
    auto finish = [&](auto &column, auto *pieces) { column.finish(pieces, count, distance); };
    each(finish);
    again = false;
    each([&](auto &column, auto *) { again |= column.faded(); });
    if (!again) return;
    sum();
    each(finish);
}

template <class V, class E, class Op>
void columns_in_tiles(int64_t n, ColumnGroups<V, E, Op> groups) {
    ColumnGroup<V, E, Op> flying[3];
    auto *before = &flying[0], *group = &flying[1], *next = &flying[2];
    groups.next(*next);
    while (before->count + group->count + next->count > 0) {
        for (int64_t first = 0; first < n; first += kBlock) {
            const int64_t rows = smaller(kBlock, n - first);
            for (int64_t c = 0; c < kGroup; ++c) {
                auto *written = before->column(c), *found = first < kGuessRows ? next->column(c) : nullptr;
                if (c < group->count) {
                    group->columns[c].sum_beside(first, rows, group->pieces[c], written, found);
                } else {
                    if (found != nullptr) found->find_maximum(first, rows);
                    if (written != nullptr) written->write(first, rows);
                }
            }
        }
        for (int64_t c = 0; c < next->count; ++c) next->columns[c].set_scale();
        for (int64_t c = 0; c < group->count; ++c) {
            auto &column = group->columns[c];
            auto &piece = group->pieces[c];
            if (n <= kGuessRows) {
                column.finish(&piece, 1, 0);
                continue;
            }
            finish_guessed(1, 0, [&](const auto &f) { f(column, &piece); }, [&] {
                for (int64_t first = 0; first < n; first += kBlock) column.sum(first, smaller(kBlock, n - first), piece);
            });
        }
        for (int64_t c = 0; c < before->count; ++c) before->columns[c].done();
        auto *free = before;
        before = group;
        group = next;
        next = free;
        groups.next(*next);
    }
    fence();
}

template <class V, class E, class Op>
void columns_alone(const fs_call &call, ColumnGroups<V, E, Op> groups, typename Column<V, E, Op>::Piece *pieces,
                   const Team &team) {
    const int64_t count = ceil_divide(call.n, kColumnPiece);
    const bool lse_given = Op::kTakesLse && call.given_lse != nullptr;
    ColumnGroup<V, E, Op> group;
    // Calls pass(column, c, first, rows) for every block of a piece: by blocks, so that the columns share cache lines.
    auto walk = [&](int64_t p, const auto &pass) {
        const int64_t end = smaller(call.n, (p + 1) * kColumnPiece);
        for (int64_t first = p * kColumnPiece; first < end; first += kBlock)
            for (int64_t c = 0; c < group.count; ++c) pass(group.columns[c], c, first, smaller(kBlock, end - first));
    };
    auto sum = [&](int64_t p) {
        walk(p, [&](auto &column, int64_t c, int64_t first, int64_t rows) {
            column.sum(first, rows, pieces[p * kGroup + c]);
        });
    };
    auto write = [&](int64_t p) {
        walk(p, [](auto &column, int64_t, int64_t first, int64_t rows) { column.write(first, rows); });
        fence();  // here, on the thread that wrote
    };
    while (groups.next(group)) {
        auto each = [&](const auto &f) {
            for (int64_t c = 0; c < group.count; ++c) f(group.columns[c], pieces + c);
        };
        if (lse_given) {
            each([](auto &column, auto *) { column.finish_with_lse(); });
        } else {
            each([&](auto &column, auto *) {
                column.find_maximum(0, smaller(call.n, kLongGuessRows));
                column.set_scale();
            });
            auto sum_all = [&] { team.for_each(count, sum); };
            sum_all();
            finish_guessed(count, kGroup, each, sum_all);
        }
        if constexpr (Op::kWrite != Write::kNothing) team.for_each(count, write);
        each([](auto &column, auto *) { column.done(); });
    }
}

template <class V, class E, class Op>
fs_status columns(const fs_call &call, int64_t begin, int64_t end, const Team &team, bool stream) {
    using T = typename V::T;
    using Piece = typename Column<V, E, Op>::Piece;
    constexpr int64_t width = kGroup * V::W;
    const int64_t row_bytes = width * int64_t(sizeof(T));
    // (Whether there is a tile fixes the order of summation: it depends on n alone.)
    const bool in_tiles = call.n * row_bytes <= kGroup * kTileBytes && call.n <= kColumnPiece &&
                          !(Op::kTakesLse && call.given_lse != nullptr);
    if (in_tiles) {
        const int64_t rows = ColumnGroups<V, E, Op>::tile_rows(call);
        int64_t together = width;
        while (rows * together * int64_t(sizeof(T)) > kTileBytes) together /= 2;
        const Scratch<T, 3 * 16 * width> tiles(3 * rows * together);
        if (tiles.data == nullptr) return FS_NO_MEMORY;
        columns_in_tiles(call.n, ColumnGroups<V, E, Op>(call, begin, end, together, tiles.data, stream));
    } else {
        const Scratch<Piece, kGroup> pieces(ceil_divide(call.n, kColumnPiece) * kGroup);
        if (pieces.data == nullptr) return FS_NO_MEMORY;
        columns_alone(call, ColumnGroups<V, E, Op>(call, begin, end, width, static_cast<T *>(nullptr), stream), pieces.data,
                      team);
    }
    return FS_OK;
}

#endif
