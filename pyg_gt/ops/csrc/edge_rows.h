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

    int floats() const { return heads * width; }
};

// Constants where the number of heads H and of vectors V is compiled in (not 0).
template <int H, int V>
struct Sizes {
    const Shape& shape;
    ALWAYS_INLINE constexpr int power(int n) { return n <= 1 ? 1 : 2 * power((n + 1) / 2); }
    int heads() const { return H ? H : shape.heads; }
    int padded() const { return H ? power(H) : shape.padded; }
    int vectors() const { return V ? V : shape.vectors; }
    int tail() const { return V ? 0 : shape.tail; }
    int width() const { return V ? V * LANES : shape.width; }
};

template <class T, int H, int V>
struct Kernels {
    using In = Sizes<H, V>;

    ALWAYS_INLINE const T* row_of(const Rows& rows, int64_t i) {
        return (const T*)rows.data + i * rows.row;
    }
    ALWAYS_INLINE void ask_for(In in, const Rows& rows, int64_t i) {
        const T* row = row_of(rows, i);
        const int step = 64 / (int)sizeof(T), channels = V ? V * LANES : in.shape.channels;
        for (int h = 0; h < in.heads(); h++)
            for (int c = 0; c < channels; c += step)
                __builtin_prefetch(row + h * rows.head + c);
    }
    ALWAYS_INLINE vf product(In in, const T* row, const float* x) {
        vf sum{};
        const int vectors = in.vectors();
        for (int v = 0; v < vectors; v++) sum += load(row + v * LANES) * load(x + v * LANES);
        if (const int tail = in.tail())
            sum += load_first(row + vectors * LANES, tail) * load(x + vectors * LANES);
        return sum;
    }

