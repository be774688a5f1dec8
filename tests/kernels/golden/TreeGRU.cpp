// TreeGRU, method vertex

extern "C" void eager(Long* a, const Step* steps, Long count) {
    const Product product = (Product)a[0];
    const Outer outer = (Outer)a[1];
    const Pack pack = (Pack)a[2];
    Company* const company = (Company* const)a[3];
    const Long num_leaves = (Long)a[4];
    T* const p_pull_x = (T* const)a[5];
    const T* const p_params_1 = (T* const)a[6];
    const T* const p_params_2 = (T* const)a[7];
    T* const p_addmm = (T* const)a[8];
    const Long num_computed = (Long)a[9];
    Long& packed = a[10];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[11];
    const Weight weight_0 = {p_params_1, packs ? room_0 : nullptr, true, 18, 6};
    if (must_pack)
#pragma omp parallel if (108 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
    }
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
                constexpr Long v_pull_x_ld = 6;
                T* const v_pull_x = p_pull_x + start * v_pull_x_ld;
                constexpr Long v_addmm_ld = 18;
                T* const v_addmm = p_addmm + start * v_addmm_ld;
                product(rows, v_pull_x, v_pull_x_ld, weight_0, p_params_2, v_addmm, v_addmm_ld);
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
    const T* const state_h = (T* const)a[5];
    const Index* const child_rows = (Index* const)a[6];
    T* const gathered_h = (T* const)a[7];
    const T* const p_params_3 = (T* const)a[8];
    const T* const p_params_4 = (T* const)a[9];
    T* const p_addmm = (T* const)a[10];
    T* const p_cat = (T* const)a[11];
    T* const p_sigmoid = (T* const)a[12];
    T* const p_sigmoid_1 = (T* const)a[13];
    T* const p_cat_1 = (T* const)a[14];
    T* const p_tanh = (T* const)a[15];
    T* const p_sigmoid_2 = (T* const)a[16];
    T* const p_sub = (T* const)a[17];
    T* const p_add_4 = (T* const)a[18];
    T* const scratch_1 = (T* const)a[19];
    T* const scratch_2 = (T* const)a[20];
    T* const scratch_3 = (T* const)a[21];
    const Long num_computed = (Long)a[22];
    Long& packed = a[23];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[24];
    const Weight weight_0 = {p_params_3, packs ? room_0 : nullptr, true, 18, 12};
    T* const room_1 = (T* const)a[25];
    const Weight weight_1 = {p_params_4, packs ? room_1 : nullptr, true, 6, 12};
    T* const scratch_4 = (T* const)a[26];
    T* const scratch_5 = (T* const)a[27];
    if (must_pack)
