// A symmetric matrix made tridiagonal by Householder's reflections, last row first (Martin,
// Reinsch and Wilkinson 1968, https://doi.org/10.1007/BF02161360): A = Q T Q^T.
#pragma once
#include "vec.h"

// Of matrices whose largest entry is about one: smaller squares have lost digits, and are nothing.
constexpr double TINY = 1e-280;

// a -= v w^T + w v^T and p = u^T a of what results, on the first 'rows' rows and 'length' columns.
ALWAYS_INLINE void update_and_multiply(double* a, int64_t rows, int64_t length, int64_t stride,
                                       const double* v, const double* w, const double* u,
                                       double* p) {
    in_blocks<4>(length, [=](auto width, int64_t start) {
        constexpr int W = decltype(width)::value;
        vd vs[W], ws[W], sum[W];
        for (int k = 0; k < W; k++) {
            vs[k] = load(v + start + k * LANES);
            ws[k] = load(w + start + k * LANES);
            sum[k] = vd{};
        }
        for (int64_t j = 0; j < rows; j++) {
            double* row = a + j * stride + start;
            const vd vj = all(v[j]), wj = all(w[j]), uj = all(u[j]);
            for (int k = 0; k < W; k++) {
                vd x = load(row + k * LANES);
                x -= vj * ws[k];
                x -= wj * vs[k];
                store(row + k * LANES, x);
                sum[k] += uj * x;
            }
        }
        for (int k = 0; k < W; k++) store(p + start + k * LANES, sum[k]);
    });
}

// q -= v t^T and p = u^T q of what results, on the first 'rows' rows and 'length' columns.
ALWAYS_INLINE void reflect_and_multiply(double* q, int64_t rows, int64_t length, int64_t stride,
                                        const double* v, const double* t, const double* u,
                                        double* p) {
    in_blocks<4>(length, [=](auto width, int64_t start) {
        constexpr int W = decltype(width)::value;
        vd ts[W], sum[W];
        for (int k = 0; k < W; k++) {
            ts[k] = load(t + start + k * LANES);
            sum[k] = vd{};
        }
        for (int64_t j = 0; j < rows; j++) {
            double* row = q + j * stride + start;
            const vd vj = all(v[j]), uj = all(u[j]);
            for (int k = 0; k < W; k++) {
                vd x = load(row + k * LANES);
                x -= vj * ts[k];
                store(row + k * LANES, x);
                sum[k] += uj * x;
            }
        }
        for (int k = 0; k < W; k++) store(p + start + k * LANES, sum[k]);
    });
}

// Makes of v [i] Householder's vector, with v[i - 1] = 1 and zeros from i on: (1 - tau v v^T)
// times what it was is zero but for the last entry, which is given back.
static double reflector(double* v, int64_t i, int64_t stride, double* tau) {
    for (int64_t j = i; j < stride; j++) v[j] = 0;
    const double last = v[i - 1];
    v[i - 1] = 0;
    vd squares{};
    for (int64_t j = 0; j < padded(i); j += LANES) squares += load(v + j) * load(v + j);
    const double rest = sum_of(squares);
    if (!(rest > TINY)) {
        for (int64_t j = 0; j < i; j++) v[j] = 0;
        *tau = 0;
        return last;
    }
    const double size = sqrt(last * last + rest);
    const double result = last > 0 ? -size : size;
    const double scale = 1 / (last - result);
    for (int64_t j = 0; j < padded(i); j += LANES) store(v + j, load(v + j) * scale);
    v[i - 1] = 1;
    *tau = (result - last) / result;
    return result;
}

// T's diagonal 'd' and its side 'e', where e[i] is between i and i + 1, of 'a' [n, stride]. The
// vector of reflection i is left in row i of 'a', its factor in taus[i]; 'w' and 'p' [stride] are
// overwritten.
static void tridiagonalize(double* a, int64_t n, int64_t stride, double* d, double* e,
                           double* taus, double* w, double* p) {
    for (int64_t j = 0; j < stride; j++) w[j] = p[j] = 0;
    const double* before = p;  // there is no reflection to apply yet
    for (int64_t i = n - 1; i > 0; i--) {
        // 'a' lacks the reflection before this one; its row i is needed first
        double* row = a + i * stride;
        for (int64_t j = 0; j < padded(i + 1); j += LANES)
            store(row + j, load(row + j) - before[i] * load(w + j) - w[i] * load(before + j));
        d[i] = row[i];
        e[i - 1] = reflector(row, i, stride, taus + i);
        update_and_multiply(a, i, padded(i), stride, before, w, row, p);
        vd product{};
        for (int64_t j = 0; j < padded(i); j += LANES) product += load(row + j) * load(p + j);
        const double tau = taus[i], half = 0.5 * tau * tau * sum_of(product);
        for (int64_t j = 0; j < padded(i); j += LANES)
            store(w + j, tau * load(p + j) - half * load(row + j));
        for (int64_t j = i; j < stride; j++) w[j] = 0;
        before = row;
    }
    d[0] = a[0];
    e[n - 1] = 0;
}

// 'q' [n, stride] = Q, of the vectors and factors of reflections.
static void product_of_reflections(const double* vectors, const double* taus, int64_t n,
                                   int64_t stride, double* q, double* w, double* p) {
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < stride; j++) q[i * stride + j] = 0;
        q[i * stride + i] = 1;
    }
    for (int64_t j = 0; j < stride; j++) p[j] = 0;
    for (int64_t i = 2; i <= n; i++) {
        // p = v^T Q of the reflection before this one, which is none to begin with
        const double* last = vectors + (i - 1) * stride;
        const double* v = i < n ? vectors + i * stride : last;
        for (int64_t j = 0; j < padded(i); j += LANES) store(w + j, taus[i - 1] * load(p + j));
        reflect_and_multiply(q, i, padded(i), stride, last, w, v, p);
    }
}
