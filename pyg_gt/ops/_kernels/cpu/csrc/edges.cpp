// Attention along edges, forward and backward: nothing of the size [E, H, C] is made.
//
// Every target is worked on by one thread in one order, and so is every source: results are the
// same bits for any number of threads, without atomic additions.
#include "edge_dropout.h"
#include "edge_order.h"
#include "edge_rows.h"
#include "edge_softmax.h"
#include "parallel.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

// Mirrored by 'Call' of 'edges_library.py'. Where a pointer is null, a tensor is not there or
// not asked for.
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
    Rows grad, dquery, dkey, dvalue, dfeatures;
    void* dvalues;
};

namespace {

struct Problem {
    const Call& call;
    const Shape shape;
    const RowOps ops;
    const Dropout dropout;
    float* const pairs;  // [E, 2, padded]: gradients of scores, weights; or null

    explicit Problem(const Call& c, float* pairs_ = nullptr)
        : call(c), shape((int)c.heads, (int)c.channels),
          ops(c.half ? RowOps::of<bf16>(shape) : RowOps::of<float>(shape)),
          dropout(c.seed, c.dropout_p), pairs(pairs_) {}
};

// What one thread needs for one node.
struct Worker {
    float *x, *y, *z;                    // [H, width]
    float *factors, *ones, *scales;      // of heads
    float *weights, *gradients, *extra;  // [most, padded]
    Keep keep;

    static int64_t floats(const Problem& p) {
        return 3 * p.shape.floats() + 3 * repeated(p.shape.padded) + 3 * list(p) +
               (p.dropout.on() ? Keep::floats(p.call.most, p.shape.padded) : 0);
    }
    Worker(const Problem& p, float* at) {
        const auto take = [&](int64_t count) { return at += count, at - count; };
        const int heads = repeated(p.shape.padded);
        x = take(p.shape.floats()), y = take(p.shape.floats()), z = take(p.shape.floats());
        factors = take(heads), ones = take(heads), scales = take(heads);
        weights = take(list(p)), gradients = take(list(p)), extra = take(list(p));
        keep = Keep(at);
        for (int h = 0; h < heads; h++) ones[h] = 1.f, scales[h] = (float)p.call.scale;
    }

  private:
    static int64_t list(const Problem& p) {
        return (p.call.most + LANES) * p.shape.padded + LANES;
    }
};

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
    const Weights each{weights, p.shape.padded, nullptr};
    for (int i = 0; i < p.shape.floats(); i += LANES) store(sum + i, vf{});
    p.ops.add_up(p.shape, rows, p.call.source + slot, n, each, sum);
    if (p.call.features.data)
        p.ops.add_up(p.shape, p.call.features, p.call.number + slot, n, each, sum);
}

// Products become scores.
void add_values(const Problem& p, const int32_t* number, int64_t n, float* products) {
    const int heads = p.shape.heads, padded = p.shape.padded;
    const float scale = (float)p.call.scale;
    for (int64_t e = 0; e < n; e++)
        for (int h = 0; h < heads; h++) {
            const int64_t at = (int64_t)number[e] * heads + h;
            float& x = products[e * padded + h];
            x = x * scale + (p.call.values_half ? to_float(((const bf16*)p.call.values)[at])
                                                : ((const float*)p.call.values)[at]);
        }
}

void store_dvalues(const Problem& p, const int32_t* number, int64_t n, const float* gradients) {
    const int heads = p.shape.heads, padded = p.shape.padded;
    for (int64_t e = 0; e < n; e++)
        for (int h = 0; h < heads; h++) {
            const int64_t at = (int64_t)number[e] * heads + h;
            const float x = gradients[e * padded + h];
            if (p.call.values_half) ((bf16*)p.call.dvalues)[at] = to_bf16(x);
            else ((float*)p.call.dvalues)[at] = x;
        }
}

// w.x: the query of a target; w.weights and w.factors: its weights before dropout. Forward and
// backward run these very instructions, so that their exponentials are the same bits.
__attribute__((noinline)) void weigh(
    const Problem& p, Worker& w, int64_t target, int64_t slot, int64_t n
) {
    p.ops.unpack(p.shape, p.call.query, target, w.x);
    products(p, w, p.call.key, slot, n, w.x, w.weights);
    if (p.call.values) add_values(p, p.call.number + slot, n, w.weights);
    const float scale = p.call.values ? 1.f : (float)p.call.scale;
    softmax(w.weights, n, p.shape.padded, scale, w.factors);
}

