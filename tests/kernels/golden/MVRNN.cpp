// MVRNN, method vertex

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
    const T* const state_matrix = (T* const)a[10];
    T* const gathered_matrix = (T* const)a[11];
    const T* const p_params_1 = (T* const)a[12];
    const T* const p_params_2 = (T* const)a[13];
    const T* const p_params_3 = (T* const)a[14];
    std::uint8_t* const p_gt = (std::uint8_t* const)a[15];
    T* const p_cat_1 = (T* const)a[16];
    T* const p_where = (T* const)a[17];
    T* const p_cat_2 = (T* const)a[18];
    T* const scratch_1 = (T* const)a[19];
    T* const scratch_2 = (T* const)a[20];
    T* const scratch_3 = (T* const)a[21];
    T* const scratch_4 = (T* const)a[22];
    T* const scratch_5 = (T* const)a[23];
    T* const p_where_1 = (T* const)a[24];
    const Long num_computed = (Long)a[25];
    Long& packed = a[26];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[27];
    const Weight weight_0 = {p_params_1, packs ? room_0 : nullptr, true, 6, 12};
    T* const room_1 = (T* const)a[28];
    const Weight weight_1 = {p_params_2, packs ? room_1 : nullptr, true, 6, 12};
    T* const p_pull_x = (T* const)a[29];
    T* const p_pull_matrix = (T* const)a[30];
    if (must_pack)
