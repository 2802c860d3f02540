// Tridiagonal matrices made diagonal by QL sweeps with implicit shifts (Dubrulle, Martin and
// Wilkinson 1968, https://doi.org/10.1007/BF02165404), one in each lane: a rotation waits for a
// root and a quotient, and many of them wait as long as one.
#pragma once
#include "tridiagonal.h"
#include "vec.h"

// Lanes, as two vectors: while one waits, the other one is worked on.
constexpr int VECTORS = 2, GROUP = VECTORS * LANES;
// Sweeps per row after which a matrix is given up; two are usual.
constexpr int64_t MOST_SWEEPS = 30;
// A side is negligible if it is so small beside its diagonals, or beside the norm, about one.
constexpr double EPSILON = 0x1p-53, NOTHING = 0x1p-64;

// The matrices, [n, GROUP] and a row of zeros before: diagonals 'd' and sides 'e', where e[i] is
// between rows i and i + 1. What a sweep does to rows i and i + 1 is left in 'c' and 's'.
struct Group {
    double *d, *e, *c, *s;
    int64_t n;
};

// Rows 'first' to 'last' of a lane are swept, none once it is done; the eigenvalues before are
// found. 'entry' is the shift as it enters.
struct Lane {
    int64_t first = -2, last = -2, sweeps = 0;
    double entry = 0;
    bool failed = true;

    bool done() const { return last < 0; }
    void end(bool found) {
        first = last = -2;
        entry = 0;
        failed = !found;
    }
};

ALWAYS_INLINE bool negligible(const Group& x, int64_t lane, int64_t i) {
    const double* d = x.d + i * GROUP + lane;
    const double side = fabs(x.e[i * GROUP + lane]);
    return side <= EPSILON * (fabs(d[0]) + fabs(d[GROUP])) || side <= NOTHING;
}

// Finds the next rows to sweep, with Wilkinson's shift. 'cut' is the first row whose side the last
// sweep has made negligible, or n.
static void next_rows(const Group& x, int64_t number, int64_t cut, Lane& lane) {
    double *d = x.d + number, *e = x.e + number;
    if (cut < lane.last) e[(lane.last = cut) * GROUP] = 0;
    for (;;) {
        while (lane.first < lane.last && negligible(x, number, lane.first)) lane.first++;
        if (lane.first < lane.last) break;
        lane.first = lane.last + 1;
        if (lane.first >= x.n - 1) return lane.end(true);
        lane.last = lane.first;
        while (lane.last < x.n - 1 && !negligible(x, number, lane.last)) lane.last++;
        e[lane.last * GROUP] = 0;
    }
    if (lane.sweeps++ == MOST_SWEEPS * x.n) return lane.end(false);
    const double* here = d + lane.first * GROUP;
    const double side = e[lane.first * GROUP];
    const double g = (here[GROUP] - here[0]) / (2 * side), r = sqrt(g * g + 1);
    lane.entry = d[lane.last * GROUP] - here[0] + side / (g + (g < 0 ? -r : r));
}