#pragma omp parallel if (288 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
        pack(weight_1);
    }
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 78, serial);
        for (last = first + 1; last < steps + count && pays_threads(*last, 78, serial) == pays;) ++last;
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
                    const T* const g_h = reads_from < 0 ? gathered_h + (start - num_leaves) * 12 : state_h + reads_from * 6;
                    gather(state_h, child_rows + (start - num_leaves) * 2, rows, 2, 6, gathered_h + (start - num_leaves) * 12);
                    const T* const v_gather_h_0 = g_h + 0;
                    constexpr Long v_gather_h_0_ld = 12;
                    const T* const v_gather_h_1 = g_h + 6;
                    constexpr Long v_gather_h_1_ld = 12;
                    constexpr Long v_addmm_ld = 18;
                    T* const v_addmm = p_addmm + start * v_addmm_ld;
                    constexpr Long v_cat_ld = 12;
                    T* const v_cat = p_cat + (start - num_leaves) * v_cat_ld;
                    constexpr Long v_sigmoid_ld = 6;
                    T* const v_sigmoid = p_sigmoid + start * v_sigmoid_ld;
                    constexpr Long v_sigmoid_1_ld = 6;
                    T* const v_sigmoid_1 = p_sigmoid_1 + start * v_sigmoid_1_ld;
                    constexpr Long v_cat_1_ld = 12;
                    T* const v_cat_1 = p_cat_1 + start * v_cat_1_ld;
                    constexpr Long v_n_ld = 6;
                    T* const v_n = p_tanh + start * v_n_ld;
                    constexpr Long v_sigmoid_2_ld = 6;
                    T* const v_sigmoid_2 = p_sigmoid_2 + start * v_sigmoid_2_ld;
                    constexpr Long v_sub_ld = 6;
                    T* const v_sub = p_sub + start * v_sub_ld;
                    constexpr Long v_h_ld = 6;
                    T* const v_h = p_add_4 + start * v_h_ld;
                    T* const v_mm = scratch_1;
                    constexpr Long v_mm_ld = 18;
                    T* const v_mm_1 = scratch_2;
                    constexpr Long v_mm_1_ld = 6;
                    T* const v_sum_1 = scratch_3;
                    constexpr Long v_sum_1_ld = 6;
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            v_cat[i * v_cat_ld + j0] = v_gather_h_0[i * v_gather_h_0_ld + j0];
                            v_cat[i * v_cat_ld + j0 + 6] = v_gather_h_1[i * v_gather_h_1_ld + j0];
                        }
                    }
                    meeting.wait(team);
                    product(rows, v_cat, v_cat_ld, weight_0, nullptr, v_mm, v_mm_ld);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            v_sum_1[i * v_sum_1_ld + j0] = float(0.0);
                        }
                        for (Long r1 = 0; r1 < 2; ++r1) {
                            #pragma omp simd
                            for (Long j0 = 0; j0 < 6; ++j0) {
                                const float t1 = (r1 < 1 ? v_gather_h_0[i * v_gather_h_0_ld + j0] : v_gather_h_1[i * v_gather_h_1_ld + j0]);
                                v_sum_1[i * v_sum_1_ld + j0] = v_sum_1[i * v_sum_1_ld + j0] + t1;
                            }
                        }
                    }
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t2 = v_addmm[i * v_addmm_ld + j0 + 6] + v_mm[i * v_mm_ld + j0 + 6];
                            const float t3 = sigmoid(t2);
                            v_sigmoid[i * v_sigmoid_ld + j0] = t3;
                            const float t4 = v_addmm[i * v_addmm_ld + j0 + 6] + v_mm[i * v_mm_ld + j0 + 12];
                            const float t5 = sigmoid(t4);
                            v_sigmoid_1[i * v_sigmoid_1_ld + j0] = t5;
                            const float t6 = t3 * v_gather_h_0[i * v_gather_h_0_ld + j0];
                            v_cat_1[i * v_cat_1_ld + j0] = t6;
                            const float t7 = t5 * v_gather_h_1[i * v_gather_h_1_ld + j0];
                            v_cat_1[i * v_cat_1_ld + j0 + 6] = t7;
                            const float t8 = v_addmm[i * v_addmm_ld + j0] + v_mm[i * v_mm_ld + j0];
                            const float t9 = sigmoid(t8);
                            v_sigmoid_2[i * v_sigmoid_2_ld + j0] = t9;
                        }
                    }
                    meeting.wait(team);
                    product(rows, v_cat_1, v_cat_1_ld, weight_1, nullptr, v_mm_1, v_mm_1_ld);
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t10 = v_addmm[i * v_addmm_ld + j0 + 12] + v_mm_1[i * v_mm_1_ld + j0];
                            const float t11 = tanh_of(t10);
                            v_n[i * v_n_ld + j0] = t11;
                            const float t12 = v_sum_1[i * v_sum_1_ld + j0] - t11;
                            v_sub[i * v_sub_ld + j0] = t12;
                            const float t13 = v_sigmoid_2[i * v_sigmoid_2_ld + j0] * t12;
                            const float t14 = t11 + t13;
                            v_h[i * v_h_ld + j0] = t14;
                        }
                    }
                    meeting.wait(team);
                } else {
                    constexpr Long v_addmm_ld = 18;
                    T* const v_addmm = p_addmm + start * v_addmm_ld;
                    constexpr Long v_sigmoid_ld = 6;
                    T* const v_sigmoid = p_sigmoid + start * v_sigmoid_ld;
                    constexpr Long v_sigmoid_1_ld = 6;
                    T* const v_sigmoid_1 = p_sigmoid_1 + start * v_sigmoid_1_ld;
                    constexpr Long v_cat_1_ld = 12;
                    T* const v_cat_1 = p_cat_1 + start * v_cat_1_ld;
                    constexpr Long v_n_ld = 6;
                    T* const v_n = p_tanh + start * v_n_ld;
                    constexpr Long v_sigmoid_2_ld = 6;
                    T* const v_sigmoid_2 = p_sigmoid_2 + start * v_sigmoid_2_ld;
                    constexpr Long v_sub_ld = 6;
                    T* const v_sub = p_sub + start * v_sub_ld;
                    constexpr Long v_h_ld = 6;
                    T* const v_h = p_add_4 + start * v_h_ld;
                    T* const v_mm_1 = scratch_4;
                    constexpr Long v_mm_1_ld = 6;
                    T* const v_sum_1 = scratch_5;
                    constexpr Long v_sum_1_ld = 6;
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t1 = sigmoid(v_addmm[i * v_addmm_ld + j0 + 6]);
                            v_sigmoid[i * v_sigmoid_ld + j0] = t1;
                            const float t2 = sigmoid(v_addmm[i * v_addmm_ld + j0 + 6]);
                            v_sigmoid_1[i * v_sigmoid_1_ld + j0] = t2;
                            const float t3 = t1 * float(0.0);
                            v_cat_1[i * v_cat_1_ld + j0] = t3;
                            const float t4 = t2 * float(0.0);
                            v_cat_1[i * v_cat_1_ld + j0 + 6] = t4;
                            const float t5 = sigmoid(v_addmm[i * v_addmm_ld + j0]);
                            v_sigmoid_2[i * v_sigmoid_2_ld + j0] = t5;
                        }
                    }
                    meeting.wait(team);
                    product(rows, v_cat_1, v_cat_1_ld, weight_1, nullptr, v_mm_1, v_mm_1_ld);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            v_sum_1[i * v_sum_1_ld + j0] = float(0.0);
                        }
                        for (Long r1 = 0; r1 < 2; ++r1) {
                            const float t6 = (r1 < 1 ? float(0.0) : float(0.0));
                            #pragma omp simd
                            for (Long j0 = 0; j0 < 6; ++j0) {
                                v_sum_1[i * v_sum_1_ld + j0] = v_sum_1[i * v_sum_1_ld + j0] + t6;
                            }
                        }
                    }
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t7 = v_addmm[i * v_addmm_ld + j0 + 12] + v_mm_1[i * v_mm_1_ld + j0];
                            const float t8 = tanh_of(t7);
                            v_n[i * v_n_ld + j0] = t8;
                            const float t9 = v_sum_1[i * v_sum_1_ld + j0] - t8;
                            v_sub[i * v_sub_ld + j0] = t9;
                            const float t10 = v_sigmoid_2[i * v_sigmoid_2_ld + j0] * t9;
                            const float t11 = t8 + t10;
                            v_h[i * v_h_ld + j0] = t11;
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
    T* const p_gather_h_1 = (T* const)a[6];
    T* const received_h = (T* const)a[7];
    const Long group_start = (Long)a[8];
    const T* const outside_h = (T* const)a[9];
    const T* const placed_sent_h = (T* const)a[10];
    const Index* const placed_places = (Index* const)a[11];
    const Index* const placed_offset = (Index* const)a[12];
    const T* const listed_sent_h = (T* const)a[13];
    const Index* const listed_places_h = (Index* const)a[14];
    const Index* const listed_offset = (Index* const)a[15];
    T* const p_grad_push_h = (T* const)a[16];
    const Long ld_grad_push_h = (Long)a[17];
    const T* const p_params_3 = (T* const)a[18];
    const T* const p_params_4 = (T* const)a[19];
    T* const p_sigmoid = (T* const)a[20];
    T* const p_sigmoid_1 = (T* const)a[21];
    T* const p_tanh = (T* const)a[22];
    T* const p_sigmoid_2 = (T* const)a[23];
    T* const p_sub = (T* const)a[24];
    T* const p_sigmoid_backward = (T* const)a[25];
    T* const p_tanh_backward = (T* const)a[26];
    T* const p_sigmoid_backward_1 = (T* const)a[27];
    T* const p_sigmoid_backward_2 = (T* const)a[28];
    T* const p_cat_2 = (T* const)a[29];
    float* const send_h = (float* const)a[30];
    T* const scratch_1 = (T* const)a[31];
    T* const scratch_2 = (T* const)a[32];
    T* const scratch_3 = (T* const)a[33];
    T* const scratch_4 = (T* const)a[34];
    T* const scratch_5 = (T* const)a[35];
    const Long num_computed = (Long)a[36];
    Long& packed = a[37];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[38];
    const Weight weight_0 = {p_params_4, packs ? room_0 : nullptr, false, 12, 6};
    T* const room_1 = (T* const)a[39];
    const Weight weight_1 = {p_params_3, packs ? room_1 : nullptr, false, 12, 18};
    T* const scratch_6 = (T* const)a[40];
    if (must_pack)
