// Softmax over the edges of one target, all heads at once: numbers [n, padded] as in edge_rows.h.
#pragma once
#include "lanes.h"

constexpr float NOTHING = -__builtin_inff();

// Numbers of heads, repeated up to a whole vector.
ALWAYS_INLINE int repeated(int padded) { return padded > LANES ? padded : LANES; }

// Multiplies the numbers of the last vector, unless it is whole, and fills what is behind them. A
// vector at once: single numbers would wait for the last store.
ALWAYS_INLINE void fill_end(float* numbers, int64_t n, int padded, float factor, float x) {
    const int left = (int)(n * padded % LANES);
    if (left == 0) return;
    vi lane;
    for (int i = 0; i < LANES; i++) lane[i] = i;
    float* end = numbers + n * padded - left;
    store(end, lane < left ? load(end) * factor : all(x));
}
ALWAYS_INLINE vf add(vf a, vf b) { return a + b; }

// Products become exponentials of scores, scale * product, and factors [repeated] make weights of
// them. Where every score is minus infinity the factor is zero.
ALWAYS_INLINE void softmax(float* products, int64_t n, int padded, float scale, float* factors) {
    const int64_t count = n * padded, whole = count / LANES * LANES;
    const int step = repeated(padded);
    fill_end(products, n, padded, scale, NOTHING);  // minus infinity must not meet the scale
    for (int lanes = 0; lanes < step; lanes += LANES) {
        vf top = all(NOTHING), total{};
        for (int64_t i = lanes; i < whole; i += step) {
            const vf score = load(products + i) * scale;
            store(products + i, score);  // rounded now: the largest minus itself must be zero
            top = max_keeping(top, score);
        }
        if (whole < count) top = max_keeping(top, load(products + whole));
        top = fold(top, padded, max_keeping);
        top = top == NOTHING ? vf{} : top;
        for (int64_t i = lanes; i < count; i += step) {
            const vf e = exp_of(load(products + i) - top);
            store(products + i, e);
            total += e;
        }
        total = fold(total, padded, add);
        store(factors + lanes, total == 0.f ? vf{} : 1.f / total);
    }
}

// Exponentials become weights, and gradients of weights those of scores.
ALWAYS_INLINE void softmax_backward(
    float* weights, float* gradients, int64_t n, int padded, const float* factors
) {
    const int64_t count = n * padded;
    const int step = repeated(padded);
    fill_end(gradients, n, padded, 1.f, 0.f);  // and the exponentials there are zeros
    for (int lanes = 0; lanes < step; lanes += LANES) {
        const vf factor = load(factors + lanes);
        vf total{};
        for (int64_t i = lanes; i < count; i += step)
            total += load(weights + i) * load(gradients + i);
        total = fold(total, padded, add) * factor;
        for (int64_t i = lanes; i < count; i += step) {
            const vf w = load(weights + i) * factor;
            store(weights + i, w);
            store(gradients + i, w * (load(gradients + i) - total));
        }
    }
}
