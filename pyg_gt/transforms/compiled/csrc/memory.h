// Memory that may not be there, on whole cache lines.
#pragma once
#include <cstdint>
#include <new>

template <class T>
class Memory {
  public:
    explicit Memory(int64_t size)
        : start(static_cast<T*>(::operator new(size * sizeof(T), ALIGNED, std::nothrow))) {}
    ~Memory() { ::operator delete(start, ALIGNED); }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    bool there() const { return start != nullptr; }
    T* take(int64_t size) {
        T* taken = start + used;
        used += size;
        return taken;
    }

  private:
    static constexpr std::align_val_t ALIGNED{64};
    T* start;
    int64_t used = 0;
};