#pragma omp parallel if (288 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
        pack(weight_1);
    }
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 90, serial);
        for (last = first + 1; last < steps + count && pays_threads(*last, 90, serial) == pays;) ++last;
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
                    constexpr Long v_gather_h_0_ld = 12;
                    T* const v_gather_h_0 = p_gather_h_0 + (start - num_leaves) * v_gather_h_0_ld;
                    constexpr Long v_gather_h_1_ld = 12;
                    T* const v_gather_h_1 = p_gather_h_1 + (start - num_leaves) * v_gather_h_1_ld;
                    T* v_grad_scatter_h = received_h;
                    constexpr Long v_grad_scatter_h_ld = 6;
                    if (placed_sent_h && !placed_offset && !listed_sent_h && !outside_h && read_at >= 0)
                        v_grad_scatter_h = const_cast<T*>(placed_sent_h) + read_at * 6;
                    else receive(Parents<T>{placed_sent_h, placed_places, placed_offset}, Parents<T>{listed_sent_h, listed_places_h, listed_offset}, outside_h, group_start + start, rows, 6, v_grad_scatter_h);
                    const Long v_grad_push_h_ld = ld_grad_push_h;
                    T* const v_grad_push_h = p_grad_push_h + start * v_grad_push_h_ld;
                    constexpr Long v_sigmoid_ld = 6;
                    T* const v_sigmoid = p_sigmoid + start * v_sigmoid_ld;
                    constexpr Long v_sigmoid_1_ld = 6;
                    T* const v_sigmoid_1 = p_sigmoid_1 + start * v_sigmoid_1_ld;
                    constexpr Long v_n_ld = 6;
                    T* const v_n = p_tanh + start * v_n_ld;
                    constexpr Long v_sigmoid_2_ld = 6;
                    T* const v_sigmoid_2 = p_sigmoid_2 + start * v_sigmoid_2_ld;
                    constexpr Long v_sub_ld = 6;
                    T* const v_sub = p_sub + start * v_sub_ld;
                    constexpr Long v_sigmoid_backward_ld = 6;
                    T* const v_sigmoid_backward = p_sigmoid_backward + start * v_sigmoid_backward_ld;
                    constexpr Long v_tanh_backward_ld = 6;
                    T* const v_tanh_backward = p_tanh_backward + start * v_tanh_backward_ld;
                    constexpr Long v_sigmoid_backward_1_ld = 6;
                    T* const v_sigmoid_backward_1 = p_sigmoid_backward_1 + start * v_sigmoid_backward_1_ld;
                    constexpr Long v_sigmoid_backward_2_ld = 6;
                    T* const v_sigmoid_backward_2 = p_sigmoid_backward_2 + start * v_sigmoid_backward_2_ld;
                    constexpr Long v_cat_2_ld = 18;
                    T* const v_cat_2 = p_cat_2 + (start - num_leaves) * v_cat_2_ld;
                    float* const v_add_10 = send_h + (start - num_leaves) * 12 + 0;
                    constexpr Long v_add_10_ld = 12;
                    float* const v_add_11 = send_h + (start - num_leaves) * 12 + 6;
                    constexpr Long v_add_11_ld = 12;
                    T* const v_mm_3 = scratch_1;
                    constexpr Long v_mm_3_ld = 12;
                    T* const v_mul_3 = scratch_2;
                    constexpr Long v_mul_3_ld = 6;
                    T* const v_mm_5 = scratch_3;
                    constexpr Long v_mm_5_ld = 12;
                    T* const v_add_8 = scratch_4;
                    constexpr Long v_add_8_ld = 6;
                    T* const v_add_7 = scratch_5;
                    constexpr Long v_add_7_ld = 6;
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t1 = v_grad_scatter_h[i * v_grad_scatter_h_ld + j0] + v_grad_push_h[i * v_grad_push_h_ld + j0];
                            const float t2 = t1 * v_sigmoid_2[i * v_sigmoid_2_ld + j0];
                            v_mul_3[i * v_mul_3_ld + j0] = t2;
                            const float t3 = t1 * v_sub[i * v_sub_ld + j0];
                            const float t4 = float(1.0) - v_sigmoid_2[i * v_sigmoid_2_ld + j0];
                            const float t5 = t3 * t4;
                            const float t6 = t5 * v_sigmoid_2[i * v_sigmoid_2_ld + j0];
                            v_sigmoid_backward[i * v_sigmoid_backward_ld + j0] = t6;
                            const float t7 = -t2;
                            const float t8 = t1 + t7;
                            const float t9 = -v_n[i * v_n_ld + j0];
                            const float t10 = fused(t9, v_n[i * v_n_ld + j0], float(1.0));
                            const float t11 = t8 * t10;
                            v_tanh_backward[i * v_tanh_backward_ld + j0] = t11;
                        }
                    }
                    meeting.wait(team);
                    product(rows, v_tanh_backward, v_tanh_backward_ld, weight_0, nullptr, v_mm_3, v_mm_3_ld);
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t12 = v_mm_3[i * v_mm_3_ld + j0 + 6] * v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            const float t13 = v_mul_3[i * v_mul_3_ld + j0] + t12;
                            v_add_7[i * v_add_7_ld + j0] = t13;
                            const float t14 = v_mm_3[i * v_mm_3_ld + j0 + 6] * v_gather_h_1[i * v_gather_h_1_ld + j0];
                            const float t15 = float(1.0) - v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            const float t16 = t14 * t15;
                            const float t17 = t16 * v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            v_sigmoid_backward_1[i * v_sigmoid_backward_1_ld + j0] = t17;
                            const float t18 = v_mm_3[i * v_mm_3_ld + j0] * v_sigmoid[i * v_sigmoid_ld + j0];
                            const float t19 = v_mul_3[i * v_mul_3_ld + j0] + t18;
                            v_add_8[i * v_add_8_ld + j0] = t19;
                            const float t20 = v_mm_3[i * v_mm_3_ld + j0] * v_gather_h_0[i * v_gather_h_0_ld + j0];
                            const float t21 = float(1.0) - v_sigmoid[i * v_sigmoid_ld + j0];
                            const float t22 = t20 * t21;
                            const float t23 = t22 * v_sigmoid[i * v_sigmoid_ld + j0];
                            v_sigmoid_backward_2[i * v_sigmoid_backward_2_ld + j0] = t23;
                            v_cat_2[i * v_cat_2_ld + j0] = v_sigmoid_backward[i * v_sigmoid_backward_ld + j0];
                            v_cat_2[i * v_cat_2_ld + j0 + 6] = t23;
                            v_cat_2[i * v_cat_2_ld + j0 + 12] = t17;
                        }
                    }
                    meeting.wait(team);
                    product(rows, v_cat_2, v_cat_2_ld, weight_1, nullptr, v_mm_5, v_mm_5_ld);
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t24 = v_add_8[i * v_add_8_ld + j0] + v_mm_5[i * v_mm_5_ld + j0];
                            v_add_10[i * v_add_10_ld + j0] = t24;
                            const float t25 = v_add_7[i * v_add_7_ld + j0] + v_mm_5[i * v_mm_5_ld + j0 + 6];
                            v_add_11[i * v_add_11_ld + j0] = t25;
                        }
                    }
                    meeting.wait(team);
                } else {
                    T* v_grad_scatter_h = received_h;
                    constexpr Long v_grad_scatter_h_ld = 6;
                    if (placed_sent_h && !placed_offset && !listed_sent_h && !outside_h && read_at >= 0)
                        v_grad_scatter_h = const_cast<T*>(placed_sent_h) + read_at * 6;
                    else receive(Parents<T>{placed_sent_h, placed_places, placed_offset}, Parents<T>{listed_sent_h, listed_places_h, listed_offset}, outside_h, group_start + start, rows, 6, v_grad_scatter_h);
                    const Long v_grad_push_h_ld = ld_grad_push_h;
                    T* const v_grad_push_h = p_grad_push_h + start * v_grad_push_h_ld;
                    constexpr Long v_sigmoid_ld = 6;
                    T* const v_sigmoid = p_sigmoid + start * v_sigmoid_ld;
                    constexpr Long v_sigmoid_1_ld = 6;
                    T* const v_sigmoid_1 = p_sigmoid_1 + start * v_sigmoid_1_ld;
                    constexpr Long v_n_ld = 6;
                    T* const v_n = p_tanh + start * v_n_ld;
                    constexpr Long v_sigmoid_2_ld = 6;
                    T* const v_sigmoid_2 = p_sigmoid_2 + start * v_sigmoid_2_ld;
                    constexpr Long v_sub_ld = 6;
                    T* const v_sub = p_sub + start * v_sub_ld;
                    constexpr Long v_sigmoid_backward_ld = 6;
                    T* const v_sigmoid_backward = p_sigmoid_backward + start * v_sigmoid_backward_ld;
                    constexpr Long v_tanh_backward_ld = 6;
                    T* const v_tanh_backward = p_tanh_backward + start * v_tanh_backward_ld;
                    constexpr Long v_sigmoid_backward_1_ld = 6;
                    T* const v_sigmoid_backward_1 = p_sigmoid_backward_1 + start * v_sigmoid_backward_1_ld;
                    constexpr Long v_sigmoid_backward_2_ld = 6;
                    T* const v_sigmoid_backward_2 = p_sigmoid_backward_2 + start * v_sigmoid_backward_2_ld;
                    T* const v_mm_3 = scratch_6;
                    constexpr Long v_mm_3_ld = 12;
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t1 = v_grad_scatter_h[i * v_grad_scatter_h_ld + j0] + v_grad_push_h[i * v_grad_push_h_ld + j0];
                            const float t2 = t1 * v_sub[i * v_sub_ld + j0];
                            const float t3 = float(1.0) - v_sigmoid_2[i * v_sigmoid_2_ld + j0];
                            const float t4 = t2 * t3;
                            const float t5 = t4 * v_sigmoid_2[i * v_sigmoid_2_ld + j0];
                            v_sigmoid_backward[i * v_sigmoid_backward_ld + j0] = t5;
                            const float t6 = t1 * v_sigmoid_2[i * v_sigmoid_2_ld + j0];
                            const float t7 = -t6;
                            const float t8 = t1 + t7;
                            const float t9 = -v_n[i * v_n_ld + j0];
                            const float t10 = fused(t9, v_n[i * v_n_ld + j0], float(1.0));
                            const float t11 = t8 * t10;
                            v_tanh_backward[i * v_tanh_backward_ld + j0] = t11;
                        }
                    }
                    meeting.wait(team);
                    product(rows, v_tanh_backward, v_tanh_backward_ld, weight_0, nullptr, v_mm_3, v_mm_3_ld);
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t12 = v_mm_3[i * v_mm_3_ld + j0 + 6] * float(0.0);
                            const float t13 = float(1.0) - v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            const float t14 = t12 * t13;
                            const float t15 = t14 * v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            v_sigmoid_backward_1[i * v_sigmoid_backward_1_ld + j0] = t15;
                            const float t16 = v_mm_3[i * v_mm_3_ld + j0] * float(0.0);
                            const float t17 = float(1.0) - v_sigmoid[i * v_sigmoid_ld + j0];
                            const float t18 = t16 * t17;
                            const float t19 = t18 * v_sigmoid[i * v_sigmoid_ld + j0];
                            v_sigmoid_backward_2[i * v_sigmoid_backward_2_ld + j0] = t19;
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
    T* const p_pull_x = (T* const)a[5];
    const T* const p_params_1 = (T* const)a[6];
    T* const p_cat_1 = (T* const)a[7];
    T* const p_sigmoid_backward = (T* const)a[8];
    T* const p_tanh_backward = (T* const)a[9];
    T* const p_sigmoid_backward_1 = (T* const)a[10];
    T* const p_sigmoid_backward_2 = (T* const)a[11];
    T* const p_mm_2 = (T* const)a[12];
    T* const p_mm_6 = (T* const)a[13];
    T* const p_mm_7 = (T* const)a[14];
    T* const p_view = (T* const)a[15];
    T* const scratch_1 = (T* const)a[16];
    const bool adds = (bool)a[17];
    const Long num_computed = (Long)a[18];
    Long& packed = a[19];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[20];
    const Weight weight_0 = {p_params_1, packs ? room_0 : nullptr, false, 6, 18};
    if (must_pack)
