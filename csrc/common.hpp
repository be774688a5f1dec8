// What all of the core shares: the index type, the view of a structure, errors, and a way to be interrupted.
#pragma once

#include <cstdint>
#include <exception>
#include <limits>
#include <string>
#include <vector>

namespace vertexflow {

using Index = std::int32_t;
using Indices = std::vector<Index>;

// Whether all numbers rise from children to parents, or all fall: then numbers are an order of computation.
enum class Numbering { rising, falling, mixed };

// Vertices 0 .. num_vertices - 1; the children of v are child[offset[v]] .. child[offset[v + 1] - 1], and slot says which
// of v's slots each fills. Child numbers from num_vertices on are external: somebody has computed them already.
struct Structure {
    Index num_vertices = 0;
    Index num_external = 0;
    Index num_edges = 0;
    const Index* child = nullptr;
    const Index* slot = nullptr;
    const Index* offset = nullptr;
    const Index* kind = nullptr;  // 0 .. num_kinds - 1 for each vertex; null: all of one kind
    Index num_kinds = 1;
    const Index* edge = nullptr;  // what the user calls the edge of each entry of `child`; null: the same
    Numbering numbering = Numbering::mixed;  // true in any case; `check` finds out more
};

// What is wrong with the input, and where; the Python face turns it into a sentence.
class Malformed : public std::exception {
  public:
    Malformed(std::string what, std::int64_t where, std::int64_t other = -1)
        : what_(std::move(what)), where(where), other(other) {}
    const char* what() const noexcept override { return what_.c_str(); }

  private:
    std::string what_;

  public:
    std::int64_t where, other;
};

// Long loops call `tick` as they go on; every few million vertices it asks whether to stop (`check` throws if so).
class Patience {
  public:
    explicit Patience(void (*check)() = nullptr) : check_(check) {}
    void tick(std::int64_t work = 1) {
        left_ -= work;
        if (left_ < 0) {
            left_ = interval;
            if (check_) check_();
        }
    }

  private:
    static constexpr std::int64_t interval = 1 << 21;
    void (*check_)();
    std::int64_t left_ = interval;
};

inline Index checked(std::int64_t count, const char* what) {
    if (count < 0 || count > std::numeric_limits<Index>::max()) throw Malformed(what, count);
    return static_cast<Index>(count);
}

}  // namespace vertexflow
