// Softmax attention inside each graph of a ragged batch, forward and backward.
//
// One graph and one head at a time, tile by tile, with the softmax computed as in Milakov &
// Gimelshein 2018 (https://arxiv.org/abs/1805.02867). The backward pass makes the weights again from
// the largest score and the sum of exponentials of each query. No sum crosses graphs, and each is
// taken in an order that depends on the size of its graph alone.
//
// The gradient of a score is its weight times (s - d): s is the gradient of the weight, and d the
// sum of weights times s over the keys, or the product of the output and its gradient. In bfloat16
// the output was rounded, which shows where s - d is small beside s, in sharp attention: there the
// tiles of all keys are kept until their sum is known.
#include "parallel.h"
#include "tile.h"
#include <new>
#include <vector>

static constexpr int64_t LONG = 504;  // queries of one task of the forward pass
static constexpr int FACTORS = KEYS + 4 * LANES;
static constexpr int64_t TILE = QUERIES * KEYS;

// Tiles of weights that the backward pass keeps.
static int64_t tiles_of(const Problem& a, int64_t keys) {
    return a.half && keys > KEYS ? (keys + KEYS - 1) / KEYS : 1;
}

// One head of a tensor [N, H, C] of either type.
struct Head {
    void* data;
    int64_t offset, row;
    const int64_t* order;
    bool half;

    Head(const Problem& a, const void* data, Strides strides, const int64_t* order, int head)
        : data((void*)data), offset(head * strides.head), row(strides.row), order(order),
          half(a.half) {}
    template <class T>
    NodeRows<T> as() const {
        return {(T*)data + offset, row, order};
    }
    template <int P>
    void pack(int64_t first, int count, int channels, float factor, float* to, int rows) const {
        half ? ::pack<P>(as<const bf16>(), first, count, channels, factor, to, rows)
             : ::pack<P>(as<const float>(), first, count, channels, factor, to, rows);
    }
    void pack_transposed(int64_t first, int64_t count, int channels, float* to) const {
        half ? ::pack_transposed(as<const bf16>(), first, count, channels, to)
             : ::pack_transposed(as<const float>(), first, count, channels, to);
    }
    template <int P>
    void unpack(
        const float* from, int64_t rows, int64_t first, int64_t count, int channels,
        const float* factors, float factor
    ) const {
        half ? ::unpack<P>(from, rows, as<bf16>(), first, count, channels, factors, factor)
             : ::unpack<P>(from, rows, as<float>(), first, count, channels, factors, factor);
    }
    template <int P>
    float dot(int64_t node, const float* panels, int rows, int i, int channels) const {
        return half ? ::dot<P>(as<const bf16>().at(node), panels, rows, i, channels)
                    : ::dot<P>(as<const float>().at(node), panels, rows, i, channels);
    }
};

ALWAYS_INLINE int64_t node_of(const int64_t* order, int64_t i) { return order ? order[i] : i; }

ALWAYS_INLINE int64_t padded(const Problem& a, int panel) { return up(a.channels, panel); }

// Scores of keys that are not there become minus infinity.
static void hide_tail(Tile tile, int rows, int keys) {
    if (keys % LANES == 0) return;
    vi lane;
    for (int i = 0; i < LANES; i++) lane[i] = i;
    const vi there = lane < keys % LANES;
    for (int r = 0; r < rows; r++) {
        float* x = tile.at(r, keys / LANES * LANES);
        store(x, there ? load(x) : all(-INF));
    }
}