#pragma omp parallel if (108 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
    }
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 36, serial_once);
        for (last = first + 1; last < steps + count && pays_threads(*last, 36, serial_once) == pays;) ++last;
        Meeting meeting(company);
#pragma omp parallel if (pays) num_threads(threads_in(company))
        {
            const int team = omp_get_num_threads();
            for (const Step* at = first; at < last; ++at) {
                const Step& step = *at;
                const Long start = step.start, first_of_edges = step.edge_start, rows = step.stop - start;
                [[maybe_unused]] const Long edges = step.edge_stop - first_of_edges;
                [[maybe_unused]] const Long reads_from = step.reads_from, read_at = step.read_at;
                constexpr Long v_pull_x_ld = 6;
                T* const v_pull_x = p_pull_x + start * v_pull_x_ld;
                constexpr Long v_cat_1_ld = 12;
                T* const v_cat_1 = p_cat_1 + start * v_cat_1_ld;
                constexpr Long v_sigmoid_backward_ld = 6;
                T* const v_sigmoid_backward = p_sigmoid_backward + start * v_sigmoid_backward_ld;
                constexpr Long v_tanh_backward_ld = 6;
                T* const v_tanh_backward = p_tanh_backward + start * v_tanh_backward_ld;
                constexpr Long v_sigmoid_backward_1_ld = 6;
                T* const v_sigmoid_backward_1 = p_sigmoid_backward_1 + start * v_sigmoid_backward_1_ld;
                constexpr Long v_sigmoid_backward_2_ld = 6;
                T* const v_sigmoid_backward_2 = p_sigmoid_backward_2 + start * v_sigmoid_backward_2_ld;
                constexpr Long v_mm_6_ld = 6;
                T* const v_mm_6 = p_mm_6 + start * v_mm_6_ld;
                T* const v_cat_3 = scratch_1;
                constexpr Long v_cat_3_ld = 18;
                #pragma omp for schedule(static) nowait
                for (Long i = 0; i < rows; ++i) {
                    #pragma omp simd
                    for (Long j0 = 0; j0 < 6; ++j0) {
                        v_cat_3[i * v_cat_3_ld + j0] = v_sigmoid_backward[i * v_sigmoid_backward_ld + j0];
                        const float t1 = v_sigmoid_backward_1[i * v_sigmoid_backward_1_ld + j0] + v_sigmoid_backward_2[i * v_sigmoid_backward_2_ld + j0];
                        v_cat_3[i * v_cat_3_ld + j0 + 6] = t1;
                        v_cat_3[i * v_cat_3_ld + j0 + 12] = v_tanh_backward[i * v_tanh_backward_ld + j0];
                    }
                }
                meeting.wait(team);
                product(rows, v_cat_3, v_cat_3_ld, weight_0, nullptr, v_mm_6, v_mm_6_ld);
                outer(rows, v_tanh_backward, v_tanh_backward_ld, 6, v_cat_1, v_cat_1_ld, 12, p_mm_2, adds);
                outer(rows, v_cat_3, v_cat_3_ld, 18, v_pull_x, v_pull_x_ld, 6, p_mm_7, adds);
                #pragma omp for schedule(static) nowait
                for (Long first = 0; first < 18; first += 64) {
                    const Long last = std::min<Long>(first + 64, 18);
                    float sum[64] = {};
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j = first; j < last; ++j) {
                            sum[j - first] += v_cat_3[i * v_cat_3_ld + j];
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

extern "C" void grad_lazy_inner(Long* a, const Step* steps, Long count) {
    const Product product = (Product)a[0];
    const Outer outer = (Outer)a[1];
    const Pack pack = (Pack)a[2];
    Company* const company = (Company* const)a[3];
    const Long num_leaves = (Long)a[4];
    T* const p_cat = (T* const)a[5];
    T* const p_cat_2 = (T* const)a[6];
    T* const p_mm_4 = (T* const)a[7];
    const bool adds = (bool)a[8];
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 13, serial_once);
        for (last = first + 1; last < steps + count && pays_threads(*last, 13, serial_once) == pays;) ++last;
        Meeting meeting(company);
#pragma omp parallel if (pays) num_threads(threads_in(company))
        {
            const int team = omp_get_num_threads();
            for (const Step* at = first; at < last; ++at) {
                const Step& step = *at;
                const Long start = step.start, first_of_edges = step.edge_start, rows = step.stop - start;
                [[maybe_unused]] const Long edges = step.edge_stop - first_of_edges;
                [[maybe_unused]] const Long reads_from = step.reads_from, read_at = step.read_at;
                constexpr Long v_cat_ld = 12;
                T* const v_cat = p_cat + (start - num_leaves) * v_cat_ld;
                constexpr Long v_cat_2_ld = 18;
                T* const v_cat_2 = p_cat_2 + (start - num_leaves) * v_cat_2_ld;
                outer(rows, v_cat_2, v_cat_2_ld, 18, v_cat, v_cat_ld, 12, p_mm_4, adds);
                meeting.wait(team);
            }
            if (team > 1) meeting.ends();
        }
    }
}
