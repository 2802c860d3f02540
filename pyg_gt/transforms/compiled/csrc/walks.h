// The diagonals of the powers of sparse symmetric matrices without negative entries.
#pragma once
#include <cstdint>
#include <cstring>

#include "memory.h"

// One register of AVX, two of SSE or NEON.
constexpr int WIDTH = 32;
template <class T>
struct Vector;
template <>
struct Vector<float> {
    typedef float type __attribute__((vector_size(WIDTH)));
};
template <>
struct Vector<double> {
    typedef double type __attribute__((vector_size(WIDTH)));
};

// Columns of a power that are followed at once.
constexpr int64_t PARTS = 8;
template <class T>
constexpr int64_t COLUMNS = PARTS * WIDTH / sizeof(T);

// A block of a block-diagonal matrix, in rows 'from' to 'to', as CSR.
template <class T>
struct Block {
    int64_t from, to;
    const int32_t *start, *column;
    const T* weight;
};

// next [n, COLUMNS] = block times power [n, COLUMNS].
template <class T>
static void multiply(const Block<T>& block, const T* power, T* next) {
    for (int64_t i = block.from; i < block.to; i++) {
        typename Vector<T>::type sum[PARTS] = {}, part;
        for (int64_t at = block.start[i]; at < block.start[i + 1]; at++) {
            const T weight = block.weight[at];
            const T* row = power + (block.column[at] - block.from) * COLUMNS<T>;
            for (int k = 0; k < PARTS; k++) {
                memcpy(&part, row + k * WIDTH / sizeof(T), WIDTH);
                sum[k] += weight * part;
            }
        }
        memcpy(next + (i - block.from) * COLUMNS<T>, sum, sizeof sum);
    }
}

// Adds the products of the rows of 'a' and 'b' [n, COLUMNS] to a column of result [n, length].
template <class T>
static void add_products(const T* a, const T* b, int64_t n, double* result, int64_t length) {
    for (int64_t i = 0; i < n; i++, a += COLUMNS<T>, b += COLUMNS<T>) {
        typename Vector<T>::type sum = {}, x, y;
        for (int k = 0; k < PARTS; k++) {
            memcpy(&x, a + k * WIDTH / sizeof(T), WIDTH);
            memcpy(&y, b + k * WIDTH / sizeof(T), WIDTH);
            sum += x * y;
        }
        for (size_t width = WIDTH / sizeof(T) / 2; width > 0; width /= 2)
            for (size_t k = 0; k < width; k++) sum[k] += sum[k + width];
        result[i * length] += sum[0];
    }
}

// result [n, length], zeros before: the diagonals of S, S^2, ... of one block, by half as many
// products, since (S^(a + b))_ii is the product of the rows i of S^a and of S^b.
template <class T>
static void power_diagonals(const Block<T>& block, int64_t length, T* power, T* next,
                            double* result) {
    const int64_t n = block.to - block.from;
    for (int64_t first = 0; first < n; first += COLUMNS<T>) {
        memset(power, 0, n * COLUMNS<T> * sizeof(T));
        for (int64_t i = 0; i < n; i++)
            for (int64_t at = block.start[block.from + i]; at < block.start[block.from + i + 1];
                 at++) {
                const int64_t j = block.column[at] - block.from - first;
                if (j < 0 || j >= COLUMNS<T>) continue;
                power[i * COLUMNS<T> + j] = block.weight[at];
                if (first + j == i) result[i * length] = block.weight[at];
            }
        for (int64_t t = 2; t <= length; t++) {
            if (t % 2 == 0) {
                add_products(power, power, n, result + t - 1, length);
                continue;
            }
            multiply(block, power, next);
            add_products(power, next, n, result + t - 1, length);
            T* const before = power;
            power = next;
            next = before;
        }
    }
}

// The same of a block with weights in T.
template <class T>
static bool power_diagonals_in(const Block<double>& from, int64_t length, double* result) {
    const int64_t n = from.to - from.from, first = from.start[from.from];
    const int64_t entries = from.start[from.to] - first;
    Memory<T> memory(2 * n * COLUMNS<T> + entries);
    if (!memory.there()) return false;
    T *power = memory.take(n * COLUMNS<T>), *next = memory.take(n * COLUMNS<T>);
    T* weight = memory.take(entries);
    for (int64_t at = 0; at < entries; at++) weight[at] = from.weight[first + at];
    const Block<T> block{from.from, from.to, from.start, from.column, weight - first};
    power_diagonals(block, length, power, next, result);
    return true;
}

// No entry is negative, so nothing cancels, and where sums are short a step costs about one
// rounding: floats are as exact as what is stored, and twice as fast.
static int block_diagonals(const int64_t* blocks, int64_t G, const int32_t* start,
                           const int32_t* column, const double* weight, int64_t length,
                           int64_t short_sum, double* result) {
    for (int64_t g = 0; g < G; g++) {
        const Block<double> block{blocks[g], blocks[g + 1], start, column, weight};
        bool all_short = true, inside = true;
        for (int64_t i = block.from; i < block.to; i++)
            all_short &= start[i + 1] - start[i] <= short_sum;
        for (int64_t at = start[block.from]; at < start[block.to]; at++)
            inside &= column[at] >= block.from && column[at] < block.to;
        if (!inside) return 2;
        double* own = result + block.from * length;
        if (!(all_short ? power_diagonals_in<float>(block, length, own)
                        : power_diagonals_in<double>(block, length, own)))
            return 1;
    }
    return 0;
}
