// A tile of scores: some queries of one graph against some of its keys, for one head.
#pragma once
#include "full.h"
#include "philox.h"
#include "node_rows.h"
#include <cmath>

constexpr int QUERIES = 36;  // rows of a tile
constexpr int KEYS = 256;    // and its columns: a tile of 36 KiB
constexpr float INF = INFINITY;

// What the caller hands over, and whether a row was asked for that the table does not have.
struct Problem : Arguments {
    explicit Problem(const Arguments& a) : Arguments(a) {}
    void found_no_row() const { __atomic_store_n(&no_row, true, __ATOMIC_RELAXED); }
    bool has_no_row() const { return __atomic_load_n(&no_row, __ATOMIC_RELAXED); }

  private:
    mutable bool no_row = false;
};

// Where one graph lies.
struct Graph {
    int64_t query, key, pair;  // its first query, key and pair
    int64_t queries, keys;
};

// In panels of WIDTH keys, each of QUERIES rows.
struct Tile {
    float* data;
    float* at(int row, int key) const {
        return data + (int64_t)(key / WIDTH) * QUERIES * WIDTH + row * WIDTH + key % WIDTH;
    }
};

// data[r, j] = sum over c of a[r, c] * b[c, j], for 'keys' columns; 'a' in panels of P channels,
// 'b' as packed by 'pack_transposed'.
template <int P>
static void scores(const float* a, const float* b, int channels, int rows, int keys, Tile to) {
    constexpr int WHOLE = WIDTH / LANES;
    for (int j = 0; j < keys; j += WIDTH, b += (int64_t)WIDTH * channels) {
        const bool narrow = WHOLE > 1 && keys - j <= WIDTH / 2;
        if (narrow)
            rows_product<(WHOLE > 1 ? WHOLE / 2 : 1), P>(
                a, QUERIES * P, b, WIDTH, channels, to.at(0, j), WIDTH, rows, false);
        else
            rows_product<WHOLE, P>(
                a, QUERIES * P, b, WIDTH, channels, to.at(0, j), WIDTH, rows, false);
    }
}

// to[r, c] (+)= sum over j of tile[r, j] * b[j, c]; 'b' in panels of P channels, 'b_rows' long.
template <int P>
static void gather(
    Tile tile, const float* b, int64_t b_rows, int channels, int rows, int keys, float* to, bool add
) {
    for (int c = 0; c < channels; c += P, b += b_rows * P, to += QUERIES * P)
        rows_product<P / LANES, WIDTH>(
            tile.data, QUERIES * WIDTH, b, P, keys, to, P, rows, add);
}

// to[j, c] += sum over r of tile[r, j] * b[r, c]; 'to' in panels of P channels, 'to_rows' long.
template <int P>
static void scatter(
    Tile tile, const float* b, int channels, int rows, int keys, float* to, int64_t to_rows
) {
    for (int c = 0; c < channels; c += P, b += QUERIES * P, to += to_rows * P)
        columns_product<P / LANES>(tile.data, QUERIES * WIDTH, b, P, rows, to, P, keys);
}

// The index is the caller's memory, which others may write to: each number is read once, and one
// that is out of range by now is no address.
template <class I, class F>
ALWAYS_INLINE void each_index(const Problem& a, int64_t first, int count, F&& use) {
    const volatile I* at = (const volatile I*)a.index + first;
    for (int j = 0; j < count; j++) {
        const int64_t row = at[j];
        if ((uint64_t)row < (uint64_t)a.table_rows) use(j, row);
        else a.found_no_row();
    }
}

template <class F>
static void each_table_row(const Problem& a, int64_t first, int count, F&& use) {
    switch (a.index_bytes) {
        case 1: return each_index<uint8_t>(a, first, count, use);
        case 2: return each_index<int16_t>(a, first, count, use);
        case 4: return each_index<int32_t>(a, first, count, use);
        default: return each_index<int64_t>(a, first, count, use);
    }
}

