// Rows of nodes, read from and written to torch's tensors: float32 or bfloat16, any strides, any
// order of the nodes.
#pragma once
#include "panels.h"
#include "rows.h"

// One head of a tensor [N, H, C]: where each node's channels are.
template <class T>
struct NodeRows {
    T* data;
    int64_t row;           // elements from one node to the next
    const int64_t* order;  // the nodes graph by graph, or null where they lie so
    T* at(int64_t i) const { return data + (order ? order[i] : i) * row; }
};

// 'count' nodes from 'first' on as panels of P columns, times 'factor'; panels have 'rows' rows.
template <int P, class T>
static void pack(
    NodeRows<const T> from, int64_t first, int count, int channels, float factor, float* to, int rows
) {
    for (int i = 0; i < count; i++) {
        const T* x = from.at(first + i);
        float* y = to + i * P;
        int c = 0;
        for (; c + P <= channels; c += P, y += (int64_t)rows * P)
#pragma GCC unroll 4
            for (int v = 0; v < P; v += LANES) store(y + v, load(x + c + v) * factor);
        if (c < channels)
            for (int d = 0; d < P; d++) y[d] = c + d < channels ? to_float(x[c + d]) * factor : 0.f;
    }
}

// The same nodes as the transpose: panels of WIDTH nodes, each with 'channels' rows.
template <class T>
static void pack_transposed(
    NodeRows<const T> from, int64_t first, int64_t count, int channels, float* to
) {
    for (int64_t j = 0; j < count; j += LANES) {
        const int here = count - j < LANES ? (int)(count - j) : LANES;
        float* y = to + (j / WIDTH) * WIDTH * channels + j % WIDTH;
        const T* x[LANES];
        for (int i = 0; i < LANES; i++) x[i] = from.at(first + j + (i < here ? i : 0));
        int c = 0;
        for (; c + LANES <= channels; c += LANES) {
            vf block[LANES];
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++) block[i] = load(x[i] + c);
            transpose<LANES>(block);
#pragma GCC unroll 16
            for (int d = 0; d < LANES; d++) store(y + (c + d) * WIDTH, block[d]);
        }
        for (; c < channels; c++)
            for (int i = 0; i < LANES; i++) y[c * WIDTH + i] = to_float(x[i][c]);
    }
}

// Panels of P columns back into rows of nodes; row i times factors[i], or 'factor' without them.
template <int P, class T>
static void unpack(
    const float* from, int64_t rows, NodeRows<T> to, int64_t first, int64_t count, int channels,
    const float* factors, float factor
) {
    for (int64_t i = 0; i < count; i++) {
        const float* x = from + i * P;
        T* y = to.at(first + i);
        const float f = factors ? factors[i] : factor;
        int c = 0;
        for (; c + P <= channels; c += P, x += rows * P)
#pragma GCC unroll 4
            for (int v = 0; v < P; v += LANES) store(y + c + v, load(x + v) * f);
        for (int v = 0; c + v < channels; v += LANES) {
            const vf z = load(x + v) * f;
            const int left = channels - c - v;
            left < LANES ? store_first(y + c + v, z, left) : store(y + c + v, z);
        }
    }
}

// The product of a node's row with row i of panels of P columns.
template <int P, class T>
ALWAYS_INLINE float dot(const T* x, const float* panels, int rows, int i, int channels) {
    vf sum{};
    float rest = 0;
    const float* y = panels + i * P;
    int c = 0;
    for (; c + P <= channels; c += P, y += rows * P)
#pragma GCC unroll 4
        for (int v = 0; v < P; v += LANES) sum += load(x + c + v) * load(y + v);
    for (int d = 0; c + d < channels; d++) rest += to_float(x[c + d]) * y[d];
    return sum_of_lanes(sum) + rest;
}
