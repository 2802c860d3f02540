// Attention along edges, forward and backward: nothing of the size [E, H, C] is made.
//
// Every target is worked on by one thread in one order, and so is every source: results are the
// same bits for any number of threads, without atomic additions.
#include <cstdlib>
#include <memory>
#include "edge_keep.h"
#include "edge_order.h"
#include "edge_rows.h"
#include "edge_softmax.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

// Mirrored by '_cpu_edges._Call'. A pointer that is null: not there, or not asked for.
struct Call {
    int64_t queries, keys, edges, heads, channels;
    int64_t half, values_half;  // bfloat16 in place of float32
    int64_t threads, most;      // most: edges of one node
    // edges sorted by target: where those of a target begin, sources, the caller's numbers
    const int32_t *ptr, *source, *number;
    Rows query, key, value, features;
    const void* values;
    const int64_t* seed;
    double scale, dropout_p;
    Rows out;
    // sorted by source: where those of a source begin, targets, places in the first order
    const int32_t *source_ptr, *target, *slot;
    float* scratch;  // [E, 2, padded]: gradients of products, weights
    Rows grad, dquery, dkey, dvalue, dfeatures;
    void* dvalues;
};

namespace {

struct Problem {
    const Call& call;
    const Shape shape;
    const RowOps ops;
    const Dropout dropout;

    explicit Problem(const Call& c)
        : call(c), shape(shape_of((int)c.heads, (int)c.channels)),
          ops(c.half ? RowOps::of<bf16>(shape) : RowOps::of<float>(shape)),
          dropout(c.seed, c.dropout_p) {}
};

// What one thread needs for one target.
class Worker {
  public:
    float *x, *y, *z;               // [H, width]
    float *scores, *dscores, *extra;  // [most, padded]
    Keep keep;

    explicit Worker(const Problem& p) {
        const int64_t row = p.shape.floats(), list = (p.call.most + LANES) * p.shape.padded + LANES;
        const int64_t kept = p.dropout.on() ? Keep::floats(p.call.most, p.shape.padded) : 0;
        memory.reset((float*)malloc((3 * row + 3 * list + kept) * sizeof(float)));
        float* const at = memory.get();
        x = at, y = x + row, z = y + row;
        scores = z + row, dscores = scores + list, extra = dscores + list;
        keep = Keep(extra + list);
    }
    bool ready() const { return memory != nullptr; }