void multiply(const float* factors, int64_t count, float* x) {
    for (int64_t i = 0; i < count; i += LANES) store(x + i, load(x + i) * load(factors + i));
}

void forward_targets(const Problem& p, Worker& w, int64_t first, int64_t last) {
    const int32_t* ptr = p.call.ptr;
    for (int64_t t = first; t < last; t++) {
        const int64_t slot = ptr[t], n = ptr[t + 1] - slot;
        weigh(p, w, t, slot, n);
        if (p.dropout.on())
            multiply(
                w.keep.factors(p.dropout, p.call.number, slot, n, ptr[last], p.shape),
                n * p.shape.padded, w.weights
            );
        sum_of_rows(p, p.call.value, slot, n, w.weights, w.y);
        p.ops.pack(p.shape, w.y, w.factors, p.call.out, t);
    }
}

// Of an edge's features: w.x, the query, times gradients of scores, and w.y times weights.
void store_dfeatures(const Problem& p, Worker& w, int64_t slot, int64_t n) {
    const int padded = p.shape.padded, width = p.shape.width;
    for (int64_t e = 0; e < n; e++) {
        for (int h = 0; h < p.shape.heads; h++) {
            const vf a = all(w.gradients[e * padded + h] * w.scales[h]);
            const vf b = all(w.weights[e * padded + h]);
            for (int c = h * width; c < (h + 1) * width; c += LANES)
                store(w.z + c, a * load(w.x + c) + b * load(w.y + c));
        }
        p.ops.pack(p.shape, w.z, w.ones, p.call.dfeatures, p.call.number[slot + e]);
    }
}

// What the sources will ask for: of each edge its gradients of scores and its weights.
void store_pairs(const Problem& p, const Worker& w, int64_t slot, int64_t n) {
    const int padded = p.shape.padded;
    float* to = p.pairs + slot * 2 * padded;
    if (padded < 4) {
        for (int64_t i = 0; i < n * padded; i++) {
            to[i / padded * 2 * padded + i % padded] = w.gradients[i];
            to[i / padded * 2 * padded + i % padded + padded] = w.weights[i];
        }
        return;
    }
    for (int64_t i = 0; i < n * padded; i += padded, to += 2 * padded)
        for (int h = 0; h < padded; h += 4) {
            memcpy(to + h, w.gradients + i + h, 4 * sizeof(float));
            memcpy(to + padded + h, w.weights + i + h, 4 * sizeof(float));
        }
}

void backward_targets(const Problem& p, Worker& w, int64_t first, int64_t last) {
    const Call& call = p.call;
    const int32_t* ptr = call.ptr;
    for (int64_t t = first; t < last; t++) {
        const int64_t slot = ptr[t], n = ptr[t + 1] - slot, count = n * p.shape.padded;
        weigh(p, w, t, slot, n);
        p.ops.unpack(p.shape, call.grad, t, w.y);
        products(p, w, call.value, slot, n, w.y, w.gradients);
        const float* kept = nullptr;
        if (p.dropout.on()) {
            kept = w.keep.factors(p.dropout, call.number, slot, n, ptr[last], p.shape);
            multiply(kept, count, w.gradients);
        }
        softmax_backward(w.weights, w.gradients, n, p.shape.padded, w.factors);
        if (kept) multiply(kept, count, w.weights);
        if (call.dvalues) store_dvalues(p, call.number + slot, n, w.gradients);
        if (call.dfeatures.data) store_dfeatures(p, w, slot, n);
        if (p.pairs) store_pairs(p, w, slot, n);
        if (call.dquery.data) {
            sum_of_rows(p, call.key, slot, n, w.gradients, w.z);
            p.ops.pack(p.shape, w.z, w.scales, call.dquery, t);
        }
    }
}

// Row s of 'to': over the edges of a source, rows of their targets times their weights.
void sum_of_targets(
    const Problem& p, Worker& w, int64_t s, const Rows& from, const float* weights,
    const float* factors, const Rows& to
) {
    if (!to.data) return;
    const int64_t at = p.call.source_ptr[s], n = p.call.source_ptr[s + 1] - at;
    for (int i = 0; i < p.shape.floats(); i += LANES) store(w.x + i, vf{});
    const Weights each{weights, 2 * p.shape.padded, p.call.slot + at};
    p.ops.add_up(p.shape, from, p.call.target + at, n, each, w.x);
    p.ops.pack(p.shape, w.x, factors, to, s);
}

