// What attention along edges does with rows it gathers: products with one row, weighted sums.
//
// A row is [H, C] in memory. Here it is [H, width] in float32, C rounded up to whole vectors with
// zeros. Numbers of an edge are [padded], H rounded up to a power of two: then lane i of a vector
// of them always has the same head.
#pragma once
#include "lanes.h"
#include "rows.h"

// How many edges ahead a row is asked for; lists of rows are this much longer than they need be.
constexpr int AHEAD = 16;
constexpr int NEXT = 3;  // and how many nodes ahead
constexpr int SPARE = AHEAD + LANES;

struct Rows {
    void* data;
    int64_t row, head;  // strides in elements; that of channels is 1
};

struct Shape {
    int heads, padded, channels;
    int vectors, tail;  // of one head: whole ones, and the channels left over
    int width;

    Shape(int heads_, int channels_) : heads(heads_), padded(1), channels(channels_) {
        while (padded < heads) padded *= 2;
        vectors = channels / LANES, tail = channels % LANES;
        width = (vectors + (tail > 0)) * LANES;
    }
    int floats() const { return heads * width; }
};

// Weights of edges: numbers [padded], 'step' floats apart, of the edges in 'place' or of all.
struct Weights {
    const float* data;
    int64_t step;
    const int32_t* place;

    const float* of(int64_t e) const { return data + (place ? place[e] : e) * step; }
    void ask_for(int64_t e) const {
        if (place) __builtin_prefetch(of(e));
    }
};

template <class T>
ALWAYS_INLINE T* row_of(const Rows& rows, int64_t i) {
    return (T*)rows.data + i * rows.row;
}

// B heads of V whole vectors, as many as registers hold; any number of such blocks.
template <class T, int B, int V>
struct Blocks {
    static constexpr int WIDTH = V * LANES;

    ALWAYS_INLINE void ask_for(const T* row, int64_t head) {
        constexpr int line = 64 / (int)sizeof(T), together = WIDTH < line ? line / WIDTH : 1;
        for (int h = 0; h < B; h += together)
            for (int c = 0; c < WIDTH; c += line) __builtin_prefetch(row + h * head + c);
    }
    static void unpack(const Shape& shape, const Rows& rows, int64_t i, float* x) {
        for (int first = 0; first < shape.heads; first += B) {
            const T* row = row_of<const T>(rows, i) + first * rows.head;
            ask_for(row + NEXT * rows.row, rows.head);
            for (int h = 0; h < B; h++)
                for (int v = 0; v < V; v++, x += LANES)
                    store(x, load(row + h * rows.head + v * LANES));
        }
    }
    static void pack(
        const Shape& shape, const float* x, const float* factors, const Rows& rows, int64_t i
    ) {
        for (int h = 0; h < shape.heads; h++) {
            const vf factor = all(factors[h]);
            T* row = row_of<T>(rows, i) + h * rows.head;
            for (int v = 0; v < V; v++, x += LANES) store(row + v * LANES, load(x) * factor);
        }
    }
    static void dots(
        const Shape& shape, const Rows& rows, const int32_t* index, int64_t n, const float* x,
        float* out
    ) {
        constexpr int edges = LANES / B > 0 ? LANES / B : 1;
        static_assert(LANES % B == 0, "the products of a block fill a vector");
        for (int first = 0; first < shape.heads; first += B) {
            const T* data = (const T*)rows.data + first * rows.head;
            vf held[B * V];
            for (int i = 0; i < B * V; i++) held[i] = load(x + first * WIDTH + i * LANES);
            const auto some = [&](int64_t e, int there) __attribute__((always_inline)) {
                vf parts[LANES];
                for (int i = 0; i < edges; i++) {
                    const int64_t at = e + (i < there ? i : 0);
                    ask_for(data + index[at + AHEAD] * rows.row, rows.head);
                    const T* row = data + index[at] * rows.row;
                    for (int h = 0; h < B; h++) {
                        vf sum{};
                        for (int v = 0; v < V; v++)
                            sum += load(row + h * rows.head + v * LANES) * held[h * V + v];
                        parts[i * B + h] = sum;
                    }
                }
                float* to = out + e * shape.padded + first;
                const vf y = sums(parts);
                if (shape.padded == B) {
                    store(to, y);
                    return;
                }
                float numbers[LANES];
                store(numbers, y);
                for (int i = 0; i < there; i++)
                    memcpy(to + i * shape.padded, numbers + i * B, B * sizeof(float));
            };
            int64_t e = 0;
            for (; e + edges <= n; e += edges) some(e, edges);
            if (e < n) some(e, (int)(n - e));
        }
    }
    static void add_up(
        const Shape& shape, const Rows& rows, const int32_t* index, int64_t n,
        const Weights& weights, float* sum
    ) {
        for (int first = 0; first < shape.heads; first += B) {
            const T* data = (const T*)rows.data + first * rows.head;
            float* to = sum + first * WIDTH;
            vf y[B * V] = {};
            for (int64_t e = 0; e < n; e++) {
                weights.ask_for(e + AHEAD);
                ask_for(data + index[e + AHEAD] * rows.row, rows.head);
                const T* row = data + index[e] * rows.row;
                const float* w = weights.of(e) + first;
                for (int h = 0; h < B; h++)
                    for (int v = 0; v < V; v++)
                        y[h * V + v] += w[h] * load(row + h * rows.head + v * LANES);
            }
            for (int i = 0; i < B * V; i++) store(to + i * LANES, load(to + i * LANES) + y[i]);
        }
    }
};