  private:
    struct Free {
        void operator()(float* p) const { free(p); }
    };
    std::unique_ptr<float, Free> memory;
};

void add_values(const Problem& p, const int32_t* number, int64_t n, float* scores) {
    const int heads = p.shape.heads, padded = p.shape.padded;
    for (int64_t e = 0; e < n; e++) {
        const int64_t row = (int64_t)number[e] * heads;
        float* s = scores + e * padded;
        for (int h = 0; h < heads; h++)
            s[h] += p.call.values_half ? to_float(((const bf16*)p.call.values)[row + h])
                                                   : ((const float*)p.call.values)[row + h];
    }
}

void store_dvalues(const Problem& p, const int32_t* number, int64_t n, const float* dscores) {
    const int heads = p.shape.heads, padded = p.shape.padded;
    for (int64_t e = 0; e < n; e++) {
        const int64_t row = (int64_t)number[e] * heads;
        for (int h = 0; h < heads; h++) {
            const float x = dscores[e * padded + h];
            if (p.call.values_half)
                ((bf16*)p.call.dvalues)[row + h] = to_bf16(x);
            else
                ((float*)p.call.dvalues)[row + h] = x;
        }
    }
}

// out [n, padded]: products of x with the rows of the target's edges and with their features
void products(
    const Problem& p, Worker& w, const Rows& rows, int64_t slot, int64_t n, const float* x,
    float* out
) {
    p.ops.dots(p.shape, rows, p.call.source + slot, n, x, out);
    if (!p.call.features.data) return;
    p.ops.dots(p.shape, p.call.features, p.call.number + slot, n, x, w.extra);
    for (int64_t i = 0; i < n * p.shape.padded; i += LANES)
        store(out + i, load(out + i) + load(w.extra + i));
}

void sum_of_rows(
    const Problem& p, const Rows& rows, int64_t slot, int64_t n, const float* weights, float* sum
) {
    memset(sum, 0, p.shape.floats() * sizeof(float));
    p.ops.add_up(p.shape, rows, p.call.source + slot, n, weights, p.shape.padded, sum);
    if (p.call.features.data)
        p.ops.add_up(
            p.shape, p.call.features, p.call.number + slot, n, weights, p.shape.padded, sum
        );
}

// w.x and w.scores: the query and, before dropout, the weights of a target. Forward and backward
// run these very instructions, so that their weights are the same bits.
__attribute__((noinline)) void weights_of(
    const Problem& p, Worker& w, int64_t target, int64_t slot, int64_t n
) {
    p.ops.unpack(p.shape, p.call.query, target, w.x);
    products(p, w, p.call.key, slot, n, w.x, w.scores);
    const vf scale = all((float)p.call.scale);
    for (int64_t i = 0; i < n * p.shape.padded; i += LANES)
        store(w.scores + i, load(w.scores + i) * scale);
    if (p.call.values) add_values(p, p.call.number + slot, n, w.scores);
    softmax(w.scores, n, p.shape.padded);
}

// One edge's; a call of memcpy costs more than the copy.
ALWAYS_INLINE void copy_numbers(const float* from, int padded, float* to) {
    if (padded < 4)
        for (int h = 0; h < padded; h++) to[h] = from[h];
    else
        for (int h = 0; h < padded; h += 4) memcpy(to + h, from + h, 4 * sizeof(float));
}

void multiply(const float* factors, int64_t count, float* x) {
    for (int64_t i = 0; i < count; i += LANES) store(x + i, load(x + i) * load(factors + i));
}

void forward_targets(const Problem& p, Worker& w, int64_t first, int64_t last) {
    const int32_t* ptr = p.call.ptr;
    for (int64_t t = first; t < last; t++) {
        const int64_t slot = ptr[t], n = ptr[t + 1] - slot;
        weights_of(p, w, t, slot, n);
        if (p.dropout.on())
            multiply(
                w.keep.factors(p.dropout, p.call.number, slot, n, ptr[last], p.shape),
                n * p.shape.padded, w.scores
            );
        sum_of_rows(p, p.call.value, slot, n, w.scores, w.y);
        p.ops.pack(p.shape, w.y, p.call.out, t);
    }
}

// gradients of a feature: of the products times x, the query, and the weight times y
void store_dfeatures(
    const Problem& p, Worker& w, int64_t slot, int64_t n, const float* dproducts,
    const float* weights
) {
    const int padded = p.shape.padded, width = p.shape.width;
    for (int64_t e = 0; e < n; e++) {
        for (int h = 0; h < p.shape.heads; h++) {
            const vf a = all(dproducts[e * padded + h]), b = all(weights[e * padded + h]);
            for (int c = h * width; c < (h + 1) * width; c += LANES)
                store(w.z + c, a * load(w.x + c) + b * load(w.y + c));
        }
        p.ops.pack(p.shape, w.z, p.call.dfeatures, p.call.number[slot + e]);
    }
}

void backward_targets(const Problem& p, Worker& w, int64_t first, int64_t last) {
    const Call& call = p.call;
    const int32_t* ptr = call.ptr;
    const int padded = p.shape.padded;
    const vf scale = all((float)call.scale);
    for (int64_t t = first; t < last; t++) {
        const int64_t slot = ptr[t], n = ptr[t + 1] - slot, count = n * padded;
        weights_of(p, w, t, slot, n);
        p.ops.unpack(p.shape, call.grad, t, w.y);
        products(p, w, call.value, slot, n, w.y, w.dscores);
        const float* factors = nullptr;
        if (p.dropout.on()) {
            factors = w.keep.factors(p.dropout, call.number, slot, n, ptr[last], p.shape);
            multiply(factors, count, w.dscores);
        }
        softmax_backward(w.scores, w.dscores, n, padded);
        if (call.dvalues) store_dvalues(p, call.number + slot, n, w.dscores);
        for (int64_t i = 0; i < count; i += LANES)
            store(w.dscores + i, load(w.dscores + i) * scale);
        if (factors) multiply(factors, count, w.scores);
        if (call.dfeatures.data) store_dfeatures(p, w, slot, n, w.dscores, w.scores);
        if (call.scratch)
            for (int64_t e = 0; e < n; e++) {
                float* pair = call.scratch + (slot + e) * 2 * padded;
                copy_numbers(w.dscores + e * padded, padded, pair);
                copy_numbers(w.scores + e * padded, padded, pair + padded);
            }
        if (call.dquery.data) {
            sum_of_rows(p, call.key, slot, n, w.dscores, w.z);
            p.ops.pack(p.shape, w.z, call.dquery, t);
        }
    }
}

void backward_sources(const Problem& p, Worker& w, int64_t first, int64_t last) {
    const Call& call = p.call;
    const int padded = p.shape.padded;
    for (int64_t s = first; s < last; s++) {
        const int64_t at = call.source_ptr[s], n = call.source_ptr[s + 1] - at;
        for (int64_t e = 0; e < n; e++) {
            const int64_t slot = call.slot[at + e];
            __builtin_prefetch(call.scratch + (int64_t)call.slot[at + e + AHEAD] * 2 * padded);
            const float* pair = call.scratch + slot * 2 * padded;
            copy_numbers(pair, padded, w.dscores + e * padded);
            copy_numbers(pair + padded, padded, w.scores + e * padded);
        }
        const struct {
            const Rows &from, &to;
            const float* weights;
        } both[] = {{call.query, call.dkey, w.dscores}, {call.grad, call.dvalue, w.scores}};
        for (const auto& one : both)
            if (one.to.data) {
                memset(w.x, 0, p.shape.floats() * sizeof(float));
                p.ops.add_up(p.shape, one.from, call.target + at, n, one.weights, padded, w.x);
                p.ops.pack(p.shape, w.x, one.to, s);
            }
    }
}

// 'work' on all rows, split where the edges are; a row costs about as much as an edge.
template <class Work>
bool in_chunks(const Problem& p, const int32_t* ptr, int64_t rows, Work work) {
    const int64_t cost = ptr[rows] + rows;
    const int threads = (int)p.call.threads;
    if (threads <= 1 || cost < 1024) {
        Worker worker(p);
        if (worker.ready()) work(p, worker, 0, rows);
        return worker.ready();
    }
    const int64_t chunks = cost / 512 < 64 * threads ? cost / 512 : 64 * threads;
    const auto bound = [&](int64_t chunk) {
        int64_t low = 0, high = rows;
        while (low < high) {
            const int64_t middle = (low + high) / 2;
            if (ptr[middle] + middle < chunk * cost / chunks) low = middle + 1;
            else high = middle;
        }
        return low;
    };
    bool ready = true;
#pragma omp parallel num_threads(threads) reduction(&& : ready)
    {
        Worker worker(p);
        ready = worker.ready();
#pragma omp for schedule(dynamic, 1)
        for (int64_t chunk = 0; chunk < chunks; chunk++)
            if (ready) {
                worker.keep.forget();
                work(p, worker, bound(chunk), bound(chunk + 1));
            }
    }
    return ready;
}

}  // namespace