template <int P>
static void forward(
    const Problem& a, const PhiloxKeys* keys_of_seed, const Graph& g, int64_t begin, int64_t end,
    float* room
) {
    const int channels = (int)a.channels, wide = (int)padded(a, P);
    const int64_t keys = g.keys, key_rows = up(keys, WIDTH);
    float* k = room;
    float* v = k + key_rows * channels;
    float* q = v + key_rows * wide;
    float* sums = q + QUERIES * wide;
    Tile tile{sums + QUERIES * wide};
    float* const factors[2] = {
        tile.data + QUERIES * KEYS, tile.data + QUERIES * KEYS + FACTORS};
    const Strides own{a.heads * a.channels, a.channels};
    for (int h = 0; h < a.heads; h++) {
        const Head query(a, a.query, a.query_strides, a.query_order, h);
        const Head key_head(a, a.key, a.key_strides, a.key_order, h);
        const Head value(a, a.value, a.value_strides, a.key_order, h);
        const Head out(a, a.out, own, a.query_order, h);
        key_head.pack_transposed(g.key, keys, channels, k);
        value.pack<P>(g.key, (int)keys, channels, 1.f, v, (int)key_rows);
        for (int64_t first = begin; first < end; first += QUERIES) {
            const int count = (int)(end - first < QUERIES ? end - first : QUERIES);
            query.pack<P>(g.query + first, count, channels, (float)a.scale, q, QUERIES);
            float top[QUERIES], total[QUERIES];
            for (int r = 0; r < count; r++) top[r] = -INF, total[r] = 0;
            if (keys == 0) memset(sums, 0, sizeof(float) * QUERIES * wide);
            for (int64_t key = 0; key < keys; key += KEYS) {
                const int here = (int)(keys - key < KEYS ? keys - key : KEYS);
                scores<P>(q, k + key * channels, channels, count, here, tile);
                add_biases(a, g, h, first, count, key, here, tile);
                hide_tail(tile, count, here);
                for (int r = 0; r < count; r++) {
                    if (a.seed && r % 2 == 0)
                        dropout_factors(
                            a, *keys_of_seed, g.query + first + r, g.query + first + r + 1, key,
                            here, h, factors);
                    vf best = all(-INF);
                    each_vector(tile, r, here, [&](const float* x, int) {
                        best = max_keeping(best, load(x));
                    });
                    const float before = top[r], now = max_of_lanes(best);
                    top[r] = before > now ? before : now;
                    const vf shift = all(top[r] == -INF ? 0.f : top[r]);
                    vf sum{};
                    if (a.seed)
                        each_vector(tile, r, here, [&](float* x, int j) {
                            const vf weight = exp_of(load(x) - shift);
                            sum += weight;
                            store(x, weight * load(factors[r % 2] + j));
                        });
                    else
                        each_vector(tile, r, here, [&](float* x, int) {
                            const vf weight = exp_of(load(x) - shift);
                            sum += weight;
                            store(x, weight);
                        });
                    if (key > 0 && before != top[r]) {
                        const float less = before == -INF ? 0.f : std::exp(before - top[r]);
                        total[r] *= less;
                        for (int c = 0; c < wide; c += P) {
                            float* x = sums + c * QUERIES + r * P;
                            for (int d = 0; d < P; d++) x[d] *= less;
                        }
                    }
                    total[r] += sum_of_lanes(sum);
                }
                gather<P>(tile, v + key * P, key_rows, channels, count, here, sums, key > 0);
            }
            float inverse[QUERIES];
            for (int r = 0; r < count; r++) {
                inverse[r] = total[r] == 0 ? 0.f : 1 / total[r];
                const int64_t node = node_of(a.query_order, g.query + first + r);
                float* stats = a.stats + 2 * (node * a.heads + h);
                stats[0] = top[r] == -INF ? 0.f : top[r];
                stats[1] = inverse[r];
            }
            out.unpack<P>(sums, QUERIES, g.query + first, count, channels, inverse, 1.f);
        }
    }
}

