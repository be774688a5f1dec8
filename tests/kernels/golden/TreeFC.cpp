// TreeFC, method vertex

extern "C" void eager(Long* a, const Step* steps, Long count) {
    const Product product = (Product)a[0];
    const Outer outer = (Outer)a[1];
    const Pack pack = (Pack)a[2];
    Company* const company = (Company* const)a[3];
    const Long num_leaves = (Long)a[4];
    T* const p_clone_default = (T* const)a[5];
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 1, serial_once);
        for (last = first + 1; last < steps + count && pays_threads(*last, 1, serial_once) == pays;) ++last;
        Meeting meeting(company);
#pragma omp parallel if (pays) num_threads(threads_in(company))
        {
            const int team = omp_get_num_threads();
            for (const Step* at = first; at < last; ++at) {
                const Step& step = *at;
                const Long start = step.start, first_of_edges = step.edge_start, rows = step.stop - start;
                [[maybe_unused]] const Long edges = step.edge_stop - first_of_edges;
                [[maybe_unused]] const Long reads_from = step.reads_from, read_at = step.read_at;
                constexpr Long v_clone_default_ld = 1;
                T* const v_clone_default = p_clone_default + start * v_clone_default_ld;
                {
                Long own = 0, stop = 0;
                #pragma omp for schedule(static) nowait
                for (Long i = 0; i < rows; ++i) ++own, stop = i + 1;
                #pragma omp simd
                for (Long i = stop - own; i < stop; ++i) {
                    v_clone_default[i * v_clone_default_ld + 0] = float(1.0);
                }
                }
                meeting.wait(team);
            }
            if (team > 1) meeting.ends();
        }
    }
}

extern "C" void core(Long* a, const Step* steps, Long count) {
    const Product product = (Product)a[0];
    const Outer outer = (Outer)a[1];
    const Pack pack = (Pack)a[2];
    Company* const company = (Company* const)a[3];
    const Long num_leaves = (Long)a[4];
    const T* const state_exists = (T* const)a[5];
    const Index* const child_rows = (Index* const)a[6];
    T* const gathered_exists = (T* const)a[7];
    const T* const state_h = (T* const)a[8];
    T* const gathered_h = (T* const)a[9];
    const T* const p_params_1 = (T* const)a[10];
    const T* const p_params_2 = (T* const)a[11];
    std::uint8_t* const p_gt = (std::uint8_t* const)a[12];
    T* const p_where = (T* const)a[13];
    T* const scratch_1 = (T* const)a[14];
    const Long num_computed = (Long)a[15];
    Long& packed = a[16];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[17];
    const Weight weight_0 = {p_params_1, packs ? room_0 : nullptr, true, 6, 12};
    T* const p_pull_x = (T* const)a[18];
    if (must_pack)
#pragma omp parallel if (72 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
    }
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 11, serial);
        for (last = first + 1; last < steps + count && pays_threads(*last, 11, serial) == pays;) ++last;
        Meeting meeting(company);
#pragma omp parallel if (pays) num_threads(threads_in(company))
        {
            const int team = omp_get_num_threads();
            for (const Step* at = first; at < last; ++at) {
                const Step& step = *at;
                const Long start = step.start, first_of_edges = step.edge_start, rows = step.stop - start;
                [[maybe_unused]] const Long edges = step.edge_stop - first_of_edges;
                [[maybe_unused]] const Long reads_from = step.reads_from, read_at = step.read_at;
                if (start >= num_leaves) {
                    const T* const g_exists = reads_from < 0 ? gathered_exists : state_exists + reads_from * 1;
                    if (reads_from < 0) gather(state_exists, child_rows + (start - num_leaves) * 2, rows, 2, 1, gathered_exists);
                    const T* const v_children_exists = g_exists;
                    constexpr Long v_children_exists_ld = 2;
                    const T* const g_h = reads_from < 0 ? gathered_h + (start - num_leaves) * 12 : state_h + reads_from * 6;
                    gather(state_h, child_rows + (start - num_leaves) * 2, rows, 2, 6, gathered_h + (start - num_leaves) * 12);
                    const T* const v_children_h = g_h;
                    constexpr Long v_children_h_ld = 12;
                    constexpr Long v_gt_ld = 1;
                    std::uint8_t* const v_gt = p_gt + start * v_gt_ld;
                    constexpr Long v_composed_ld = 6;
                    T* const v_composed = p_where + start * v_composed_ld;
                    T* const v_addmm = scratch_1;
                    constexpr Long v_addmm_ld = 6;
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        float sum1 = float(0.0);
                        #pragma omp simd reduction(+:sum1)
                        for (Long r1 = 0; r1 < 2; ++r1) {
                            sum1 = sum1 + v_children_exists[i * v_children_exists_ld + r1];
                        }
                        const bool t2 = (sum1 > float(0.0));
                        v_gt[i * v_gt_ld + 0] = t2;
                    }
                    if (reads_from < 0) {
                    meeting.wait(team);
                    }
                    product(rows, v_children_h, v_children_h_ld, weight_0, p_params_2, v_addmm, v_addmm_ld);
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t3 = relu(v_addmm[i * v_addmm_ld + j0]);
                            v_composed[i * v_composed_ld + j0] = t3;
                        }
                    }
                    meeting.wait(team);
                } else {
                    constexpr Long v_x_ld = 6;
                    T* const v_x = p_pull_x + start * v_x_ld;
                    constexpr Long v_gt_ld = 1;
                    std::uint8_t* const v_gt = p_gt + start * v_gt_ld;
                    constexpr Long v_where_ld = 6;
                    T* const v_where = p_where + start * v_where_ld;
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        v_gt[i * v_gt_ld + 0] = false;
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            v_where[i * v_where_ld + j0] = v_x[i * v_x_ld + j0];
                        }
                    }
                    meeting.wait(team);
                }
            }
            if (team > 1) meeting.ends();
        }
    }
}

