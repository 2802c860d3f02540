// Tasks shared out to threads. Which thread runs which changes nothing: each writes its own part.
#pragma once
#include <cstdint>
#include <cstdlib>
#if defined(_OPENMP)
#include <omp.h>
#endif

// Scratch of one thread, kept from call to call unless it is large.
class Scratch {
    static constexpr int64_t KEPT = int64_t(1) << 22;  // numbers: 16 MiB
    float* data = nullptr;
    int64_t size = 0;

  public:
    // null where there is no memory left
    float* get(int64_t numbers) {
        if (numbers > size) {
            release();
            const size_t bytes = ((size_t)numbers * sizeof(float) + 63) / 64 * 64;
            data = (float*)std::aligned_alloc(64, bytes);
            size = data ? numbers : 0;
        }
        return data;
    }
    void trim() {
        if (size > KEPT) release();
    }
    void release() {
        std::free(data);
        data = nullptr;
        size = 0;
    }
    ~Scratch() { release(); }
};

static thread_local Scratch scratch_of_thread;

// Calls task(i, scratch) for i in [0, count), with 'room' floats of scratch each; false where there
// is no memory left for them.
template <class F>
static bool parallel(int64_t threads, int64_t count, int64_t room, F&& task) {
#if defined(_OPENMP)
    if (threads > 1 && count > 1) {
        bool done = true;
#pragma omp parallel num_threads((int)threads) reduction(&& : done)
        {
            float* scratch = scratch_of_thread.get(room);
            done = scratch != nullptr;
#pragma omp for schedule(dynamic, 1)
            for (int64_t i = 0; i < count; i++)
                if (scratch) task(i, scratch);
            scratch_of_thread.trim();
        }
        return done;
    }
#endif
    float* scratch = scratch_of_thread.get(room);
    if (!scratch) return false;
    for (int64_t i = 0; i < count; i++) task(i, scratch);
    scratch_of_thread.trim();
    return true;
}