// 0, or 1 where memory ran out.
EXPORT int edges_forward(const Call* call) {
    const Problem problem(*call);
    return !in_chunks(problem, call->ptr, call->queries, forward_targets);
}

EXPORT int edges_backward(const Call* call) {
    const Problem problem(*call);
    if (!in_chunks(problem, call->ptr, call->queries, backward_targets)) return 1;
    if (!call->scratch) return 0;
    return !in_chunks(problem, call->source_ptr, call->keys, backward_sources);
}

// Sorts edges by target. Returns the largest number of edges of a target, -1 for a source and -2
// for a target out of range.
EXPORT int64_t edges_by_target(
    const int64_t* source_of, const int64_t* target_of, int64_t edges, int64_t sources,
    int64_t targets, int32_t* ptr, int32_t* source, int32_t* number
) {
    const int64_t most = count_ends(target_of, edges, targets, ptr);
    if (most < 0) return -2;
    bool inside = true;
    place_by(target_of, edges, targets, ptr, [&](int64_t e, int64_t slot) {
        inside &= (uint64_t)source_of[e] < (uint64_t)sources;
        source[slot] = (int32_t)source_of[e];
        number[slot] = (int32_t)e;
    });
    memset(source + edges, 0, SPARE * sizeof *source);
    memset(number + edges, 0, SPARE * sizeof *number);
    return inside ? most : -1;
}

// Sorts the slots of that order by source. Returns the largest number of edges of a source.
EXPORT int64_t edges_by_source(
    const int32_t* ptr, const int32_t* source_of, int64_t edges, int64_t sources,
    int32_t* source_ptr, int32_t* target, int32_t* slot_of
) {
    const int64_t most = count_ends(source_of, edges, sources, source_ptr);
    if (most < 0) return -1;
    int64_t t = 0;
    place_by(source_of, edges, sources, source_ptr, [&](int64_t slot, int64_t place) {
        while (ptr[t + 1] <= slot) t++;
        target[place] = (int32_t)t;
        slot_of[place] = (int32_t)slot;
    });
    memset(target + edges, 0, SPARE * sizeof *target);
    memset(slot_of + edges, 0, SPARE * sizeof *slot_of);
    return most;
}

// Elements that lists of edges must have room for behind the last edge.
EXPORT int edges_spare(void) { return SPARE; }
