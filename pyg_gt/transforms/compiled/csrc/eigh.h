// Eigenvalues and eigenvectors of many small symmetric matrices.
#pragma once
#include "memory.h"
#include "sweeps.h"
#include "tridiagonal.h"

// 'to' [n, stride] = 'from' [n, n] times a power of two that brings its largest entry to about
// one; false if that cannot be done. 'scale' is the inverse of the power.
static bool scaled_copy(const double* from, int64_t n, int64_t stride, double* to, double* scale) {
    vd most[4] = {}, sum{};
    int64_t i = 0;
    for (; i + 4 * LANES <= n * n; i += 4 * LANES)
        for (int k = 0; k < 4; k++) {
            const vd size = abs_of(load(from + i + k * LANES));
            most[k] = size > most[k] ? size : most[k];
            sum += 0 * size;  // NaN if there is one, or an infinity
        }
    double largest = 0, nothing = sum_of(sum);
    for (int k = 0; k < 4; k++)
        for (int j = 0; j < LANES; j++) largest = most[k][j] > largest ? most[k][j] : largest;
    for (; i < n * n; i++) {
        largest = fabs(from[i]) > largest ? fabs(from[i]) : largest;
        nothing += 0 * from[i];
    }
    int exponent;
    frexp(largest, &exponent);
    if (nothing != 0 || exponent < -1000 || exponent > 1000) return false;
    *scale = ldexp(1, exponent);
    const double power = ldexp(1, -exponent);
    for (i = 0; i < n; i++) {
        for (int64_t j = 0; j < n; j++) to[i * stride + j] = power * from[i * n + j];
        for (int64_t j = n; j < stride; j++) to[i * stride + j] = 0;
    }
    return true;
}

// 'to' [n, stride] is 'from' [n, stride] transposed.
static void transpose(const double* from, int64_t n, int64_t stride, double* to) {
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < n; j++) to[i * stride + j] = from[j * stride + i];
        for (int64_t j = n; j < stride; j++) to[i * stride + j] = 0;
    }
}

// Eigenvalues [n] in ascending order of d [n, GROUP], and eigenvectors [n, n] as columns.
static void sorted(const double* d, double scale, const double* z, int64_t n, int64_t stride,
            int64_t* order, double* values, double* vectors) {
    for (int64_t i = 0; i < n; i++) {
        int64_t j = i;
        for (; j > 0 && d[order[j - 1] * GROUP] > d[i * GROUP]; j--) order[j] = order[j - 1];
        order[j] = i;
    }
    for (int64_t i = 0; i < n; i++) values[i] = scale * d[order[i] * GROUP];
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) vectors[i * n + j] = z[order[j] * stride + i];
}

// Of 'a' [G, n, n], symmetric: 'values' [G, n], ascending, 'vectors' [G, n, n], as columns, and
// 'failed' [G], of which nothing is given. A matrix has the same steps beside any others. Returns
// 0, or 1 if there is no memory.
static int eigenpairs(const double* a, int64_t G, int64_t n, double* values, double* vectors,
                      uint8_t* failed) {
    const int64_t stride = padded(n), rows = (n + 1) * GROUP;
    Memory<double> numbers((GROUP + 1) * n * stride + 5 * stride + 4 * rows);
    Memory<int64_t> order(n);
    if (!numbers.there() || !order.there()) return 1;
    double *z[GROUP], scale[GROUP];
    for (int i = 0; i < GROUP; i++) z[i] = numbers.take(n * stride);
    double *work = numbers.take(n * stride), *d = numbers.take(stride), *e = numbers.take(stride);
    double *taus = numbers.take(stride), *w = numbers.take(stride), *p = numbers.take(stride);
    const Group group{numbers.take(rows) + GROUP, numbers.take(rows) + GROUP,
                      numbers.take(rows) + GROUP, numbers.take(rows) + GROUP, n};

    for (int64_t first = 0; first < G; first += GROUP) {
        const int64_t count = G - first < GROUP ? G - first : GROUP;
        Lane lanes[GROUP];
        memset(group.d - GROUP, 0, rows * sizeof(double));
        memset(group.e - GROUP, 0, rows * sizeof(double));
        for (int64_t i = 0; i < GROUP; i++) {
            lanes[i].end(i < count &&
                         scaled_copy(a + (first + i) * n * n, n, stride, work, scale + i));
            if (lanes[i].failed) continue;
            tridiagonalize(work, n, stride, d, e, taus, w, p);
            product_of_reflections(work, taus, n, stride, z[i], w, p);
            transpose(z[i], n, stride, work);
            memcpy(z[i], work, n * stride * sizeof(double));
            for (int64_t j = 0; j < n; j++) {
                group.d[j * GROUP + i] = d[j];
                group.e[j * GROUP + i] = e[j];
            }
        }
        diagonalize(group, lanes, z, stride);
        for (int64_t i = 0; i < count; i++) {
            failed[first + i] = lanes[i].failed;
            if (lanes[i].failed) continue;
            sorted(group.d + i, scale[i], z[i], n, stride, order.take(0),
                   values + (first + i) * n, vectors + (first + i) * n * n);
        }
    }
    return 0;
}