extern "C" void grad_core(Long* a, const Step* steps, Long count) {
    const Product product = (Product)a[0];
    const Outer outer = (Outer)a[1];
    const Pack pack = (Pack)a[2];
    Company* const company = (Company* const)a[3];
    const Long num_leaves = (Long)a[4];
    T* const received_h = (T* const)a[5];
    const Long group_start = (Long)a[6];
    const T* const outside_h = (T* const)a[7];
    const T* const placed_sent_h = (T* const)a[8];
    const Index* const placed_places = (Index* const)a[9];
    const Index* const placed_offset = (Index* const)a[10];
    const T* const listed_sent_h = (T* const)a[11];
    const Index* const listed_places_h = (Index* const)a[12];
    const Index* const listed_offset = (Index* const)a[13];
    T* const p_grad_push_h = (T* const)a[14];
    const Long ld_grad_push_h = (Long)a[15];
    const T* const p_params_1 = (T* const)a[16];
    T* const p_where = (T* const)a[17];
    T* const p_add = (T* const)a[18];
    T* const p_threshold_backward = (T* const)a[19];
    float* const send_h = (float* const)a[20];
    const Long num_computed = (Long)a[21];
    Long& packed = a[22];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[23];
    const Weight weight_0 = {p_params_1, packs ? room_0 : nullptr, false, 12, 6};
    const Long first_sending = (Long)a[24];
    if (must_pack)
#pragma omp parallel if (72 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
    }
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 16, serial);
        for (last = first + 1; last < steps + count && pays_threads(*last, 16, serial) == pays;) ++last;
        Meeting meeting(company);
#pragma omp parallel if (pays) num_threads(threads_in(company))
        {
            const int team = omp_get_num_threads();
            for (const Step* at = first; at < last; ++at) {
                const Step& step = *at;
                const Long start = step.start, first_of_edges = step.edge_start, rows = step.stop - start;
                [[maybe_unused]] const Long edges = step.edge_stop - first_of_edges;
                [[maybe_unused]] const Long reads_from = step.reads_from, read_at = step.read_at;
                if (start >= num_leaves) {
                    T* v_grad_scatter_h = received_h;
                    constexpr Long v_grad_scatter_h_ld = 6;
                    if (placed_sent_h && !placed_offset && !listed_sent_h && !outside_h && read_at >= 0)
                        v_grad_scatter_h = const_cast<T*>(placed_sent_h) + read_at * 6;
                    else receive(Parents<T>{placed_sent_h, placed_places, placed_offset}, Parents<T>{listed_sent_h, listed_places_h, listed_offset}, outside_h, group_start + start, rows, 6, v_grad_scatter_h);
                    const Long v_grad_push_h_ld = ld_grad_push_h;
                    T* const v_grad_push_h = p_grad_push_h + start * v_grad_push_h_ld;
                    constexpr Long v_h_ld = 6;
                    T* const v_h = p_where + start * v_h_ld;
                    constexpr Long v_add_ld = 6;
                    T* const v_add = p_add + start * v_add_ld;
                    constexpr Long v_threshold_backward_ld = 6;
                    T* const v_threshold_backward = p_threshold_backward + (start - num_leaves) * v_threshold_backward_ld;
                    float* const v_mm = send_h + (start - num_leaves) * 12;
                    constexpr Long v_mm_ld = 12;
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t1 = v_grad_scatter_h[i * v_grad_scatter_h_ld + j0] + v_grad_push_h[i * v_grad_push_h_ld + j0];
                            v_add[i * v_add_ld + j0] = t1;
                            const bool t2 = (v_h[i * v_h_ld + j0] <= float(0.0));
                            const float t3 = (t2 ? float(0.0) : t1);
                            v_threshold_backward[i * v_threshold_backward_ld + j0] = t3;
                        }
                    }
                    meeting.wait(team);
                    if (start + rows > first_sending)
                    product(rows, v_threshold_backward, v_threshold_backward_ld, weight_0, nullptr, v_mm, v_mm_ld);
                    meeting.wait(team);
                } else {
                    T* v_grad_scatter_h = received_h;
                    constexpr Long v_grad_scatter_h_ld = 6;
                    if (placed_sent_h && !placed_offset && !listed_sent_h && !outside_h && read_at >= 0)
                        v_grad_scatter_h = const_cast<T*>(placed_sent_h) + read_at * 6;
                    else receive(Parents<T>{placed_sent_h, placed_places, placed_offset}, Parents<T>{listed_sent_h, listed_places_h, listed_offset}, outside_h, group_start + start, rows, 6, v_grad_scatter_h);
                    const Long v_grad_push_h_ld = ld_grad_push_h;
                    T* const v_grad_push_h = p_grad_push_h + start * v_grad_push_h_ld;
                    constexpr Long v_add_ld = 6;
                    T* const v_add = p_add + start * v_add_ld;
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t1 = v_grad_scatter_h[i * v_grad_scatter_h_ld + j0] + v_grad_push_h[i * v_grad_push_h_ld + j0];
                            v_add[i * v_add_ld + j0] = t1;
                        }
                    }
                    meeting.wait(team);
                }
            }
            if (team > 1) meeting.ends();
        }
    }
}