#pragma omp parallel if (144 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
        pack(weight_1);
    }
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 208, serial);
        for (last = first + 1; last < steps + count && pays_threads(*last, 208, serial) == pays;) ++last;
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
                    const T* const v_left_h = g_h + 0;
                    constexpr Long v_left_h_ld = 12;
                    const T* const g_matrix = reads_from < 0 ? gathered_matrix + (start - num_leaves) * 72 : state_matrix + reads_from * 36;
                    gather(state_matrix, child_rows + (start - num_leaves) * 2, rows, 2, 36, gathered_matrix + (start - num_leaves) * 72);
                    const T* const v_left_matrix = g_matrix + 0;
                    constexpr Long v_left_matrix_ld = 72;
                    const T* const v_right_h = g_h + 6;
                    constexpr Long v_right_h_ld = 12;
                    const T* const v_right_matrix = g_matrix + 36;
                    constexpr Long v_right_matrix_ld = 72;
                    constexpr Long v_inner_ld = 1;
                    std::uint8_t* const v_inner = p_gt + start * v_inner_ld;
                    constexpr Long v_cat_1_ld = 12;
                    T* const v_cat_1 = p_cat_1 + (start - num_leaves) * v_cat_1_ld;
                    constexpr Long v_tanh_ld = 6;
                    T* const v_tanh = p_where + start * v_tanh_ld;
                    constexpr Long v_cat_2_ld = 72;
                    T* const v_cat_2 = p_cat_2 + (start - num_leaves) * v_cat_2_ld;
                    T* const v_bmm = scratch_1;
                    constexpr Long v_bmm_ld = 6;
                    T* const v_bmm_1 = scratch_2;
                    constexpr Long v_bmm_1_ld = 6;
                    T* const v_addmm = scratch_3;
                    constexpr Long v_addmm_ld = 6;
                    T* const v_mm = scratch_4;
                    constexpr Long v_mm_ld = 36;
                    T* const v__unsafe_view = scratch_5;
                    constexpr Long v__unsafe_view_ld = 72;
                    constexpr Long v_where_1_ld = 36;
                    T* const v_where_1 = p_where_1 + start * v_where_1_ld;
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        float sum1 = float(0.0);
                        #pragma omp simd reduction(+:sum1)
                        for (Long r1 = 0; r1 < 2; ++r1) {
                            sum1 = sum1 + v_children_exists[i * v_children_exists_ld + r1];
                        }
                        const bool t2 = (sum1 > float(0.0));
                        v_inner[i * v_inner_ld + 0] = t2;
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            #pragma omp simd
                            for (Long j1 = 0; j1 < 12; ++j1) {
                                const float t3 = (j1 < 6 ? v_left_matrix[i * v_left_matrix_ld + j0 + clip(j1, 6) * 6] : v_right_matrix[i * v_right_matrix_ld + j0 + clip(j1 - 6, 6) * 6]);
                                v__unsafe_view[i * v__unsafe_view_ld + j1 + j0 * 12] = t3;
                            }
                        }
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            #pragma omp simd
                            for (Long j1 = 0; j1 < 6; ++j1) {
                                v_cat_2[i * v_cat_2_ld + j1 + j0 * 6] = v_left_matrix[i * v_left_matrix_ld + j1 + j0 * 6];
                                v_cat_2[i * v_cat_2_ld + j1 + j0 * 6 + 36] = v_right_matrix[i * v_right_matrix_ld + j1 + j0 * 6];
                            }
                        }
                    }
                    meeting.wait(team);
                    product(rows * 6, v__unsafe_view, v__unsafe_view_ld / 6, weight_0, nullptr, v_mm, v_mm_ld / 6);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            v_bmm[i * v_bmm_ld + j0] = float(0.0);
                        }
                        for (Long r1 = 0; r1 < 6; ++r1) {
                            #pragma omp simd
                            for (Long j0 = 0; j0 < 6; ++j0) {
                                const float t4 = v_right_matrix[i * v_right_matrix_ld + r1 + j0 * 6] * v_left_h[i * v_left_h_ld + r1];
                                v_bmm[i * v_bmm_ld + j0] = v_bmm[i * v_bmm_ld + j0] + t4;
                            }
                        }
                    }
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            v_bmm_1[i * v_bmm_1_ld + j0] = float(0.0);
                        }
                        for (Long r1 = 0; r1 < 6; ++r1) {
                            #pragma omp simd
                            for (Long j0 = 0; j0 < 6; ++j0) {
                                const float t5 = v_left_matrix[i * v_left_matrix_ld + r1 + j0 * 6] * v_right_h[i * v_right_h_ld + r1];
                                v_bmm_1[i * v_bmm_1_ld + j0] = v_bmm_1[i * v_bmm_1_ld + j0] + t5;
                            }
                        }
                    }
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            v_cat_1[i * v_cat_1_ld + j0] = v_bmm[i * v_bmm_ld + j0];
                            v_cat_1[i * v_cat_1_ld + j0 + 6] = v_bmm_1[i * v_bmm_1_ld + j0];
                        }
                    }
                    meeting.wait(team);
                    product(rows, v_cat_1, v_cat_1_ld, weight_1, p_params_3, v_addmm, v_addmm_ld);
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t6 = tanh_of(v_addmm[i * v_addmm_ld + j0]);
                            v_tanh[i * v_tanh_ld + j0] = t6;
                        }
                    }
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            #pragma omp simd
                            for (Long j1 = 0; j1 < 6; ++j1) {
                                v_where_1[i * v_where_1_ld + j1 + j0 * 6] = v_mm[i * v_mm_ld + j0 + j1 * 6];
                            }
                        }
                    }
                    meeting.wait(team);
                } else {
                    constexpr Long v_x_ld = 6;
                    T* const v_x = p_pull_x + start * v_x_ld;
                    constexpr Long v_matrix_ld = 36;
                    T* const v_matrix = p_pull_matrix + start * v_matrix_ld;
                    constexpr Long v_gt_ld = 1;
                    std::uint8_t* const v_gt = p_gt + start * v_gt_ld;
                    constexpr Long v_where_ld = 6;
                    T* const v_where = p_where + start * v_where_ld;
                    constexpr Long v_where_1_ld = 36;
                    T* const v_where_1 = p_where_1 + start * v_where_1_ld;
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        v_gt[i * v_gt_ld + 0] = false;
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            #pragma omp simd
                            for (Long j1 = 0; j1 < 6; ++j1) {
                                v_where_1[i * v_where_1_ld + j1 + j0 * 6] = v_matrix[i * v_matrix_ld + j1 + j0 * 6];
                            }
                        }
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
    T* const p_gather_h_0 = (T* const)a[5];
    T* const p_gather_matrix_0 = (T* const)a[6];
    T* const p_gather_h_1 = (T* const)a[7];
    T* const p_gather_matrix_1 = (T* const)a[8];
    T* const received_h = (T* const)a[9];
    const Long group_start = (Long)a[10];
    const T* const outside_h = (T* const)a[11];
    const T* const placed_sent_h = (T* const)a[12];
    const Index* const placed_places = (Index* const)a[13];
    const Index* const placed_offset = (Index* const)a[14];
    const T* const listed_sent_h = (T* const)a[15];
    const Index* const listed_places_h = (Index* const)a[16];
    const Index* const listed_offset = (Index* const)a[17];
    T* const received_matrix = (T* const)a[18];
    const T* const outside_matrix = (T* const)a[19];
    const T* const placed_sent_matrix = (T* const)a[20];
    const T* const listed_sent_matrix = (T* const)a[21];
    const Index* const listed_places_matrix = (Index* const)a[22];
    T* const p_grad_push_h = (T* const)a[23];
    const Long ld_grad_push_h = (Long)a[24];
    T* const p_grad_push_matrix = (T* const)a[25];
    const Long ld_grad_push_matrix = (Long)a[26];
    const T* const p_params_1 = (T* const)a[27];
    const T* const p_params_2 = (T* const)a[28];
    T* const p_where = (T* const)a[29];
    T* const p_add = (T* const)a[30];
    T* const p_add_1 = (T* const)a[31];
    T* const p_tanh_backward = (T* const)a[32];
    float* const send_matrix = (float* const)a[33];
    float* const send_h = (float* const)a[34];
    T* const scratch_1 = (T* const)a[35];
    T* const scratch_2 = (T* const)a[36];
    T* const scratch_3 = (T* const)a[37];
    T* const scratch_4 = (T* const)a[38];
    T* const scratch_5 = (T* const)a[39];
    T* const scratch_6 = (T* const)a[40];
    T* const scratch_7 = (T* const)a[41];
    T* const p_where_3 = (T* const)a[42];
    const Long num_computed = (Long)a[43];
    Long& packed = a[44];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[45];
    const Weight weight_0 = {p_params_1, packs ? room_0 : nullptr, false, 12, 6};
    T* const room_1 = (T* const)a[46];
    const Weight weight_1 = {p_params_2, packs ? room_1 : nullptr, false, 12, 6};
    if (must_pack)
