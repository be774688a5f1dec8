// What generated code and the matrix products it calls share. T is float or double.
#include <cstdint>

using Index = std::int32_t;
using Long = std::int64_t;

// [k, n], or [n, k] if transposed; `packed` is null where packing would cost more than it saves.
struct Weight {
    const T* plain;
    T* packed;
    bool transposed;
    Long n, k;
};

// Every thread of a team calls these. out [rows, n] = a [rows, k] times a weight; `adds` to what is there.
using Product = void (*)(Long rows, const T* a, Long lda, const Weight& w, bool adds, T* out, Long ldo);
using Pack = void (*)(const Weight& w);
