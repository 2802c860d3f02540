// What the transforms call. All return 0, 1 if there is no memory, or 2 if an entry of a sparse
// matrix lies outside of its blocks.
#include "eigh.h"
#include "walks.h"

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED int symmetric_eigenpairs(const double* a, int64_t G, int64_t n, double* values,
                                  double* vectors, uint8_t* failed) {
    return eigenpairs(a, G, n, values, vectors, failed);
}

EXPORTED int diagonals_of_powers(const int64_t* blocks, int64_t G, const int32_t* start,
                                 const int32_t* column, const double* weight, int64_t length,
                                 int64_t short_sum, double* result) {
    return block_diagonals(blocks, G, start, column, weight, length, short_sum, result);
}