#pragma omp parallel if (144 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
        pack(weight_1);
    }
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 213, serial);
        for (last = first + 1; last < steps + count && pays_threads(*last, 213, serial) == pays;) ++last;
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
                    constexpr Long v_left_h_ld = 12;
                    T* const v_left_h = p_gather_h_0 + (start - num_leaves) * v_left_h_ld;
                    constexpr Long v_left_matrix_ld = 72;
                    T* const v_left_matrix = p_gather_matrix_0 + (start - num_leaves) * v_left_matrix_ld;
                    constexpr Long v_right_h_ld = 12;
                    T* const v_right_h = p_gather_h_1 + (start - num_leaves) * v_right_h_ld;
                    constexpr Long v_right_matrix_ld = 72;
                    T* const v_right_matrix = p_gather_matrix_1 + (start - num_leaves) * v_right_matrix_ld;
                    T* v_grad_scatter_h = received_h;
                    constexpr Long v_grad_scatter_h_ld = 6;
                    if (placed_sent_h && !placed_offset && !listed_sent_h && !outside_h && read_at >= 0)
                        v_grad_scatter_h = const_cast<T*>(placed_sent_h) + read_at * 6;
                    else receive(Parents<T>{placed_sent_h, placed_places, placed_offset}, Parents<T>{listed_sent_h, listed_places_h, listed_offset}, outside_h, group_start + start, rows, 6, v_grad_scatter_h);
                    T* v_grad_scatter_matrix = received_matrix;
                    constexpr Long v_grad_scatter_matrix_ld = 36;
                    if (placed_sent_matrix && !placed_offset && !listed_sent_matrix && !outside_matrix && read_at >= 0)
                        v_grad_scatter_matrix = const_cast<T*>(placed_sent_matrix) + read_at * 36;
                    else receive(Parents<T>{placed_sent_matrix, placed_places, placed_offset}, Parents<T>{listed_sent_matrix, listed_places_matrix, listed_offset}, outside_matrix, group_start + start, rows, 36, v_grad_scatter_matrix);
                    const Long v_grad_push_h_ld = ld_grad_push_h;
                    T* const v_grad_push_h = p_grad_push_h + start * v_grad_push_h_ld;
                    const Long v_grad_push_matrix_ld = ld_grad_push_matrix;
                    T* const v_grad_push_matrix = p_grad_push_matrix + start * v_grad_push_matrix_ld;
                    constexpr Long v_h_ld = 6;
                    T* const v_h = p_where + start * v_h_ld;
                    constexpr Long v_add_ld = 6;
                    T* const v_add = p_add + start * v_add_ld;
                    constexpr Long v_add_1_ld = 36;
                    T* const v_add_1 = p_add_1 + start * v_add_1_ld;
                    constexpr Long v_tanh_backward_ld = 6;
                    T* const v_tanh_backward = p_tanh_backward + (start - num_leaves) * v_tanh_backward_ld;
                    float* const v_add_2 = send_matrix + (start - num_leaves) * 72 + 0;
                    constexpr Long v_add_2_ld = 72;
                    float* const v_clone_default_2 = send_h + (start - num_leaves) * 12 + 6;
                    constexpr Long v_clone_default_2_ld = 12;
                    float* const v_add_3 = send_matrix + (start - num_leaves) * 72 + 36;
                    constexpr Long v_add_3_ld = 72;
                    float* const v_clone_default_1 = send_h + (start - num_leaves) * 12 + 0;
                    constexpr Long v_clone_default_1_ld = 12;
                    T* const v_mm_2 = scratch_1;
                    constexpr Long v_mm_2_ld = 72;
                    T* const v__unsafe_view_2 = scratch_2;
                    constexpr Long v__unsafe_view_2_ld = 36;
                    T* const v_mm_3 = scratch_3;
                    constexpr Long v_mm_3_ld = 12;
                    T* const v_bmm_2 = scratch_4;
                    constexpr Long v_bmm_2_ld = 6;
                    T* const v_bmm_3 = scratch_5;
                    constexpr Long v_bmm_3_ld = 36;
                    T* const v_bmm_4 = scratch_6;
                    constexpr Long v_bmm_4_ld = 6;
                    T* const v_bmm_5 = scratch_7;
                    constexpr Long v_bmm_5_ld = 36;
                    constexpr Long v_where_3_ld = 36;
                    T* const v_where_3 = p_where_3 + (start - num_leaves) * v_where_3_ld;
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            #pragma omp simd
                            for (Long j1 = 0; j1 < 6; ++j1) {
                                const float t1 = v_grad_scatter_matrix[i * v_grad_scatter_matrix_ld + j1 + j0 * 6] + v_grad_push_matrix[i * v_grad_push_matrix_ld + j1 + j0 * 6];
                                v_add_1[i * v_add_1_ld + j1 + j0 * 6] = t1;
                                const float t2 = v_grad_scatter_matrix[i * v_grad_scatter_matrix_ld + j0 + j1 * 6] + v_grad_push_matrix[i * v_grad_push_matrix_ld + j0 + j1 * 6];
                                v__unsafe_view_2[i * v__unsafe_view_2_ld + j1 + j0 * 6] = t2;
                            }
                        }
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t3 = v_grad_scatter_h[i * v_grad_scatter_h_ld + j0] + v_grad_push_h[i * v_grad_push_h_ld + j0];
                            v_add[i * v_add_ld + j0] = t3;
                            const float t4 = -v_h[i * v_h_ld + j0];
                            const float t5 = fused(t4, v_h[i * v_h_ld + j0], float(1.0));
                            const float t6 = t3 * t5;
                            v_tanh_backward[i * v_tanh_backward_ld + j0] = t6;
                        }
                    }
                    meeting.wait(team);
                    product(rows * 6, v__unsafe_view_2, v__unsafe_view_2_ld / 6, weight_0, nullptr, v_mm_2, v_mm_2_ld / 6);
                    product(rows, v_tanh_backward, v_tanh_backward_ld, weight_1, nullptr, v_mm_3, v_mm_3_ld);
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            v_bmm_2[i * v_bmm_2_ld + j0] = float(0.0);
                        }
                        for (Long r1 = 0; r1 < 6; ++r1) {
                            #pragma omp simd
                            for (Long j0 = 0; j0 < 6; ++j0) {
                                const float t7 = v_left_matrix[i * v_left_matrix_ld + j0 + r1 * 6] * v_mm_3[i * v_mm_3_ld + r1 + 6];
                                v_bmm_2[i * v_bmm_2_ld + j0] = v_bmm_2[i * v_bmm_2_ld + j0] + t7;
                            }
                        }
                    }
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            #pragma omp simd
                            for (Long j1 = 0; j1 < 6; ++j1) {
                                v_bmm_3[i * v_bmm_3_ld + j1 + j0 * 6] = float(0.0);
                            }
                            for (Long r = 0; r < 1; ++r) {
                                #pragma omp simd
                                for (Long j1 = 0; j1 < 6; ++j1) {
                                    const float t8 = v_mm_3[i * v_mm_3_ld + j0 + 6] * v_right_h[i * v_right_h_ld + j1];
                                    v_bmm_3[i * v_bmm_3_ld + j1 + j0 * 6] = v_bmm_3[i * v_bmm_3_ld + j1 + j0 * 6] + t8;
                                }
                            }
                        }
                    }
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            v_bmm_4[i * v_bmm_4_ld + j0] = float(0.0);
                        }
                        for (Long r1 = 0; r1 < 6; ++r1) {
                            #pragma omp simd
                            for (Long j0 = 0; j0 < 6; ++j0) {
                                const float t9 = v_right_matrix[i * v_right_matrix_ld + j0 + r1 * 6] * v_mm_3[i * v_mm_3_ld + r1];
                                v_bmm_4[i * v_bmm_4_ld + j0] = v_bmm_4[i * v_bmm_4_ld + j0] + t9;
                            }
                        }
                    }
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            #pragma omp simd
                            for (Long j1 = 0; j1 < 6; ++j1) {
                                v_bmm_5[i * v_bmm_5_ld + j1 + j0 * 6] = float(0.0);
                            }
                            for (Long r = 0; r < 1; ++r) {
                                #pragma omp simd
                                for (Long j1 = 0; j1 < 6; ++j1) {
                                    const float t10 = v_mm_3[i * v_mm_3_ld + j0] * v_left_h[i * v_left_h_ld + j1];
                                    v_bmm_5[i * v_bmm_5_ld + j1 + j0 * 6] = v_bmm_5[i * v_bmm_5_ld + j1 + j0 * 6] + t10;
                                }
                            }
                        }
                    }
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            v_clone_default_2[i * v_clone_default_2_ld + j0] = v_bmm_2[i * v_bmm_2_ld + j0];
                            v_clone_default_1[i * v_clone_default_1_ld + j0] = v_bmm_4[i * v_bmm_4_ld + j0];
                        }
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            #pragma omp simd
                            for (Long j1 = 0; j1 < 6; ++j1) {
                                const float t11 = v_mm_2[i * v_mm_2_ld + j0 + j1 * 12] + v_bmm_3[i * v_bmm_3_ld + j1 + j0 * 6];
                                v_add_2[i * v_add_2_ld + j1 + j0 * 6] = t11;
                                const float t12 = v_mm_2[i * v_mm_2_ld + j0 + j1 * 12 + 6] + v_bmm_5[i * v_bmm_5_ld + j1 + j0 * 6];
                                v_add_3[i * v_add_3_ld + j1 + j0 * 6] = t12;
                            }
                        }
                    }
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            #pragma omp simd
                            for (Long j1 = 0; j1 < 6; ++j1) {
                                v_where_3[i * v_where_3_ld + j1 + j0 * 6] = v_add_1[i * v_add_1_ld + j1 + j0 * 6];
                            }
                        }
                    }
                    meeting.wait(team);
                } else {
                    T* v_grad_scatter_h = received_h;
                    constexpr Long v_grad_scatter_h_ld = 6;
                    if (placed_sent_h && !placed_offset && !listed_sent_h && !outside_h && read_at >= 0)
                        v_grad_scatter_h = const_cast<T*>(placed_sent_h) + read_at * 6;
                    else receive(Parents<T>{placed_sent_h, placed_places, placed_offset}, Parents<T>{listed_sent_h, listed_places_h, listed_offset}, outside_h, group_start + start, rows, 6, v_grad_scatter_h);
                    T* v_grad_scatter_matrix = received_matrix;
                    constexpr Long v_grad_scatter_matrix_ld = 36;
                    if (placed_sent_matrix && !placed_offset && !listed_sent_matrix && !outside_matrix && read_at >= 0)
                        v_grad_scatter_matrix = const_cast<T*>(placed_sent_matrix) + read_at * 36;
                    else receive(Parents<T>{placed_sent_matrix, placed_places, placed_offset}, Parents<T>{listed_sent_matrix, listed_places_matrix, listed_offset}, outside_matrix, group_start + start, rows, 36, v_grad_scatter_matrix);
                    const Long v_grad_push_h_ld = ld_grad_push_h;
                    T* const v_grad_push_h = p_grad_push_h + start * v_grad_push_h_ld;
                    const Long v_grad_push_matrix_ld = ld_grad_push_matrix;
                    T* const v_grad_push_matrix = p_grad_push_matrix + start * v_grad_push_matrix_ld;
                    constexpr Long v_add_ld = 6;
                    T* const v_add = p_add + start * v_add_ld;
                    constexpr Long v_add_1_ld = 36;
                    T* const v_add_1 = p_add_1 + start * v_add_1_ld;
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            #pragma omp simd
                            for (Long j1 = 0; j1 < 6; ++j1) {
                                const float t1 = v_grad_scatter_matrix[i * v_grad_scatter_matrix_ld + j1 + j0 * 6] + v_grad_push_matrix[i * v_grad_push_matrix_ld + j1 + j0 * 6];
                                v_add_1[i * v_add_1_ld + j1 + j0 * 6] = t1;
                            }
                        }
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t2 = v_grad_scatter_h[i * v_grad_scatter_h_ld + j0] + v_grad_push_h[i * v_grad_push_h_ld + j0];
                            v_add[i * v_add_ld + j0] = t2;
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
    T* const p_add_1 = (T* const)a[7];
    T* const p_where_2 = (T* const)a[8];
    T* const p_where_4 = (T* const)a[9];
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 42, serial_once);
        for (last = first + 1; last < steps + count && pays_threads(*last, 42, serial_once) == pays;) ++last;
        Meeting meeting(company);
