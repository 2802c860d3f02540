// Attention along edges in buffers of exactly the size asked for, against plain loops in double.
#include "edges.cpp"
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

static std::mt19937 generator(0);
static int below(int n) { return (int)(generator() % (unsigned)n); }

template <class T>
struct Numbers {  // on the heap by themselves, so that a sanitizer sees a step beside them
    std::vector<T> held;
    explicit Numbers(int64_t n, bool random = true) : held(n) {
        for (T& x : held) x = random ? make() : T{};
    }
    static T make() {
        const float x = (float)below(2001) / 1000.f - 1.f;
        if constexpr (sizeof(T) == 2) return to_bf16(x);
        else return x;
    }
    double at(int64_t i) const { return to_float(held[i]); }
    Rows rows(int heads, int channels) {
        return {held.data(), (int64_t)heads * channels, channels};
    }
};

static int failures = 0;
static void near(const char* what, double got, double want, double tolerance) {
    if (std::fabs(got - want) <= tolerance * (1 + std::fabs(want))) return;
    if (failures++ < 10) std::printf("%s: got %g where %g was expected\n", what, got, want);
}

template <class T>
static void run(
    int queries, int keys, int edges, int H, int C, bool extras, double p, int threads
) {
    if (queries == 0 || keys == 0) edges = 0;
    std::vector<int32_t> from(edges), to(edges);
    for (int e = 0; e < edges; e++) from[e] = below(keys), to[e] = below(queries);
    const int room = edges + edges_spare();
    std::vector<int32_t> ptr(queries + 1), source(room), number(room);
    std::vector<int32_t> source_ptr(keys + 1), target(room), slot(room);
    const int64_t most = edges_by_target(
        from.data(), to.data(), edges, keys, queries, ptr.data(), source.data(), number.data()
    );
    const int64_t most_back = edges_by_source(
        ptr.data(), source.data(), edges, keys, source_ptr.data(), target.data(), slot.data()
    );
    Numbers<T> q(queries * H * C), k(keys * H * C), v(keys * H * C), g(queries * H * C);
    Numbers<T> f(edges * H * C), out(queries * H * C, false), dq(queries * H * C, false);
    Numbers<T> dk(keys * H * C, false), dv(keys * H * C, false), df(edges * H * C, false);
    Numbers<float> b(edges * H), db(edges * H, false);
    const int64_t seed = 77;
    Call call{};
    call.queries = queries, call.keys = keys, call.edges = edges;
    call.heads = H, call.channels = C, call.half = sizeof(T) == 2;
    call.threads = threads;
    call.most = most > most_back ? most : most_back;
    call.ptr = ptr.data(), call.source = source.data(), call.number = number.data();
    call.source_ptr = source_ptr.data(), call.target = target.data(), call.slot = slot.data();
    call.query = q.rows(H, C), call.key = k.rows(H, C), call.value = v.rows(H, C);
    call.out = out.rows(H, C), call.grad = g.rows(H, C), call.dquery = dq.rows(H, C);
    call.dkey = dk.rows(H, C), call.dvalue = dv.rows(H, C);
    const double scales[] = {0.5, 0.0, -0.4}, scale = scales[below(3)];
    call.scale = scale;
    if (extras) {
        call.features = f.rows(H, C), call.dfeatures = df.rows(H, C);
        call.values = b.held.data(), call.dvalues = db.held.data();
    }
    if (p > 0) call.seed = &seed, call.dropout_p = p;
    if (edges_forward(&call) || edges_backward(&call)) failures++;
    if (p > 0) return;

    std::vector<double> wq(queries * H * C), wk(keys * H * C), wv(keys * H * C);
    const double tolerance = sizeof(T) == 2 ? 0.03 : 1e-4;
    for (int t = 0; t < queries; t++)
        for (int h = 0; h < H; h++) {
            std::vector<int> mine;
            std::vector<double> score, dweight;
            double total = 0, delta = 0;
            const auto row = [&](int node) { return ((int64_t)node * H + h) * C; };
            for (int e = 0; e < edges; e++)
                if (to[e] == t) {
                    double s = 0, d = 0;
                    for (int c = 0; c < C; c++) {
                        const double x = extras ? f.at(row(e) + c) : 0;
                        s += q.at(row(t) + c) * (k.at(row((int)from[e]) + c) + x);
                        d += g.at(row(t) + c) * (v.at(row((int)from[e]) + c) + x);
                    }
                    mine.push_back(e), dweight.push_back(d);
                    score.push_back(std::exp(scale * s + (extras ? b.at(e * H + h) : 0)));
                    total += score.back();
                }
            for (size_t i = 0; i < mine.size(); i++) delta += (score[i] /= total) * dweight[i];
            for (int c = 0; c < C; c++) {
                double sum = 0;
                for (size_t i = 0; i < mine.size(); i++) {
                    const int e = mine[i];
                    const double x = extras ? f.at(row(e) + c) : 0;
                    const double ds = score[i] * (dweight[i] - delta);
                    const int64_t there = row((int)from[e]) + c, here = row(t) + c;
                    sum += score[i] * (v.at(there) + x);
                    wq[here] += scale * ds * (k.at(there) + x);
                    wk[there] += scale * ds * q.at(here);
                    wv[there] += score[i] * g.at(here);
                    if (!extras) continue;
                    if (c == 0) near("dvalues", db.at(e * H + h), ds, tolerance);
                    near("dfeatures", df.at(row(e) + c),
                         scale * ds * q.at(here) + score[i] * g.at(here), tolerance);
                }
                near("out", out.at(row(t) + c), sum, tolerance);
            }
        }
    for (size_t i = 0; i < wq.size(); i++) near("dquery", dq.at(i), wq[i], tolerance);
    for (size_t i = 0; i < wk.size(); i++) {
        near("dkey", dk.at(i), wk[i], tolerance);
        near("dvalue", dv.at(i), wv[i], tolerance);
    }
}

int main() {
    const int heads[] = {1, 2, 3, 4, 5, 8, 12, 17}, channels[] = {1, 3, 8, 16, 20, 32, 64};
    for (int H : heads)
        for (int C : channels)
            for (int extras = 0; extras < 2; extras++)
                for (int threads = 1; threads < 3; threads++) {
                    const double p = below(3) ? 0 : 0.4;
                    run<float>(below(7), below(7), below(40), H, C, extras, p, threads);
                    run<bf16>(below(7), below(7), below(40), H, C, extras, p, threads);
                }
    run<float>(900, 700, 3000, 4, 16, false, 0, 2);
    run<float>(900, 700, 3000, 2, 5, true, 0, 2);
    run<float>(3, 2, 2000, 4, 16, true, 0.3, 2);
    std::printf("%d failures\n", failures);
    return failures != 0;
}