template <int P>
static void backward(
    const Problem& a, const PhiloxKeys* keys_of_seed, const Graph& g, int h, double* table,
    float* room
) {
    const int channels = (int)a.channels, wide = (int)padded(a, P);
    const int64_t keys = g.keys, key_rows = up(keys, WIDTH);
    float* k = room;                             // [C, keys] in panels of keys
    float* v = k + key_rows * channels;          // the same
    float* k_rows = v + key_rows * channels;     // [keys, C] in panels of channels
    float* k_grad = k_rows + key_rows * wide;    // the same
    float* v_grad = k_grad + key_rows * wide;    // the same
    float* q = v_grad + key_rows * wide;         // [QUERIES, C] in panels of channels
    float* o_grad = q + QUERIES * wide;          // the same
    float* q_grad = o_grad + QUERIES * wide;     // the same
    const int64_t tiles = tiles_of(a, keys), apart = tiles * TILE;
    float* const first_tile = q_grad + QUERIES * wide;
    Tile kept{first_tile + 2 * apart};  // weights after dropout, of one tile
    float* const factors[2] = {kept.data + TILE, kept.data + TILE + FACTORS};
    const Strides own{a.heads * a.channels, a.channels};
    const Head query(a, a.query, a.query_strides, a.query_order, h);
    const Head key_head(a, a.key, a.key_strides, a.key_order, h);
    const Head value(a, a.value, a.value_strides, a.key_order, h);
    const Head out(a, a.out, own, a.query_order, h);
    const Head out_grad(a, a.grad, a.grad_strides, a.query_order, h);
    const Head query_grad(a, a.query_grad, a.query_grad_strides, a.query_order, h);
    const Head key_grad(a, a.key_grad, a.key_grad_strides, a.key_order, h);
    const Head value_grad(a, a.value_grad, a.value_grad_strides, a.key_order, h);
    key_head.pack_transposed(g.key, keys, channels, k);
    value.pack_transposed(g.key, keys, channels, v);
    key_head.pack<P>(g.key, (int)keys, channels, 1.f, k_rows, (int)key_rows);
    memset(k_grad, 0, sizeof(float) * 2 * key_rows * wide);
    for (int64_t first = 0; first < g.queries; first += QUERIES) {
        const int count = (int)(g.queries - first < QUERIES ? g.queries - first : QUERIES);
        query.pack<P>(g.query + first, count, channels, (float)a.scale, q, QUERIES);
        out_grad.pack<P>(g.query + first, count, channels, 1.f, o_grad, QUERIES);
        if (keys == 0) memset(q_grad, 0, sizeof(float) * QUERIES * wide);
        float top[QUERIES], inverse[QUERIES], delta[QUERIES];
        for (int r = 0; r < count; r++) {
            const int64_t node = node_of(a.query_order, g.query + first + r);
            const float* stats = a.stats + 2 * (node * a.heads + h);
            top[r] = stats[0], inverse[r] = stats[1];
            delta[r] =
                a.half ? 0.f : out.dot<P>(g.query + first + r, o_grad, QUERIES, r, channels);
        }
        const auto here_of = [&](int64_t key) {
            return (int)(keys - key < KEYS ? keys - key : KEYS);
        };
        const auto weights_of = [&](int64_t key) {
            return Tile{first_tile + (a.half ? key / KEYS * TILE : 0)};
        };
        // what is made of the gradients of scores, which lie 'apart' from the weights
        const auto use = [&](int64_t key, Tile weights) {
            const int here = here_of(key);
            const Tile slopes{weights.data + apart};
            for (int r = 0; r < count; r++) {
                const int64_t pair = g.pair + (first + r) * keys + key;
                if (a.pairs_grad)
                    for (int j = 0; j < here; j++)
                        a.pairs_grad[(pair + j) * a.heads + h] = *slopes.at(r, j);
                if (table)
                    each_table_row(a, pair, here, [&](int j, int64_t row) {
                        table[row] += *slopes.at(r, j);
                    });
                if (a.edge_values_grad)
                    each_edge(a, g, first + r, key, here, [&](int64_t number, int j) {
                        a.edge_values_grad[number * a.heads + h] = *slopes.at(r, j);
                    });
            }
            gather<P>(
                slopes, k_rows + key * P, key_rows, channels, count, here, q_grad, key > 0);
            scatter<P>(slopes, q, channels, count, here, k_grad + key * P, key_rows);
        };
        for (int64_t key = 0; key < keys; key += KEYS) {
            const int here = here_of(key);
            const Tile weights = weights_of(key), slopes{weights.data + apart};
            scores<P>(q, k + key * channels, channels, count, here, weights);
            add_biases(a, g, h, first, count, key, here, weights);
            hide_tail(weights, count, here);
            scores<P>(o_grad, v + key * channels, channels, count, here, slopes);
            for (int r = 0; r < count; r++) {
                if (a.seed && r % 2 == 0)
                    dropout_factors(
                        a, *keys_of_seed, g.query + first + r, g.query + first + r + 1, key, here,
                        h, factors);
                const vf shift = all(top[r]), scale = all(inverse[r]), less = all(delta[r]);
                const int64_t to_kept = kept.data - weights.data;
                vf sum{};
                if (a.half && a.seed)
                    each_vector(weights, r, here, [&](float* x, int j) {
                        const vf weight = exp_of(load(x) - shift) * scale;
                        const vf factor = load(factors[r % 2] + j);
                        const vf slope = load(x + apart) * factor;
                        store(x, weight);
                        store(x + to_kept, weight * factor);
                        store(x + apart, slope);
                        sum += weight * slope;
                    });
                else if (a.half)
                    each_vector(weights, r, here, [&](float* x, int) {
                        const vf weight = exp_of(load(x) - shift) * scale;
                        store(x, weight);
                        sum += weight * load(x + apart);
                    });
                else if (a.seed)
                    each_vector(weights, r, here, [&](float* x, int j) {
                        const vf weight = exp_of(load(x) - shift) * scale;
                        const vf factor = load(factors[r % 2] + j);
                        store(x, weight * factor);
                        store(x + apart, weight * (load(x + apart) * factor - less));
                    });
                else
                    each_vector(weights, r, here, [&](float* x, int) {
                        const vf weight = exp_of(load(x) - shift) * scale;
                        store(x, weight);
                        store(x + apart, weight * (load(x + apart) - less));
                    });
                if (a.half) delta[r] += sum_of_lanes(sum);
            }
            scatter<P>(
                a.half && a.seed ? kept : weights, o_grad, channels, count, here,
                v_grad + key * P, key_rows);
            if (!a.half) use(key, weights);
        }
        if (a.half)
            for (int64_t key = 0; key < keys; key += KEYS) {
                const Tile weights = weights_of(key);
                for (int r = 0; r < count; r++) {
                    const vf less = all(delta[r]);
                    each_vector(weights, r, here_of(key), [&](float* x, int) {
                        store(x + apart, load(x) * (load(x + apart) - less));
                    });
                }
                use(key, weights);
            }
        query_grad.unpack<P>(
            q_grad, QUERIES, g.query + first, count, channels, nullptr, (float)a.scale);
    }
    key_grad.unpack<P>(k_grad, key_rows, g.key, keys, channels, nullptr, 1.f);
    value_grad.unpack<P>(v_grad, key_rows, g.key, keys, channels, nullptr, 1.f);
}