// Calls use(number of the edge, column) for the edges of a query that end inside the tile.
template <class F>
static void each_edge(
    const Problem& a, const Graph& g, int64_t query, int64_t first, int keys, F&& use
) {
    const int64_t node = a.query_order ? a.query_order[g.query + query] : g.query + query;
    for (int64_t slot = a.edge_ptr[node]; slot < a.edge_ptr[node + 1]; slot++) {
        const int64_t number = a.edge_number[slot];
        const int64_t column = a.key_position[a.edge_source[number]] - first;
        if (column >= 0 && column < keys) use(number, (int)column);
    }
}

// Adds what the biases say to the scores of 'rows' queries from 'query' on and 'keys' keys from
// 'key' on, both counted in their graph.
static void add_biases(
    const Problem& a, const Graph& g, int head, int64_t query, int rows, int64_t key, int keys,
    Tile to
) {
    const int64_t heads = a.heads;
    if (!a.pairs && !a.index && !a.edge_ptr) return;
    for (int r = 0; r < rows; r++) {
        const int64_t pair = g.pair + (query + r) * g.keys + key;
        if (a.pairs) {
            const float* added = a.pairs + pair * heads + head;
            for (int j = 0; j < keys; j += WIDTH) {
                const int count = keys - j < WIDTH ? keys - j : WIDTH;
                float* x = to.at(r, j);
                for (int i = 0; i < count; i++) x[i] += added[(j + i) * heads];
            }
        }
        if (a.index)
            each_table_row(a, pair, keys, [&](int j, int64_t row) {
                *to.at(r, j) += a.table[row * heads + head];
            });
        if (a.edge_ptr)
            each_edge(a, g, query + r, key, keys, [&](int64_t number, int j) {
                *to.at(r, j) += a.edge_values[number * heads + head];
            });
    }
}

// What dropout multiplies the weights of two queries by, the ones numbered 'row' and 'other': 0 or
// 'dropout_factor', for 'keys' keys from 'key' on (a multiple of 4). Each of 'to' has room for
// 4 * LANES more.
static void dropout_factors(
    const Problem& a, const PhiloxKeys& seed, int64_t row, int64_t other, int64_t key, int keys,
    int head, float* const to[2]
) {
    vu lane;
    for (int i = 0; i < LANES; i++) lane[i] = i;
    const vu threshold = (uint32_t)a.dropout_threshold - vu{};
    const vf factor = all((float)a.dropout_factor);
    for (int j = 0; j < keys; j += 4 * LANES) {
        const vu call = lane + (uint32_t)((key + j) / 4), zero{};
        vu words[2][4] = {
            {call, zero + (uint32_t)row, zero + (uint32_t)head, zero},
            {call, zero + (uint32_t)other, zero + (uint32_t)head, zero},
        };
        philox_twice(seed, words);
#pragma GCC unroll 2
        for (int i = 0; i < 2; i++) {
            vf x[4];
#pragma GCC unroll 4
            for (int w = 0; w < 4; w++) x[w] = words[i][w] >= threshold ? factor : vf{};
            transpose<4>(x);
            // lane 4 * g + b of x[w] is now word b of the call in lane 4 * g + w
#pragma GCC unroll 4
            for (int w = 0; w < 4; w++)
#pragma GCC unroll 4
                for (int g = 0; g < LANES / 4; g++)
                    memcpy(to[i] + j + 16 * g + 4 * w, (const char*)&x[w] + 16 * g, 16);
        }
    }
}

// Calls use(where in the tile, its column) for every vector of one row.
template <class F>
ALWAYS_INLINE void each_vector(Tile tile, int row, int keys, F&& use) {
    float* x = tile.at(row, 0);
    int j = 0;
    for (; j + WIDTH <= keys; j += WIDTH, x += QUERIES * WIDTH)
#pragma GCC unroll 4
        for (int v = 0; v < WIDTH; v += LANES) use(x + v, j + v);
    for (int v = 0; j + v < keys; v += LANES) use(x + v, j + v);
}