extern "C" void grad_lazy(Long* a, const Step* steps, Long count) {
    const Product product = (Product)a[0];
    const Outer outer = (Outer)a[1];
    const Pack pack = (Pack)a[2];
    Company* const company = (Company* const)a[3];
    const Long num_leaves = (Long)a[4];
    std::uint8_t* const p_gt = (std::uint8_t* const)a[5];
    T* const p_add = (T* const)a[6];
    T* const p_where_1 = (T* const)a[7];
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 6, serial_once);
        for (last = first + 1; last < steps + count && pays_threads(*last, 6, serial_once) == pays;) ++last;
        Meeting meeting(company);
#pragma omp parallel if (pays) num_threads(threads_in(company))
        {
            const int team = omp_get_num_threads();
            for (const Step* at = first; at < last; ++at) {
                const Step& step = *at;
                const Long start = step.start, first_of_edges = step.edge_start, rows = step.stop - start;
                [[maybe_unused]] const Long edges = step.edge_stop - first_of_edges;
                [[maybe_unused]] const Long reads_from = step.reads_from, read_at = step.read_at;
                constexpr Long v_gt_ld = 1;
                std::uint8_t* const v_gt = p_gt + start * v_gt_ld;
                constexpr Long v_add_ld = 6;
                T* const v_add = p_add + start * v_add_ld;
                constexpr Long v_where_1_ld = 6;
                T* const v_where_1 = p_where_1 + start * v_where_1_ld;
                #pragma omp for schedule(static) nowait
                for (Long i = 0; i < rows; ++i) {
                    #pragma omp simd
                    for (Long j0 = 0; j0 < 6; ++j0) {
                        const float t1 = ((v_gt[i * v_gt_ld + 0] != 0) ? float(0.0) : v_add[i * v_add_ld + j0]);
                        v_where_1[i * v_where_1_ld + j0] = t1;
                    }
                }
                meeting.wait(team);
            }
            if (team > 1) meeting.ends();
        }
    }
}

extern "C" void grad_lazy_inner(Long* a, const Step* steps, Long count) {
    const Product product = (Product)a[0];
    const Outer outer = (Outer)a[1];
    const Pack pack = (Pack)a[2];
    Company* const company = (Company* const)a[3];
    const Long num_leaves = (Long)a[4];
    T* const p_gather_h = (T* const)a[5];
    T* const p_threshold_backward = (T* const)a[6];
    T* const p_mm_1 = (T* const)a[7];
    T* const p_view = (T* const)a[8];
    const bool adds = (bool)a[9];
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 4, serial_once);
        for (last = first + 1; last < steps + count && pays_threads(*last, 4, serial_once) == pays;) ++last;
        Meeting meeting(company);
#pragma omp parallel if (pays) num_threads(threads_in(company))
        {
            const int team = omp_get_num_threads();
            for (const Step* at = first; at < last; ++at) {
                const Step& step = *at;
                const Long start = step.start, first_of_edges = step.edge_start, rows = step.stop - start;
                [[maybe_unused]] const Long edges = step.edge_stop - first_of_edges;
                [[maybe_unused]] const Long reads_from = step.reads_from, read_at = step.read_at;
                constexpr Long v_children_h_ld = 12;
                T* const v_children_h = p_gather_h + (start - num_leaves) * v_children_h_ld;
                constexpr Long v_threshold_backward_ld = 6;
                T* const v_threshold_backward = p_threshold_backward + (start - num_leaves) * v_threshold_backward_ld;
                outer(rows, v_threshold_backward, v_threshold_backward_ld, 6, v_children_h, v_children_h_ld, 12, p_mm_1, adds);
                #pragma omp for schedule(static) nowait
                for (Long first = 0; first < 6; first += 64) {
                    const Long last = std::min<Long>(first + 64, 6);
                    float sum[64] = {};
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j = first; j < last; ++j) {
                            sum[j - first] += v_threshold_backward[i * v_threshold_backward_ld + j];
                        }
                    }
                    for (Long j = 0; adds && j < last - first; ++j) sum[j] += p_view[first + j];
                    std::copy(sum, sum + last - first, p_view + first);
                }
                meeting.wait(team);
            }
            if (team > 1) meeting.ends();
        }
    }
}
