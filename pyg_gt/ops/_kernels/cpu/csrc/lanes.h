// Sums across vectors: LANES of them at once, and over lanes a fixed distance apart.
#pragma once
#include "vec.h"

#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, vi{__VA_ARGS__})
#endif

// swapN: lanes N apart change places. joinN: half as many numbers of 'a' and of 'b', each the sum of
// two; 'sums' puts them together.
#if defined(__AVX512F__)
ALWAYS_INLINE vf swap1(vf x) {
    return SHUFFLE(x, x, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
}
ALWAYS_INLINE vf swap2(vf x) {
    return SHUFFLE(x, x, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
}
ALWAYS_INLINE vf swap4(vf x) {
    return SHUFFLE(x, x, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
}
ALWAYS_INLINE vf swap8(vf x) {
    return SHUFFLE(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
}
ALWAYS_INLINE vf join1(vf a, vf b) {
    return SHUFFLE(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29) +
           SHUFFLE(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
}
ALWAYS_INLINE vf join2(vf a, vf b) {
    return SHUFFLE(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
           SHUFFLE(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
}
ALWAYS_INLINE vf join4(vf a, vf b) {
    return SHUFFLE(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
           SHUFFLE(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
}
ALWAYS_INLINE vf join8(vf a, vf b) {
    return SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
           SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
}
#elif defined(__AVX__)
ALWAYS_INLINE vf swap1(vf x) { return SHUFFLE(x, x, 1, 0, 3, 2, 5, 4, 7, 6); }
ALWAYS_INLINE vf swap2(vf x) { return SHUFFLE(x, x, 2, 3, 0, 1, 6, 7, 4, 5); }
ALWAYS_INLINE vf swap4(vf x) { return SHUFFLE(x, x, 4, 5, 6, 7, 0, 1, 2, 3); }
ALWAYS_INLINE vf join1(vf a, vf b) {
    return SHUFFLE(a, b, 0, 8, 1, 9, 4, 12, 5, 13) + SHUFFLE(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
}
ALWAYS_INLINE vf join2(vf a, vf b) {
    return SHUFFLE(a, b, 0, 1, 8, 9, 4, 5, 12, 13) + SHUFFLE(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
}
ALWAYS_INLINE vf join4(vf a, vf b) {
    return SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11) + SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
}
#else
ALWAYS_INLINE vf swap1(vf x) { return SHUFFLE(x, x, 1, 0, 3, 2); }
ALWAYS_INLINE vf swap2(vf x) { return SHUFFLE(x, x, 2, 3, 0, 1); }
ALWAYS_INLINE vf join1(vf a, vf b) {
    return SHUFFLE(a, b, 0, 4, 1, 5) + SHUFFLE(a, b, 2, 6, 3, 7);
}
ALWAYS_INLINE vf join2(vf a, vf b) {
    return SHUFFLE(a, b, 0, 1, 4, 5) + SHUFFLE(a, b, 2, 3, 6, 7);
}
#endif

// Lane i: the sum over 'parts[i]'. A shuffle that stays inside 16 bytes is the cheap one, so the
// first joins, of which there are most, do.
ALWAYS_INLINE vf sums(const vf parts[LANES]) {
    vf x[LANES / 4];
    for (int i = 0; i < LANES / 4; i++)
        x[i] = join2(
            join1(parts[4 * i], parts[4 * i + 1]), join1(parts[4 * i + 2], parts[4 * i + 3])
        );
#if defined(__AVX512F__)
    return join8(join4(x[0], x[1]), join4(x[2], x[3]));
#elif defined(__AVX__)
    return join4(x[0], x[1]);
#else
    return x[0];
#endif
}

// Every lane: 'add' over the lanes whose distance is a multiple of 'period', a power of two.
template <class Add>
ALWAYS_INLINE vf fold(vf x, int period, Add add) {
    if (period <= 1) x = add(x, swap1(x));
    if (period <= 2) x = add(x, swap2(x));
#if defined(__AVX__)
    if (period <= 4) x = add(x, swap4(x));
#endif
#if defined(__AVX512F__)
    if (period <= 8) x = add(x, swap8(x));
#endif
    return x;
}
