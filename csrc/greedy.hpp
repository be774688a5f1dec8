// Policies that choose, step after step, which of the ready kinds to run: all ready vertices of it, at once.
#pragma once

#include <map>
#include <memory>

#include "common.hpp"
#include "order.hpp"

namespace vertexflow {

// The vertices whose children have all been computed, by kind.
class Ready {
  public:
    Ready(const Structure& s, Patience& patience)
        : s_(s), parents_(s, patience), initial_(waiting_for(s)), ready_(s.num_kinds) {
        reset();
    }

    void reset() {
        waiting_ = initial_;
        for (Indices& vertices : ready_) vertices.clear();
        for (Index v = 0; v < s_.num_vertices; ++v)
            if (waiting_[v] == 0) ready_[kind(v)].push_back(v);
        num_left_ = s_.num_vertices;
    }

    bool done() const { return num_left_ == 0; }
    Index ready(Index kind) const { return static_cast<Index>(ready_[kind].size()); }

    // The kinds that are ready, the most numerous first, equals in ascending order (the encoding `E_sort` of ED-Batch).
    const Indices& state() {
        state_.clear();
        for (Index k = 0; k < s_.num_kinds; ++k)
            if (!ready_[k].empty()) state_.push_back(k);
        std::stable_sort(state_.begin(), state_.end(), [&](Index a, Index b) { return ready(a) > ready(b); });
        return state_;
    }

    // Runs all ready vertices of a kind, calling `computed` for each.
    template <class Computed>
    void run(Index chosen, Computed computed, Patience& patience) {
        running_.swap(ready_[chosen]);
        for (Index v : running_) {
            patience.tick();
            computed(v);
            for (Index p = parents_.offset[v]; p < parents_.offset[v + 1]; ++p) {
                const Index above = parents_.parent[p];
                if (--waiting_[above] == 0) ready_[kind(above)].push_back(above);
            }
        }
        num_left_ -= static_cast<Index>(running_.size());
        running_.clear();
    }

    const Index* parents_begin(Index v) const { return parents_.parent.data() + parents_.offset[v]; }
    const Index* parents_end(Index v) const { return parents_.parent.data() + parents_.offset[v + 1]; }
    Index kind(Index v) const { return s_.kind ? s_.kind[v] : 0; }

  private:
    Structure s_;
    Parents parents_;
    Indices initial_, waiting_;
    std::vector<Indices> ready_;
    Indices running_, state_;
    Index num_left_ = 0;
};

// How many vertices of each kind would be ready if only vertices of that kind had to be waited for: the frontier of the
// subgraph of a kind, in the words of ED-Batch. Where all of these are ready, to run the kind now is never a mistake: some
// shortest schedule does. Kept up to date in O(edges * kinds) for a whole schedule.
class Unblocked {
  public:
    Unblocked(const Structure& s, const Ready& ready, Patience& patience)
        : s_(s), ready_(ready), initial_count_(s.num_kinds, 0), initial_(std::size_t(s.num_vertices) * s.num_kinds, 0) {
        children_first(s, patience, [&](Index v) {
            for (Index e = s.offset[v]; e < s.offset[v + 1]; ++e) {
                patience.tick(s.num_kinds / 16);  // a kind is a small part of the work of a vertex
                if (s.child[e] < s.num_vertices)
                    for (Index k = 0; k < s.num_kinds; ++k)
                        initial_[at(v, k)] += ready_.kind(s.child[e]) == k || initial_[at(s.child[e], k)] > 0;
            }
            initial_count_[ready_.kind(v)] += initial_[at(v, ready_.kind(v))] == 0;
        });
        reset();
    }

    void reset() {
        count_ = initial_count_;
        blockers_ = initial_;
    }

    Index count(Index kind) const { return count_[kind]; }

    // A kind whose unblocked vertices are all ready; -1 if there is none.
    Index complete() const {
        for (Index k = 0; k < s_.num_kinds; ++k)
            if (count_[k] > 0 && count_[k] == ready_.ready(k)) return k;
        return -1;
    }

    // v, of kind k, has been computed.
    void computed(Index v) {
        const Index k = ready_.kind(v);
        --count_[k];
        free_.assign(1, v);
        while (!free_.empty()) {  // these have ceased to block k
            const Index u = free_.back();
            free_.pop_back();
            for (const Index* p = ready_.parents_begin(u); p != ready_.parents_end(u); ++p)
                if (--blockers_[at(*p, k)] == 0) {
                    if (ready_.kind(*p) == k) ++count_[k];
                    else free_.push_back(*p);
                }
        }
    }

  private:
    std::size_t at(Index v, Index k) const { return std::size_t(v) * s_.num_kinds + k; }

    const Structure s_;
    const Ready& ready_;
    Indices initial_count_, count_, initial_, blockers_, free_;
};

using Table = std::map<Indices, Index>;  // in which state to run which kind

// Of the ready kinds, runs the one whose vertices have the lowest average depth: the agenda of DyNet (Neubig, Goldberg and
// Dyer 2017). With a table, runs a kind that is complete if there is one, else what the table says, if it says something.
// Returns the number of steps.
inline Index greedy_steps(const Structure& s, const Table* table, Index* step, Patience& patience) {
    std::vector<double> average(s.num_kinds, 0.0);
    {
        Indices depth(s.num_vertices), count(s.num_kinds, 0);
        depth_steps(s, depth.data(), patience);
        for (Index v = 0; v < s.num_vertices; ++v) {
            average[s.kind ? s.kind[v] : 0] += depth[v];
            ++count[s.kind ? s.kind[v] : 0];
        }
        for (Index k = 0; k < s.num_kinds; ++k) average[k] /= std::max(count[k], Index{1});
    }
    Ready ready(s, patience);
    std::unique_ptr<Unblocked> unblocked;
    if (table && s.num_kinds > 1) unblocked = std::make_unique<Unblocked>(s, ready, patience);
    Index now = 0;
    for (; !ready.done(); ++now) {
        patience.tick(s.num_kinds / 16);
        Index chosen = unblocked ? unblocked->complete() : -1;
        if (chosen < 0 && table && !table->empty()) {
            const auto found = table->find(ready.state());
            if (found != table->end() && found->second < s.num_kinds && ready.ready(found->second)) chosen = found->second;
        }
        if (chosen < 0)
            for (Index k = 0; k < s.num_kinds; ++k)
                if (ready.ready(k) && (chosen < 0 || average[k] < average[chosen])) chosen = k;
        const auto computed = [&](Index v) {
            step[v] = now;
            if (unblocked) unblocked->computed(v);
        };
        ready.run(chosen, computed, patience);
    }
    return now;
}

}  // namespace vertexflow
