// Vectors of doubles by the compiler's own extension (GCC and clang): one register of AVX, two of
// SSE or NEON. They are as long on every machine, so that sums are added in the same order.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

constexpr int LANES = 4;

typedef double vd __attribute__((vector_size(LANES * 8)));
typedef int64_t vi __attribute__((vector_size(LANES * 8)));

#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE vd load(const double* p) {
    vd x;
    memcpy(&x, p, sizeof x);
    return x;
}
ALWAYS_INLINE void store(double* p, vd x) { memcpy(p, &x, sizeof x); }
ALWAYS_INLINE vd all(double x) { return x - vd{}; }
ALWAYS_INLINE vd abs_of(vd x) { return (vd)((vi)x & INT64_MAX); }
ALWAYS_INLINE double sum_of(vd x) { return (x[0] + x[2]) + (x[1] + x[3]); }
ALWAYS_INLINE vd sqrt_of(vd x) { return vd{sqrt(x[0]), sqrt(x[1]), sqrt(x[2]), sqrt(x[3])}; }
ALWAYS_INLINE int64_t padded(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

// Calls 'part(width, start)' for 'length' entries, a multiple of LANES, in blocks of about equally
// many vectors, at most 'most'; 'width' is a constant, so that a block stays in registers.
template <int most, class Part>
ALWAYS_INLINE void in_blocks(int64_t length, Part part) {
    const int64_t vectors = length / LANES, blocks = (vectors + most - 1) / most;
    for (int64_t block = 0, start = 0; block < blocks; block++) {
        const int64_t width = (vectors * (block + 1)) / blocks - (vectors * block) / blocks;
        static_assert(most <= 8, "a case for each width");
        switch (width) {
            case 1: part(std::integral_constant<int, 1>{}, start); break;
            case 2: part(std::integral_constant<int, 2>{}, start); break;
            case 3: part(std::integral_constant<int, 3>{}, start); break;
            case 4: part(std::integral_constant<int, 4>{}, start); break;
            default:
                if constexpr (most > 4) switch (width) {
                    case 5: part(std::integral_constant<int, 5>{}, start); break;
                    case 6: part(std::integral_constant<int, 6>{}, start); break;
                    case 7: part(std::integral_constant<int, 7>{}, start); break;
                    default: part(std::integral_constant<int, 8>{}, start);
                }
        }
        start += width * LANES;
    }
}
