// Softmax over the edges of one target, all heads at once: numbers [n, padded] as in edge_rows.h.
#pragma once
#include "lanes.h"

constexpr float NOTHING = -__builtin_inff();

// 'f(i, lanes)' for every vector of numbers [n, padded] at offset i; 'lanes' is where its heads
// begin in a table of heads that repeats itself up to a whole vector.
template <class F>
ALWAYS_INLINE void each_vector(int64_t n, int padded, F f) {
    const int64_t count = n * padded;
    const int heads = padded > LANES ? padded : LANES;
    for (int64_t i = 0; i < count; i += heads)
        for (int lanes = 0; lanes < heads; lanes += LANES) f(i + lanes, lanes);
}

// Behind the last number, up to a whole vector.
ALWAYS_INLINE void fill_end(float* numbers, int64_t n, int padded, float x) {
    for (int64_t i = n * padded; i % LANES; i++) numbers[i] = x;
}

// Where every score is minus infinity: zeros.
inline void softmax(float* scores, int64_t n, int padded) {
    fill_end(scores, n, padded, NOTHING);
    const int64_t count = n * padded;
    const int step = padded > LANES ? padded : LANES;
    for (int lanes = 0; lanes < step; lanes += LANES) {
        vf top = all(NOTHING), total{};
        for (int64_t i = lanes; i < count; i += step) top = max_keeping(top, load(scores + i));
        top = fold(top, padded, [](vf a, vf b) { return max_keeping(a, b); });
        top = top == NOTHING ? vf{} : top;
        for (int64_t i = lanes; i < count; i += step) {
            const vf e = exp_of(load(scores + i) - top);
            store(scores + i, e);
            total += e;
        }
        total = fold(total, padded, [](vf a, vf b) { return a + b; });
        const vf factor = total == 0.f ? vf{} : 1.f / total;
        for (int64_t i = lanes; i < count; i += step) store(scores + i, load(scores + i) * factor);
    }
}

// dweights become the gradients of the scores that gave 'weights'.
inline void softmax_backward(const float* weights, float* dweights, int64_t n, int padded) {
    fill_end(dweights, n, padded, 0.f);  // and the weights there are zeros
    const int64_t count = n * padded;
    const int step = padded > LANES ? padded : LANES;
    for (int lanes = 0; lanes < step; lanes += LANES) {
        vf total{};
        for (int64_t i = lanes; i < count; i += step) total += load(weights + i) * load(dweights + i);
        total = fold(total, padded, [](vf a, vf b) { return a + b; });
        for (int64_t i = lanes; i < count; i += step)
            store(dweights + i, load(weights + i) * (load(dweights + i) - total));
    }
}
