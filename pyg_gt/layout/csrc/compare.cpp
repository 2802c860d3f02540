// Whether numbers that a layout owns equal those that a caller holds, 'stride' apart; read once, and no
// copy made.

#include <cstdint>

namespace {

template <class Own>
int64_t same(const Own* own, const int64_t* given, int64_t stride, int64_t count) {
    if (stride != 1) {
        for (int64_t i = 0; i < count; i++)
            if (own[i] != given[i * stride]) return 0;
        return 1;
    }
    // a block has no branch, so that it is compared in vectors
    constexpr int64_t block = 4096;
    int64_t i = 0;
    for (; i + block <= count; i += block) {
        int64_t differs = 0;
        for (int64_t j = 0; j < block; j++) differs |= (int64_t)own[i + j] ^ given[i + j];
        if (differs) return 0;
    }
    for (; i < count; i++)
        if (own[i] != given[i]) return 0;
    return 1;
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) int64_t same_numbers(
    const void* own, int64_t own_bytes, const int64_t* given, int64_t stride, int64_t count
) {
    if (own_bytes == 4) return same((const int32_t*)own, given, stride, count);
    return same((const int64_t*)own, given, stride, count);
}
}