void backward_sources(const Problem& p, Worker& w, int64_t first, int64_t last) {
    const Call& call = p.call;
    for (int64_t s = first; s < last; s++) {
        sum_of_targets(p, w, s, call.query, p.pairs, w.scales, call.dkey);
        sum_of_targets(p, w, s, call.grad, p.pairs + p.shape.padded, w.ones, call.dvalue);
    }
}

// 'work' on all nodes, split where the edges are; a node costs about as much as an edge.
template <class Work>
bool in_chunks(const Problem& p, const int32_t* ptr, int64_t nodes, Work work) {
    const int64_t cost = ptr[nodes] + nodes, most = 64 * p.call.threads;
    const int64_t many = cost / 512 < most ? cost / 512 : most;
    const int64_t chunks = p.call.threads <= 1 || cost < 1024 ? 1 : many;
    const auto bound = [&](int64_t chunk) {
        int64_t low = 0, high = nodes;
        while (low < high) {
            const int64_t middle = (low + high) / 2;
            if (ptr[middle] + middle < chunk * cost / chunks) low = middle + 1;
            else high = middle;
        }
        return low;
    };
    return parallel(p.call.threads, chunks, Worker::floats(p), [&](int64_t chunk, float* room) {
        Worker worker(p, room);
        work(p, worker, bound(chunk), bound(chunk + 1));
    });
}

// Gradients and weights of edges, or their targets. Kept from call to call unless it is large: fresh
// memory of the system is slow at first.
static_assert(sizeof(float) == sizeof(int32_t), "scratch is counted in numbers of this size");
thread_local Scratch numbers_of_thread;

}  // namespace

// 0, or 1 where memory ran out.
EXPORT int edges_forward(const Call* call) {
    const Problem problem(*call);
    return !in_chunks(problem, call->ptr, call->queries, forward_targets);
}

EXPORT int edges_backward(const Call* call) {
    float* pairs = nullptr;
    const bool sources = call->dkey.data || call->dvalue.data;
    if (sources) {
        const int padded = Shape((int)call->heads, (int)call->channels).padded;
        pairs = numbers_of_thread.get((call->edges + 1) * 2 * padded);
        if (!pairs) return 1;
    }
    const Problem problem(*call, pairs);
    bool done = in_chunks(problem, call->ptr, call->queries, backward_targets);
    if (done && sources) done = in_chunks(problem, call->source_ptr, call->keys, backward_sources);
    numbers_of_thread.trim();
    return !done;
}

// Sorts edges by target. Returns the largest number of edges of a target, -1 for a source and -2
// for a target out of range, -3 where memory ran out.
EXPORT int64_t edges_by_target(
    const int32_t* source_of, const int32_t* target_of, int64_t edges, int64_t sources,
    int64_t targets, int32_t* ptr, int32_t* source, int32_t* number
) {
    int32_t* const own = (int32_t*)numbers_of_thread.get(edges + 1);
    if (!own) return -3;
    const int64_t most = count_ends(target_of, edges, targets, own, ptr);
    bool inside = true;
    if (most >= 0)
        place_by(own, edges, targets, ptr, [&](int64_t e, int64_t slot) {
            const int64_t node = read_once(source_of + e);
            inside &= (uint64_t)node < (uint64_t)sources;
            source[slot] = (int32_t)node;
            number[slot] = (int32_t)e;
        });
    numbers_of_thread.trim();
    if (most < 0) return -2;
    memset(source + edges, 0, SPARE * sizeof *source);
    memset(number + edges, 0, SPARE * sizeof *number);
    return inside ? most : -1;
}

// Sorts the slots of that order by source. Returns the largest number of edges of a source.
EXPORT int64_t edges_by_source(
    const int32_t* ptr, const int32_t* source_of, int64_t edges, int64_t sources,
    int32_t* source_ptr, int32_t* target, int32_t* slot_of
) {
    const int64_t most = count_ends(source_of, edges, sources, nullptr, source_ptr);
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
