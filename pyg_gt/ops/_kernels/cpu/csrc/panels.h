// Small matrix products on panels.
//
// A matrix of R rows and X columns is kept as panels of 'width' columns, each with all its rows:
// element (r, x) lies at (x / width) * R * width + r * width + x % width. So a product reads both of
// its operands in the order in which they lie, whatever their size.
#pragma once
#include "lanes.h"
#include <cmath>
#include <utility>

constexpr int WIDTH = 16;  // of a panel of keys
// Rows, or columns, of a block whose sums stay in registers.
constexpr int MAX_ROWS = LANES == 16 ? 8 : LANES == 8 ? 6 : 4;
constexpr int MAX_COLUMNS = LANES == 16 ? 8 : 4;

// Keeps GCC from reading a vector from memory again for each of its products.
ALWAYS_INLINE void in_register(vf& x) {
#if defined(__AVX__)
    __asm__("" : "+x"(x));
#elif defined(__aarch64__)
    __asm__("" : "+w"(x));
#endif
}

ALWAYS_INLINE int64_t up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

// out[r, :] (+)= sum over k of a[r, k] * b[k, :] for ROWS rows and VECTORS vectors of one panel.
// Element (r, k) of 'a' lies at r * A_ROW + k * A_STEP; behind every DEPTH of k, 'a' jumps.
template <int ROWS, int VECTORS, int A_ROW, int A_STEP, int A_DEPTH>
ALWAYS_INLINE void block_product(
    const float* a, int64_t a_jump, const float* b, int b_row, int depth, float* out, int out_row,
    bool add
) {
    vf sums[ROWS][VECTORS];
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 16
        for (int v = 0; v < VECTORS; v++)
            sums[r][v] = add ? load(out + r * out_row + v * LANES) : vf{};
    for (int start = 0; start < depth; start += A_DEPTH, a += a_jump) {
        const int stop = depth - start < A_DEPTH ? depth - start : A_DEPTH;
        for (int k = 0; k < stop; k++, b += b_row) {
            vf x[VECTORS];
#pragma GCC unroll 16
            for (int v = 0; v < VECTORS; v++) {
                x[v] = load(b + v * LANES);
                in_register(x[v]);
            }
#pragma GCC unroll 16
            for (int r = 0; r < ROWS; r++) {
                const vf y = all(a[r * A_ROW + k * A_STEP]);
#pragma GCC unroll 16
                for (int v = 0; v < VECTORS; v++) sums[r][v] += y * x[v];
            }
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 16
        for (int v = 0; v < VECTORS; v++) store(out + r * out_row + v * LANES, sums[r][v]);
}

// Shares 'count' rows out evenly to blocks, and calls use(first, rows as a constant): a block of one
// row would take as long as one of MAX_ROWS.
template <class F>
ALWAYS_INLINE void each_block(int count, F&& use) {
    const int blocks = (count + MAX_ROWS - 1) / MAX_ROWS;
    for (int i = 0, first = 0; i < blocks; i++) {
        const int here = (count - first + blocks - i - 1) / (blocks - i);
        switch (here) {
            case 1: use(first, std::integral_constant<int, 1>{}); break;
            case 2: use(first, std::integral_constant<int, 2>{}); break;
            case 3: use(first, std::integral_constant<int, 3>{}); break;
            case 4: use(first, std::integral_constant<int, 4>{}); break;
            case 5: use(first, std::integral_constant<int, (MAX_ROWS < 5 ? MAX_ROWS : 5)>{}); break;
            case 6: use(first, std::integral_constant<int, (MAX_ROWS < 6 ? MAX_ROWS : 6)>{}); break;
            case 7: use(first, std::integral_constant<int, (MAX_ROWS < 7 ? MAX_ROWS : 7)>{}); break;
            default: use(first, std::integral_constant<int, MAX_ROWS>{});
        }
        first += here;
    }
}

// out[r, :] (+)= sum over k of a[r, k] * b[k, :]; 'a' in panels of A_WIDTH columns.
template <int VECTORS, int A_WIDTH>
static void rows_product(
    const float* a, int64_t a_jump, const float* b, int b_row, int depth, float* out, int out_row,
    int rows, bool add
) {
    each_block(rows, [&](int r, auto count) {
        block_product<decltype(count)::value, VECTORS, A_WIDTH, 1, A_WIDTH>(
            a + r * A_WIDTH, a_jump, b, b_row, depth, out + r * out_row, out_row, add);
    });
}

// out[k, :] += sum over r of a[r, k] * b[r, :] for the columns k of panels of WIDTH.
template <int VECTORS>
static void columns_product(
    const float* a, int64_t a_jump, const float* b, int b_row, int rows, float* out, int out_row,
    int columns
) {
    for (int k = 0; k < columns; k += MAX_COLUMNS)
        block_product<MAX_COLUMNS, VECTORS, 1, WIDTH, 1 << 30>(
            a + (k / WIDTH) * a_jump + k % WIDTH, 0, b, b_row, rows, out + k * out_row, out_row,
            true);
}

template <int STEP, bool SECOND, int... I>
ALWAYS_INLINE vf mixed(vf a, vf b, std::integer_sequence<int, I...>) {
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(
        a, b, (SECOND ? (I & STEP ? LANES + I : I + STEP) : (I & STEP ? LANES + I - STEP : I))...);
#else
    return __builtin_shuffle(
        a, b, vi{(SECOND ? (I & STEP ? LANES + I : I + STEP) : (I & STEP ? LANES + I - STEP : I))...});
#endif
}

template <int STEP>
ALWAYS_INLINE void exchange(vf& a, vf& b) {
    const auto lanes = std::make_integer_sequence<int, LANES>{};
    const vf first = mixed<STEP, false>(a, b, lanes), second = mixed<STEP, true>(a, b, lanes);
    a = first;
    b = second;
}

template <int STEP, int SIZE>
ALWAYS_INLINE void transpose_steps(vf* x) {
    if constexpr (STEP < SIZE) {
#pragma GCC unroll 16
        for (int i = 0; i < SIZE; i++)
            if (!(i & STEP)) exchange<STEP>(x[i], x[i + STEP]);
        transpose_steps<STEP * 2, SIZE>(x);
    }
}

// In every group of SIZE lanes, x[i] lane j and x[j] lane i change places.
template <int SIZE>
ALWAYS_INLINE void transpose(vf* x) {
    transpose_steps<1, SIZE>(x);
}

// The sum, or the largest, of all lanes.
ALWAYS_INLINE float sum_of_lanes(vf x) {
    return fold(x, 1, [](vf a, vf b) { return a + b; })[0];
}
ALWAYS_INLINE float max_of_lanes(vf x) {
    return fold(x, 1, [](vf a, vf b) { return max_keeping(a, b); })[0];
}