// One sweep of all lanes, and where it cuts them, as 'next_rows' is told.
ALWAYS_INLINE void sweep(const Group& x, const Lane* lanes, int64_t* cut) {
    const vd one = all(1);
    int64_t from = 0, to = x.n;
    double entries[GROUP], firsts[GROUP], lasts[GROUP];
    for (int i = 0; i < GROUP; i++) {
        entries[i] = lanes[i].entry;
        firsts[i] = lanes[i].first;
        lasts[i] = lanes[i].last;
        if (lanes[i].done()) continue;
        from = lanes[i].last > from ? lanes[i].last : from;
        to = lanes[i].first < to ? lanes[i].first : to;
    }
    vd c[VECTORS], s[VECTORS], p[VECTORS], g[VECTORS], after[VECTORS];
    vd first[VECTORS], last[VECTORS], cuts[VECTORS];
    for (int k = 0; k < VECTORS; k++) {
        c[k] = s[k] = one;
        p[k] = after[k] = vd{};
        g[k] = load(entries + k * LANES);
        first[k] = load(firsts + k * LANES);
        last[k] = load(lasts + k * LANES);
        cuts[k] = all(x.n);
    }
    for (int64_t i = from - 1; i >= to - 1; i--) {
        const vd row = all(i);
        for (int k = 0; k < VECTORS; k++) {
            const int64_t at = i * GROUP + k * LANES;
            const auto begun = row < last[k];
            const auto going = begun & (row >= first[k]), ending = row + 1 == first[k];
            const auto inside = going & (row + 1 < last[k]);
            const vd d = load(x.d + at + GROUP), e = load(x.e + at + GROUP), side = load(x.e + at);
            const vd f = s[k] * side, b = c[k] * side;
            const vd square = f * f + g[k] * g[k];
            const vd r = sqrt_of(square);
            // both are nothing, beside a norm of about one
            const auto none = square <= TINY;
            const vd divisor = none ? one : r;
            const vd sine = none ? vd{} : f / divisor, cosine = none ? one : g[k] / divisor;
            const vd q = d - p[k];
            const vd u = (load(x.d + at) - q) * sine + 2 * cosine * b;
            const vd turned = going ? q + sine * u : ending ? q : d;
            store(x.d + at + GROUP, turned);
            store(x.e + at + GROUP, inside ? r : ending ? g[k] : e);
            store(x.c + at, cosine);
            store(x.s + at, sine);
            const auto small = inside & ((r <= EPSILON * (abs_of(turned) + abs_of(after[k]))) |
                                         (r <= NOTHING));
            cuts[k] = small ? row + 1 : cuts[k];
            after[k] = turned;
            // until its rows begin, a lane waits
            s[k] = begun ? sine : s[k];
            c[k] = begun ? cosine : c[k];
            p[k] = begun ? sine * u : p[k];
            g[k] = begun ? cosine * u - b : g[k];
        }
    }
    for (int i = 0; i < GROUP; i++) cut[i] = (int64_t)cuts[i / LANES][i % LANES];
}

// Rotates the rows of z [n, stride] as a sweep has rotated those of a lane.
static void rotate(const Group& x, int64_t number, const Lane& lane, double* z, int64_t stride) {
    in_blocks<8>(stride, [&](auto width, int64_t start) {
        constexpr int W = decltype(width)::value;
        double* row = z + lane.last * stride + start;
        const double* c = x.c + (lane.last - 1) * GROUP + number;
        const double* s = x.s + (lane.last - 1) * GROUP + number;
        vd low[W];
        for (int k = 0; k < W; k++) low[k] = load(row + k * LANES);
        for (int64_t i = lane.last; i > lane.first; i--, c -= GROUP, s -= GROUP, row -= stride) {
            const vd cosine = all(*c), sine = all(*s);
            for (int k = 0; k < W; k++) {
                // in this order, one fused operation on 'low' is all that the next step waits for
                const vd turned = sine * low[k], up = load(row - stride + k * LANES);
                store(row + k * LANES, sine * up + cosine * low[k]);
                low[k] = cosine * up - turned;
            }
        }
        for (int k = 0; k < W; k++) store(row + k * LANES, low[k]);
    });
}

// Leaves the eigenvalues in 'd', and in z[lane] [n, stride], which hold Q^T, the eigenvectors as
// rows. Lanes that have failed are left alone.
static void diagonalize(const Group& x, Lane* lanes, double* const* z, int64_t stride) {
    int64_t cut[GROUP];
    for (int i = 0; i < GROUP; i++) {
        if (lanes[i].failed) continue;
        lanes[i].first = 0;
        lanes[i].last = -1;
        next_rows(x, i, x.n, lanes[i]);
    }
    for (;;) {
        bool done = true;
        for (int i = 0; i < GROUP; i++) done &= lanes[i].done();
        if (done) return;
        sweep(x, lanes, cut);
        for (int i = 0; i < GROUP; i++) {
            if (lanes[i].done()) continue;
            rotate(x, i, lanes[i], z[i], stride);
            next_rows(x, i, cut[i], lanes[i]);
        }
    }
}