// Thrown where sizes contradict each other: nothing is read by numbers that were not compared.
struct OtherSizes {};

static std::vector<Graph> graphs_of(const Problem& a) {
    std::vector<Graph> graphs(a.graphs);
    const auto falls = [](const int64_t* ptr, int64_t b) { return ptr[b + 1] < ptr[b]; };
    int64_t pair = 0;
    bool fit = a.query_ptr[0] == 0 && a.key_ptr[0] == 0;
    fit &= a.query_ptr[a.graphs] == a.queries && a.key_ptr[a.graphs] == a.keys;
    for (int64_t b = 0; b < a.graphs; b++) {
        const int64_t query = a.query_ptr[b], key = a.key_ptr[b];
        graphs[b] = {query, key, pair, a.query_ptr[b + 1] - query, a.key_ptr[b + 1] - key};
        fit &= !falls(a.query_ptr, b) && !falls(a.key_ptr, b);
        pair += graphs[b].queries * graphs[b].keys;
    }
    if ((a.pairs || a.index) && pair != a.pair_rows) fit = false;
    if (!fit) throw OtherSizes();
    return graphs;
}

static int64_t most_keys(const std::vector<Graph>& graphs) {
    int64_t most = 0;
    for (const Graph& g : graphs) most = g.keys > most ? g.keys : most;
    return up(most, WIDTH);
}

