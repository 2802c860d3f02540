// Vectors of floats by the compiler's own extension (GCC and clang): AVX-512, AVX2, SSE and NEON
// by the flags, none of them by name.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float vf __attribute__((vector_size(LANES * 4)));
typedef int32_t vi __attribute__((vector_size(LANES * 4)));
typedef uint32_t vu __attribute__((vector_size(LANES * 4)));

#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE vf load(const float* p) {
    vf x;
    memcpy(&x, p, sizeof x);
    return x;
}
ALWAYS_INLINE void store(float* p, vf x) { memcpy(p, &x, sizeof x); }
ALWAYS_INLINE vf all(float x) { return x - vf{}; }
ALWAYS_INLINE vi bits(vf x) { return (vi)x; }
ALWAYS_INLINE vf floats(vi x) { return (vf)x; }

// A NaN in 'b' is kept; one in 'a' gives 'b'.
ALWAYS_INLINE vf max_keeping(vf a, vf b) { return a > b ? a : b; }

// exp(x) for x <= 88, to 2 units in the last place near 0; 0 below -87.3, NaN for NaN.
ALWAYS_INLINE vf exp_of(vf x) {
    const vf low = all(-87.33f);
    const vf shift = all(12582912.f);  // 1.5 * 2^23: adding it rounds to whole numbers
    const vf y = low > x ? low : x;
    vf whole = y * 1.44269504088896f + shift;
    const vi power = bits(whole) << 23;
    whole -= shift;
    const vf r = y * 1.44269504088896f - whole;
    vf p = 1.3264727e-3f * r + 9.6715130e-3f;  // 2^r on [-1/2, 1/2] to 9e-8, and 2^0 = 1
    p = p * r + 5.5507336e-2f;
    p = p * r + 2.4022242e-1f;
    p = p * r + 6.9314700e-1f;
    p = p * r + 1.0f;
    return low > x ? vf{} : floats(bits(p) + power);
}