#pragma omp parallel if (pays) num_threads(threads_in(company))
        {
            const int team = omp_get_num_threads();
            for (const Step* at = first; at < last; ++at) {
                const Step& step = *at;
                const Long start = step.start, first_of_edges = step.edge_start, rows = step.stop - start;
                [[maybe_unused]] const Long edges = step.edge_stop - first_of_edges;
                [[maybe_unused]] const Long reads_from = step.reads_from, read_at = step.read_at;
                constexpr Long v_inner_ld = 1;
                std::uint8_t* const v_inner = p_gt + start * v_inner_ld;
                constexpr Long v_add_ld = 6;
                T* const v_add = p_add + start * v_add_ld;
                constexpr Long v_add_1_ld = 36;
                T* const v_add_1 = p_add_1 + start * v_add_1_ld;
                constexpr Long v_where_2_ld = 36;
                T* const v_where_2 = p_where_2 + start * v_where_2_ld;
                constexpr Long v_where_4_ld = 6;
                T* const v_where_4 = p_where_4 + start * v_where_4_ld;
                #pragma omp for schedule(static) nowait
                for (Long i = 0; i < rows; ++i) {
                    for (Long j0 = 0; j0 < 6; ++j0) {
                        #pragma omp simd
                        for (Long j1 = 0; j1 < 6; ++j1) {
                            const float t1 = ((v_inner[i * v_inner_ld + 0] != 0) ? float(0.0) : v_add_1[i * v_add_1_ld + j1 + j0 * 6]);
                            v_where_2[i * v_where_2_ld + j1 + j0 * 6] = t1;
                        }
                    }
                    #pragma omp simd
                    for (Long j0 = 0; j0 < 6; ++j0) {
                        const float t2 = ((v_inner[i * v_inner_ld + 0] != 0) ? float(0.0) : v_add[i * v_add_ld + j0]);
                        v_where_4[i * v_where_4_ld + j0] = t2;
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
    T* const p_cat_1 = (T* const)a[5];
    T* const p_cat_2 = (T* const)a[6];
    T* const p_where_3 = (T* const)a[7];
    T* const p_tanh_backward = (T* const)a[8];
    T* const p_mm_1 = (T* const)a[9];
    T* const p_mm_4 = (T* const)a[10];
    T* const p_view_7 = (T* const)a[11];
    T* const scratch_1 = (T* const)a[12];
    T* const scratch_2 = (T* const)a[13];
    const bool adds = (bool)a[14];
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 117, serial_once);
        for (last = first + 1; last < steps + count && pays_threads(*last, 117, serial_once) == pays;) ++last;
        Meeting meeting(company);
#pragma omp parallel if (pays) num_threads(threads_in(company))
        {
            const int team = omp_get_num_threads();
            for (const Step* at = first; at < last; ++at) {
                const Step& step = *at;
                const Long start = step.start, first_of_edges = step.edge_start, rows = step.stop - start;
                [[maybe_unused]] const Long edges = step.edge_stop - first_of_edges;
                [[maybe_unused]] const Long reads_from = step.reads_from, read_at = step.read_at;
                constexpr Long v_cat_1_ld = 12;
                T* const v_cat_1 = p_cat_1 + (start - num_leaves) * v_cat_1_ld;
                constexpr Long v_cat_2_ld = 72;
                T* const v_cat_2 = p_cat_2 + (start - num_leaves) * v_cat_2_ld;
                constexpr Long v_where_3_ld = 36;
                T* const v_where_3 = p_where_3 + (start - num_leaves) * v_where_3_ld;
                constexpr Long v_tanh_backward_ld = 6;
                T* const v_tanh_backward = p_tanh_backward + (start - num_leaves) * v_tanh_backward_ld;
                T* const v__unsafe_view_2 = scratch_1;
                constexpr Long v__unsafe_view_2_ld = 36;
                T* const v__unsafe_view = scratch_2;
                constexpr Long v__unsafe_view_ld = 72;
                #pragma omp for schedule(static) nowait
                for (Long i = 0; i < rows; ++i) {
                    for (Long j0 = 0; j0 < 6; ++j0) {
                        #pragma omp simd
                        for (Long j1 = 0; j1 < 12; ++j1) {
                            v__unsafe_view[i * v__unsafe_view_ld + j1 + j0 * 12] = v_cat_2[i * v_cat_2_ld + j0 + j1 * 6];
                        }
                    }
                    for (Long j0 = 0; j0 < 6; ++j0) {
                        #pragma omp simd
                        for (Long j1 = 0; j1 < 6; ++j1) {
                            v__unsafe_view_2[i * v__unsafe_view_2_ld + j1 + j0 * 6] = v_where_3[i * v_where_3_ld + j0 + j1 * 6];
                        }
                    }
                }
                meeting.wait(team);
                outer(rows * 6, v__unsafe_view_2, v__unsafe_view_2_ld / 6, 6, v__unsafe_view, v__unsafe_view_ld / 6, 12, p_mm_1, adds);
                outer(rows, v_tanh_backward, v_tanh_backward_ld, 6, v_cat_1, v_cat_1_ld, 12, p_mm_4, adds);
                #pragma omp for schedule(static) nowait
                for (Long first = 0; first < 6; first += 64) {
                    const Long last = std::min<Long>(first + 64, 6);
                    float sum[64] = {};
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j = first; j < last; ++j) {
                            sum[j - first] += v_tanh_backward[i * v_tanh_backward_ld + j];
                        }
                    }
                    for (Long j = 0; adds && j < last - first; ++j) sum[j] += p_view_7[first + j];
                    std::copy(sum, sum + last - first, p_view_7 + first);
                }
                meeting.wait(team);
            }
            if (team > 1) meeting.ends();
        }
    }
}