template <int P>
static bool all_forward(const Problem& a) {
    const std::vector<Graph> graphs = graphs_of(a);
    const PhiloxKeys keys_of_seed(a.seed ? *a.seed : 0);
    struct Task {
        int64_t graph, begin, end;
    };
    std::vector<Task> tasks;
    for (int64_t b = 0; b < a.graphs; b++)
        for (int64_t i = 0; i < graphs[b].queries; i += LONG)
            tasks.push_back({b, i, i + LONG < graphs[b].queries ? i + LONG : graphs[b].queries});
    const int64_t wide = padded(a, P);
    const int64_t room = most_keys(graphs) * (a.channels + wide) + 2 * QUERIES * wide
        + QUERIES * KEYS + 2 * FACTORS;
    return parallel(a.threads, (int64_t)tasks.size(), room, [&](int64_t i, float* scratch) {
        forward<P>(a, &keys_of_seed, graphs[tasks[i].graph], tasks[i].begin, tasks[i].end, scratch);
    });
}

// The gradient of the table is a sum over graphs. It is taken in at most this many parts, whose
// number does not depend on the threads, and the parts are added up in their order.
static constexpr int64_t PARTS = 16, PART_NUMBERS = int64_t(1) << 24;

template <int P>
static bool all_backward(const Problem& a) {
    const std::vector<Graph> graphs = graphs_of(a);
    const PhiloxKeys keys_of_seed(a.seed ? *a.seed : 0);
    const int64_t wide = padded(a, P);
    const int64_t most = most_keys(graphs);
    const int64_t room = most * (2 * a.channels + 3 * wide) + 3 * QUERIES * wide
        + (2 * tiles_of(a, most) + 1) * TILE + 2 * FACTORS;
    if (!a.table_grad) {
        return parallel(a.threads, a.graphs * a.heads, room, [&](int64_t i, float* scratch) {
            backward<P>(a, &keys_of_seed, graphs[i / a.heads], (int)(i % a.heads), nullptr, scratch);
        });
    }
    const int64_t numbers = a.table_rows * a.heads;
    int64_t parts = PART_NUMBERS / (numbers > 0 ? numbers : 1);
    parts = parts < 1 ? 1 : parts > PARTS ? PARTS : parts;
    parts = parts > a.graphs ? a.graphs : parts;
    std::vector<double> sums(parts * numbers);
    const bool done = parallel(a.threads, parts * a.heads, room, [&](int64_t i, float* scratch) {
        const int64_t part = i / a.heads, h = i % a.heads;
        double* sum = sums.data() + i * a.table_rows;
        const int64_t stop = (part + 1) * a.graphs / parts;
        for (int64_t b = part * a.graphs / parts; b < stop; b++)
            backward<P>(a, &keys_of_seed, graphs[b], (int)h, sum, scratch);
    });
    for (int64_t row = 0; row < a.table_rows; row++)
        for (int64_t h = 0; h < a.heads; h++) {
            double sum = 0;
            for (int64_t part = 0; part < parts; part++)
                sum += sums[(part * a.heads + h) * a.table_rows + row];
            a.table_grad[row * a.heads + h] = (float)sum;
        }
    return done;
}

constexpr int NARROW = LANES < 16 ? 8 : 16;

static Code run(const Arguments& arguments, bool back) {
    const Problem a(arguments);
    try {
        const bool done = a.channels <= NARROW
            ? (back ? all_backward<NARROW>(a) : all_forward<NARROW>(a))
            : (back ? all_backward<16>(a) : all_forward<16>(a));
        return !done ? NO_MEMORY : a.has_no_row() ? NO_SUCH_ROW : DONE;
    } catch (const std::bad_alloc&) {
        return NO_MEMORY;
    } catch (const OtherSizes&) {
        return OTHER_SIZES;
    }
}

extern "C" {
__attribute__((visibility("default"))) int full_forward(const Arguments* a) {
    return run(*a, false);
}
__attribute__((visibility("default"))) int full_backward(const Arguments* a) {
    return run(*a, true);
}
}
