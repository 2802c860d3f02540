// What the caller hands over; mirrored field by field in _kernels/cpu/full.py.
#pragma once
#include <cstdint>

struct Strides {
    int64_t row, head;  // in elements; channels lie side by side
};

struct Arguments {
    int64_t graphs, queries, keys;  // B, Nq, Nk
    int64_t heads, channels, half, threads;  // half: bfloat16 in place of float32
    double scale, dropout_factor;
    int64_t dropout_threshold;
    const uint64_t* seed;  // null without dropout
    const int64_t *query_ptr, *key_ptr;      // [B + 1]
    const int64_t *query_order, *key_order;  // nodes graph by graph, or null
    const void *query, *key, *value;
    Strides query_strides, key_strides, value_strides;
    void* out;     // [Nq, H, C]
    float* stats;  // [Nq, H, 2]: the largest score, and one over the sum of exponentials

    int64_t pair_rows;   // P of the following two
    const float* pairs;  // [P, H], or null
    const void* index;   // [P], or null
    int64_t index_bytes, table_rows;
    const float* table;                         // [K, H]
    const int64_t *edge_ptr, *edge_number;      // edges by query node, or null
    const int64_t *edge_source, *key_position;  // [E], [Nk]
    const float* edge_values;                   // [E, H]

    const void* grad;  // of 'out', with the strides below; the rest only backward
    Strides grad_strides;
    void *query_grad, *key_grad, *value_grad;
    Strides query_grad_strides, key_grad_strides, value_grad_strides;
    float *pairs_grad, *table_grad, *edge_values_grad;  // null where not wanted
};

// What the functions return.
enum Code { DONE, NO_MEMORY, NO_SUCH_ROW, OTHER_SIZES };
