// Vectors of floats from memory that holds float32 or bfloat16, whole or in part.
#pragma once
#include "vec.h"
#if defined(__AVX2__)
#include <immintrin.h>
#endif

struct bf16 {
    uint16_t bits;
};
typedef uint16_t vh __attribute__((vector_size(LANES * 2)));

ALWAYS_INLINE float to_float(float x) { return x; }
ALWAYS_INLINE float to_float(bf16 x) {
    const uint32_t wide = (uint32_t)x.bits << 16;
    float y;
    memcpy(&y, &wide, sizeof y);
    return y;
}
ALWAYS_INLINE vf load(const bf16* p) {
    vh x;
    memcpy(&x, p, sizeof x);
    return (vf)(__builtin_convertvector(x, vu) << 16);
}
// To the nearest, to even from the middle; NaN stays NaN.
ALWAYS_INLINE void store(bf16* p, vf x) {
    const vu word = (vu)x;
    const vu rounded = (word + 0x7FFFu + ((word >> 16) & 1u)) >> 16;
    const vh y = __builtin_convertvector(x == x ? rounded : ((word >> 16) | 0x40u), vh);
    memcpy(p, &y, sizeof y);
}
ALWAYS_INLINE bf16 to_bf16(float x) {
    bf16 parts[LANES];
    store(parts, all(x));
    return parts[0];
}

// The first n < LANES elements and zeros; nothing behind them is read or written.
template <class T>
ALWAYS_INLINE vf load_first(const T* p, int n) {
    T parts[LANES] = {};
    for (int i = 0; i < n; i++) parts[i] = p[i];
    return load(parts);
}
template <class T>
ALWAYS_INLINE void store_first(T* p, vf x, int n) {
    T parts[LANES];
    store(parts, x);
    for (int i = 0; i < n; i++) p[i] = parts[i];
}
#if defined(__AVX2__) && !defined(__AVX512F__)
ALWAYS_INLINE vf load_first(const float* p, int n) {
    const vi lane = {0, 1, 2, 3, 4, 5, 6, 7};
    return (vf)_mm256_maskload_ps(p, (__m256i)(lane < n));
}
#elif defined(__AVX512F__)
ALWAYS_INLINE vf load_first(const float* p, int n) {
    return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
#endif