    // x [H, width]: row i.
    static void unpack(const Shape& shape, const Rows& rows, int64_t i, float* x) {
        const In in{shape};
        ask_for(in, rows, i + NEXT);
        for (int h = 0; h < in.heads(); h++) {
            const T* row = row_of(rows, i) + h * rows.head;
            float* y = x + h * in.width();
            for (int v = 0; v < in.vectors(); v++) store(y + v * LANES, load(row + v * LANES));
            if (const int tail = in.tail())
                store(y + in.vectors() * LANES, load_first(row + in.vectors() * LANES, tail));
        }
    }
    // Row i: x [H, width].
    static void pack(const Shape& shape, const float* x, const Rows& rows, int64_t i) {
        const In in{shape};
        for (int h = 0; h < in.heads(); h++) {
            T* row = (T*)rows.data + i * rows.row + h * rows.head;
            const float* y = x + h * in.width();
            for (int v = 0; v < in.vectors(); v++) store(row + v * LANES, load(y + v * LANES));
            if (const int tail = in.tail())
                store_first(row + in.vectors() * LANES, load(y + in.vectors() * LANES), tail);
        }
    }
    // out [n, padded]: products of x [H, width] with n rows; up to LANES more are written.
    static void dots(
        const Shape& shape, const Rows& rows, const int32_t* index, int64_t n, const float* x,
        float* out
    ) {
        const In in{shape};
        const int heads = in.heads(), padded = in.padded(), width = in.width();
        const int block = padded < LANES ? padded : LANES, edges = LANES / block;
        constexpr bool SMALL = H * V > 0 && H * V <= 8;
        vf held[SMALL ? H * V : 1];  // x in registers
        if constexpr (SMALL)
            for (int i = 0; i < H * V; i++) held[i] = load(x + i * LANES);
        const auto some = [&](int64_t e, int there) __attribute__((always_inline)) {
            for (int first = 0; first < padded; first += LANES) {
                vf parts[LANES];
                for (int i = 0; i < edges; i++) {
                    const int64_t at = e + (i < there ? i : 0);
                    if (first == 0) ask_for(in, rows, index[at + AHEAD]);
                    const T* row = row_of(rows, index[at]);
                    for (int b = 0; b < block; b++) {
                        const int h = first + b;
                        vf sum{};
                        if constexpr (SMALL)
                            for (int v = 0; v < V; v++)
                                sum += load(row + h * rows.head + v * LANES) * held[h * V + v];
                        else if (h < heads)
                            sum = product(in, row + h * rows.head, x + h * width);
                        parts[i * block + b] = sum;
                    }
                }
                store(out + e * padded + first, sums(parts));
            }
        };
        int64_t e = 0;
        for (; e + edges <= n; e += edges) some(e, edges);
        if (e < n) some(e, (int)(n - e));
    }
    // sum [H, width] += over n rows, each times its weights [padded], 'step' floats apart.
    static void add_up(
        const Shape& shape, const Rows& rows, const int32_t* index, int64_t n, const float* weights,
        int64_t step, float* sum
    ) {
        const In in{shape};
        const int heads = in.heads(), width = in.width(), vectors = in.vectors();
        if constexpr (H * V > 0 && H * V <= 8) {  // the sum fits in registers
            vf y[H * V ? H * V : 1];
            for (int i = 0; i < H * V; i++) y[i] = load(sum + i * LANES);
            for (int64_t e = 0; e < n; e++) {
                ask_for(in, rows, index[e + AHEAD]);
                const T* row = row_of(rows, index[e]);
                for (int h = 0; h < H; h++)
                    for (int v = 0; v < V; v++)
                        y[h * V + v] += weights[e * step + h] * load(row + h * rows.head + v * LANES);
            }
            for (int i = 0; i < H * V; i++) store(sum + i * LANES, y[i]);
            return;
        }
        for (int64_t e = 0; e < n; e++) {
            ask_for(in, rows, index[e + AHEAD]);
            const T* row = row_of(rows, index[e]);
            for (int h = 0; h < heads; h++) {
                const T* r = row + h * rows.head;
                float* y = sum + h * width;
                const vf w = all(weights[e * step + h]);
                for (int v = 0; v < vectors; v++)
                    store(y + v * LANES, load(y + v * LANES) + w * load(r + v * LANES));
                if (const int tail = in.tail()) {
                    y += vectors * LANES, r += vectors * LANES;
                    store(y, load(y) + w * load_first(r, tail));
                }
            }
        }
    }
};

// The kernels of one shape and type.
struct RowOps {
    void (*unpack)(const Shape&, const Rows&, int64_t, float*);
    void (*pack)(const Shape&, const float*, const Rows&, int64_t);
    void (*dots)(const Shape&, const Rows&, const int32_t*, int64_t, const float*, float*);
    void (*add_up)(
        const Shape&, const Rows&, const int32_t*, int64_t, const float*, int64_t, float*
    );

    template <class T, int H, int V>
    static RowOps with() {
        using K = Kernels<T, H, V>;
        return {K::unpack, K::pack, K::dots, K::add_up};
    }
    template <class T>
    static RowOps of(const Shape& shape) {
        const int heads = shape.heads, vectors = shape.tail ? 0 : shape.vectors;
        if (heads == 4 && vectors == 1) return with<T, 4, 1>();
        if (heads == 4 && vectors == 2) return with<T, 4, 2>();
        if (heads == 8 && vectors == 1) return with<T, 8, 1>();
        if (heads == 8 && vectors == 2) return with<T, 8, 2>();
        if (vectors == 1) return with<T, 0, 1>();
        if (vectors == 2) return with<T, 0, 2>();
        if (vectors == 4) return with<T, 0, 4>();
        return with<T, 0, 0>();
    }
};

inline Shape shape_of(int heads, int channels) {
    int padded = 1;
    while (padded < heads) padded *= 2;
    const int vectors = channels / LANES, tail = channels % LANES;
    return {heads, padded, channels, vectors, tail, (vectors + (tail > 0)) * LANES};
}
