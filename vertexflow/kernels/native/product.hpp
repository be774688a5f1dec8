// What generated code and the matrix products it calls share. T is float or double. Every thread of a team calls them.
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

using Pack = void (*)(const Weight& w);

// out [rows, n] = a [rows, k] times a weight, plus `bias` [n] unless that is null.
using Product = void (*)(Long rows, const T* a, Long lda, const Weight& w, const T* bias, T* out, Long ldo);

// out [n, k] = the transpose of a [rows, n] times b [rows, k]: the gradient of a weight.
using Outer = void (*)(Long rows, const T* a, Long lda, Long n, const T* b, Long ldb, Long k, T* out);
