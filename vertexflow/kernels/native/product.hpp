// What generated code and the matrix products it calls share, whose numbers are X: T, which is float or double, or bfloat16. Every
// thread of a team calls them.
#include <cstdint>

using Index = std::int32_t;
using Long = std::int64_t;

// [k, n], or [n, k] if transposed; `packed` is null where packing would cost more than it saves.
template <class X>
struct WeightOf {
    const X* plain;
    X* packed;
    bool transposed;
    Long n, k;
};

template <class X>
using PackOf = void (*)(const WeightOf<X>& w);

// out [rows, n] = a [rows, k] times a weight, plus `bias` [n] unless that is null.
template <class X>
using ProductOf = void (*)(Long rows, const X* a, Long lda, const WeightOf<X>& w, const X* bias, X* out, Long ldo);

// out [n, k] = the transpose of a [rows, n] times b [rows, k], the gradient of a weight; or, if it `adds`, is so much more.
template <class X>
using OuterOf = void (*)(Long rows, const X* a, Long lda, Long n, const X* b, Long ldb, Long k, X* out, bool adds);

using Weight = WeightOf<T>;
using Pack = PackOf<T>;
using Product = ProductOf<T>;
using Outer = OuterOf<T>;
