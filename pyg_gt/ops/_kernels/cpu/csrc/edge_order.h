// Edges sorted by one of their ends: counting sorts, so that a batch of its own costs little.
#pragma once
#include <cstdint>
#include <cstring>

// Of memory that others may write to, each number is read once: what was checked is what is used.
inline int64_t read_once(const int32_t* at) { return *(const volatile int32_t*)at; }

// own [edges], unless null: the ends, checked; ptr [size + 1]: where the edges of each node begin.
// Returns the most that one node has, or -1 if an index lies outside of [0, size).
inline int64_t count_ends(
    const int32_t* end, int64_t edges, int64_t size, int32_t* own, int32_t* ptr
) {
    memset(ptr, 0, (size + 1) * sizeof *ptr);
    for (int64_t e = 0; e < edges; e++) {
        const int64_t node = read_once(end + e);
        if ((uint64_t)node >= (uint64_t)size) return -1;
        if (own) own[e] = (int32_t)node;
        ptr[node + 1]++;
    }
    int64_t most = 0;
    for (int64_t i = 0; i < size; i++) {
        most = ptr[i + 1] > most ? ptr[i + 1] : most;
        ptr[i + 1] += ptr[i];
    }
    return most;
}

// place(e, slot) for every edge in its order, which edges of one node keep; 'end' and 'ptr' are what
// 'count_ends' gave. 'ptr' comes out as it was.
template <class Place>
void place_by(const int32_t* end, int64_t edges, int64_t size, int32_t* ptr, Place place) {
    for (int64_t e = 0; e < edges; e++) place(e, ptr[end[e]]++);
    memmove(ptr + 1, ptr, size * sizeof *ptr);
    ptr[0] = 0;
}