// Any number of heads and channels.
template <class T>
struct AnyShape {
    ALWAYS_INLINE void ask_for(const Shape& shape, const T* row, int64_t head) {
        for (int h = 0; h < shape.heads; h++)
            for (int c = 0; c < shape.channels; c += 64 / (int)sizeof(T))
                __builtin_prefetch(row + h * head + c);
    }
    ALWAYS_INLINE vf product(const Shape& shape, const T* row, const float* x) {
        vf sum{};
        int c = 0;
        for (; c + LANES <= shape.channels; c += LANES) sum += load(row + c) * load(x + c);
        return shape.tail ? sum + load_first(row + c, shape.tail) * load(x + c) : sum;
    }
    static void unpack(const Shape& shape, const Rows& rows, int64_t i, float* x) {
        ask_for(shape, row_of<const T>(rows, i + NEXT), rows.head);
        for (int h = 0; h < shape.heads; h++, x += shape.width) {
            const T* row = row_of<const T>(rows, i) + h * rows.head;
            int c = 0;
            for (; c + LANES <= shape.channels; c += LANES) store(x + c, load(row + c));
            if (shape.tail) store(x + c, load_first(row + c, shape.tail));
        }
    }
    static void pack(
        const Shape& shape, const float* x, const float* factors, const Rows& rows, int64_t i
    ) {
        for (int h = 0; h < shape.heads; h++, x += shape.width) {
            const vf factor = all(factors[h]);
            T* row = row_of<T>(rows, i) + h * rows.head;
            int c = 0;
            for (; c + LANES <= shape.channels; c += LANES) store(row + c, load(x + c) * factor);
            if (shape.tail) store_first(row + c, load(x + c) * factor, shape.tail);
        }
    }
    static void dots(
        const Shape& shape, const Rows& rows, const int32_t* index, int64_t n, const float* x,
        float* out
    ) {
        vf parts[LANES] = {};
        int filled = 0;
        for (int64_t e = 0; e < n; e++) {
            ask_for(shape, row_of<const T>(rows, index[e + AHEAD]), rows.head);
            const T* row = row_of<const T>(rows, index[e]);
            for (int h = 0; h < shape.padded; h++) {
                parts[filled++] = h < shape.heads
                                      ? product(shape, row + h * rows.head, x + h * shape.width)
                                      : vf{};
                if (filled == LANES) {
                    store(out, sums(parts));
                    out += LANES, filled = 0;
                }
            }
        }
        if (filled) store(out, sums(parts));
    }
    static void add_up(
        const Shape& shape, const Rows& rows, const int32_t* index, int64_t n,
        const Weights& weights, float* sum
    ) {
        for (int64_t e = 0; e < n; e++) {
            weights.ask_for(e + AHEAD);
            ask_for(shape, row_of<const T>(rows, index[e + AHEAD]), rows.head);
            const T* row = row_of<const T>(rows, index[e]);
            const float* w = weights.of(e);
            float* y = sum;
            for (int h = 0; h < shape.heads; h++, row += rows.head, y += shape.width) {
                int c = 0;
                for (; c + LANES <= shape.channels; c += LANES)
                    store(y + c, load(y + c) + w[h] * load(row + c));
                if (shape.tail) store(y + c, load(y + c) + w[h] * load_first(row + c, shape.tail));
            }
        }
    }
};

// What can be done with rows of one shape and type.
struct RowOps {
    // x [H, width]: row i
    void (*unpack)(const Shape&, const Rows&, int64_t i, float* x);
    // row i: x [H, width], each head times its factor
    void (*pack)(const Shape&, const float* x, const float* factors, const Rows&, int64_t i);
    // out [n, padded]: products of x [H, width] with n rows; up to a vector more is written
    void (*dots)(
        const Shape&, const Rows&, const int32_t* index, int64_t n, const float* x, float* out
    );
    // sum [H, width] += over n rows, each times its weights
    void (*add_up)(
        const Shape&, const Rows&, const int32_t* index, int64_t n, const Weights&, float* sum
    );

    template <class K>
    static RowOps with() {
        return {K::unpack, K::pack, K::dots, K::add_up};
    }
    template <class T>
    static RowOps of(const Shape& shape) {
        const int heads = shape.heads, vectors = shape.tail ? 0 : shape.vectors;
        if (vectors == 1 && heads % 4 == 0) return with<Blocks<T, 4, 1>>();
        if (vectors == 2 && heads % 4 == 0) return with<Blocks<T, 4, 2>>();
        if (vectors == 4 && heads % 2 == 0) return with<Blocks<T, 2, 4>>();
        if (vectors == 8) return with<Blocks<T, 1, 8>>();
        return with<AnyShape<T>>();
    }
};
