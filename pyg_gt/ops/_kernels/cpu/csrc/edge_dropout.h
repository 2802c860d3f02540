// Dropout of the weights of edges. Which word of which counter: see ops/dropout.py.
#pragma once
#include "edge_rows.h"
#include "philox.h"

struct Dropout {
    const int64_t* const seed;
    uint32_t threshold = 0;
    float factor = 0.f;

    Dropout(const int64_t* seed_, double p) : seed(seed_) {
        const double words = p * 4294967296.0;
        threshold = words < 4294967295.0 ? (uint32_t)words : 4294967295u;
        if (p < 1) factor = (float)(1 / (1 - p));
    }
    bool on() const { return seed != nullptr; }
};

// Factors [n, padded] of the edges of one target after the other. They are made for many targets
// at once: most have fewer edges than a vector has lanes.
class Keep {
  public:
    explicit Keep(float* memory = nullptr) : made(memory) {}
    static int64_t floats(int64_t most, int padded) {
        return ((most > RUN ? most : RUN) + LANES) * padded + LANES;
    }
    // Of slots [slot, slot + n); no slot from 'end' on will be asked for.
    const float* factors(
        const Dropout& dropout, const int32_t* number, int64_t slot, int64_t n, int64_t end,
        const Shape& shape
    ) {
        if (slot < first || slot + n > last) {
            first = slot;
            last = slot + (n > RUN ? n : RUN);
            if (last > end) last = end;
            make(dropout, number, shape);
        }
        return made + (slot - first) * shape.padded;
    }

  private:
    static constexpr int64_t RUN = 256;
    float* made;
    int64_t first = 0, last = 0;

    void make(const Dropout& dropout, const int32_t* number, const Shape& shape) {
        const uint64_t seed = (uint64_t)*dropout.seed;
        const int padded = shape.padded, most = padded < 4 ? padded : 4;
        for (int64_t slot = first; slot < last; slot += LANES) {
            vu edge;  // 'number' has room behind its end
            memcpy(&edge, number + slot, sizeof edge);
            float* out = made + (slot - first) * padded;
            for (int h = 0; h < shape.heads; h += 4) {
                vu words[4];
                philox(seed, edge, vu{}, vu{} + (uint32_t)(h / 4), vu{} + 1u, words);
                for (int word = 0; word < most; word++) {
                    float parts[LANES];
                    store(parts, words[word] >= dropout.threshold ? all(dropout.factor) : vf{});
                    for (int i = 0; i < LANES; i++) out[i * padded + h + word] = parts[i];
                }
            }
        }
    }
};
