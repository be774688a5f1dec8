// ChildSumTreeLSTM, method vertex

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
    const Weight weight_0 = {p_params_1, packs ? room_0 : nullptr, true, 24, 6};
    if (must_pack)
#pragma omp parallel if (144 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
    }
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 9, serial_once);
        for (last = first + 1; last < steps + count && pays_threads(*last, 9, serial_once) == pays;) ++last;
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
                constexpr Long v_addmm_ld = 24;
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
    const Index* const edge_rows = (Index* const)a[6];
    T* const listed_h = (T* const)a[7];
    const T* const state_c = (T* const)a[8];
    T* const listed_c = (T* const)a[9];
    const T* const p_params_3 = (T* const)a[10];
    const T* const p_params_4 = (T* const)a[11];
    T* const p_addmm = (T* const)a[12];
    T* const p_segment_sum = (T* const)a[13];
    T* const p_sigmoid = (T* const)a[14];
    T* const p_sigmoid_1 = (T* const)a[15];
    T* const p_tanh = (T* const)a[16];
    T* const p_add_3 = (T* const)a[17];
    T* const p_sigmoid_2 = (T* const)a[18];
    T* const p_mul_2 = (T* const)a[19];
    T* const scratch_1 = (T* const)a[20];
    T* const scratch_2 = (T* const)a[21];
    T* const scratch_3 = (T* const)a[22];
    const Long num_computed = (Long)a[23];
    Long& packed = a[24];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[25];
    const Weight weight_0 = {p_params_4, packs ? room_0 : nullptr, true, 6, 6};
    T* const room_1 = (T* const)a[26];
    const Weight weight_1 = {p_params_3, packs ? room_1 : nullptr, true, 18, 6};
    const Index* const owner_of = (Index* const)a[27];
    const Index* const edge_offset = (Index* const)a[28];
    if (must_pack)
#pragma omp parallel if (144 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
        pack(weight_1);
    }
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 45, serial);
        for (last = first + 1; last < steps + count && pays_threads(*last, 45, serial) == pays;) ++last;
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
                    T* const v_kids_h = listed_h + first_of_edges * 6;
                    constexpr Long v_kids_h_ld = 6;
                    gather(state_h, edge_rows + first_of_edges, edges, 1, 6, v_kids_h);
                    T* const v_kids_c = listed_c + first_of_edges * 6;
                    constexpr Long v_kids_c_ld = 6;
                    gather(state_c, edge_rows + first_of_edges, edges, 1, 6, v_kids_c);
                    constexpr Long v_addmm_ld = 24;
                    T* const v_addmm = p_addmm + start * v_addmm_ld;
                    constexpr Long v_segment_sum_ld = 6;
                    T* const v_segment_sum = p_segment_sum + (start - num_leaves) * v_segment_sum_ld;
                    constexpr Long v_forget_ld = 6;
                    T* const v_forget = p_sigmoid + first_of_edges * v_forget_ld;
                    constexpr Long v_sigmoid_1_ld = 6;
                    T* const v_sigmoid_1 = p_sigmoid_1 + start * v_sigmoid_1_ld;
                    constexpr Long v_tanh_ld = 6;
                    T* const v_tanh = p_tanh + start * v_tanh_ld;
                    constexpr Long v_c_ld = 6;
                    T* const v_c = p_add_3 + start * v_c_ld;
                    constexpr Long v_sigmoid_2_ld = 6;
                    T* const v_sigmoid_2 = p_sigmoid_2 + start * v_sigmoid_2_ld;
                    constexpr Long v_h_ld = 6;
                    T* const v_h = p_mul_2 + start * v_h_ld;
                    T* const v_mm = scratch_1;
                    constexpr Long v_mm_ld = 18;
                    T* const v_mm_1 = scratch_2;
                    constexpr Long v_mm_1_ld = 6;
                    T* const v_segment_sum_1 = scratch_3;
                    constexpr Long v_segment_sum_1_ld = 6;
                    const Index* const owner = owner_of + first_of_edges;
                    const Index* const first_edge = edge_offset + (start - num_leaves);
                    const Long without = std::max<Long>(num_leaves - start, 0);  // rows without edges come first
                    meeting.wait(team);
                    product(edges, v_kids_h, v_kids_h_ld, weight_0, nullptr, v_mm_1, v_mm_1_ld);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        const Long from = i < without ? 0 : first_edge[i] - first_edge[without];
                        const Long to = i < without ? 0 : first_edge[i + 1] - first_edge[without];
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            v_segment_sum[i * v_segment_sum_ld + j0] = float(0.0);
                        }
                        for (Long e = from; e < to; ++e) {
                            #pragma omp simd
                            for (Long j0 = 0; j0 < 6; ++j0) {
                                v_segment_sum[i * v_segment_sum_ld + j0] = v_segment_sum[i * v_segment_sum_ld + j0] + v_kids_h[e * v_kids_h_ld + j0];
                            }
                        }
                    }
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < edges; ++i) {
                        const Long row1 = (owner[i] - start);
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t2 = v_addmm[row1 * v_addmm_ld + j0 + 18] + v_mm_1[i * v_mm_1_ld + j0];
                            const float t3 = sigmoid(t2);
                            v_forget[i * v_forget_ld + j0] = t3;
                        }
                    }
                    product(rows, v_segment_sum, v_segment_sum_ld, weight_1, nullptr, v_mm, v_mm_ld);
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        const Long from = i < without ? 0 : first_edge[i] - first_edge[without];
                        const Long to = i < without ? 0 : first_edge[i + 1] - first_edge[without];
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            v_segment_sum_1[i * v_segment_sum_1_ld + j0] = float(0.0);
                        }
                        for (Long e = from; e < to; ++e) {
                            #pragma omp simd
                            for (Long j0 = 0; j0 < 6; ++j0) {
                                const float t4 = v_forget[e * v_forget_ld + j0] * v_kids_c[e * v_kids_c_ld + j0];
                                v_segment_sum_1[i * v_segment_sum_1_ld + j0] = v_segment_sum_1[i * v_segment_sum_1_ld + j0] + t4;
                            }
                        }
                    }
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t5 = v_addmm[i * v_addmm_ld + j0] + v_mm[i * v_mm_ld + j0];
                            const float t6 = sigmoid(t5);
                            v_sigmoid_1[i * v_sigmoid_1_ld + j0] = t6;
                            const float t7 = v_addmm[i * v_addmm_ld + j0 + 12] + v_mm[i * v_mm_ld + j0 + 12];
                            const float t8 = tanh_of(t7);
                            v_tanh[i * v_tanh_ld + j0] = t8;
                            const float t9 = t6 * t8;
                            const float t10 = t9 + v_segment_sum_1[i * v_segment_sum_1_ld + j0];
                            v_c[i * v_c_ld + j0] = t10;
                            const float t11 = v_addmm[i * v_addmm_ld + j0 + 6] + v_mm[i * v_mm_ld + j0 + 6];
                            const float t12 = sigmoid(t11);
                            v_sigmoid_2[i * v_sigmoid_2_ld + j0] = t12;
                            const float t13 = tanh_of(t10);
                            const float t14 = t12 * t13;
                            v_h[i * v_h_ld + j0] = t14;
                        }
                    }
                    meeting.wait(team);
                } else {
                    constexpr Long v_addmm_ld = 24;
                    T* const v_addmm = p_addmm + start * v_addmm_ld;
                    constexpr Long v_sigmoid_1_ld = 6;
                    T* const v_sigmoid_1 = p_sigmoid_1 + start * v_sigmoid_1_ld;
                    constexpr Long v_tanh_ld = 6;
                    T* const v_tanh = p_tanh + start * v_tanh_ld;
                    constexpr Long v_c_ld = 6;
                    T* const v_c = p_add_3 + start * v_c_ld;
                    constexpr Long v_sigmoid_2_ld = 6;
                    T* const v_sigmoid_2 = p_sigmoid_2 + start * v_sigmoid_2_ld;
                    constexpr Long v_h_ld = 6;
                    T* const v_h = p_mul_2 + start * v_h_ld;
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t1 = sigmoid(v_addmm[i * v_addmm_ld + j0]);
                            v_sigmoid_1[i * v_sigmoid_1_ld + j0] = t1;
                            const float t2 = tanh_of(v_addmm[i * v_addmm_ld + j0 + 12]);
                            v_tanh[i * v_tanh_ld + j0] = t2;
                            const float t3 = t1 * t2;
                            v_c[i * v_c_ld + j0] = t3;
                            const float t4 = sigmoid(v_addmm[i * v_addmm_ld + j0 + 6]);
                            v_sigmoid_2[i * v_sigmoid_2_ld + j0] = t4;
                            const float t5 = tanh_of(t3);
                            const float t6 = t4 * t5;
                            v_h[i * v_h_ld + j0] = t6;
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
    T* const p_gather_c_children = (T* const)a[5];
    T* const received_h = (T* const)a[6];
    const Long group_start = (Long)a[7];
    const T* const outside_h = (T* const)a[8];
    const T* const placed_sent_h = (T* const)a[9];
    const Index* const placed_places = (Index* const)a[10];
    const Index* const placed_offset = (Index* const)a[11];
    const T* const listed_sent_h = (T* const)a[12];
    const Index* const listed_places_h = (Index* const)a[13];
    const Index* const listed_offset = (Index* const)a[14];
    T* const received_c = (T* const)a[15];
    const T* const outside_c = (T* const)a[16];
    const T* const placed_sent_c = (T* const)a[17];
    const T* const listed_sent_c = (T* const)a[18];
    const Index* const listed_places_c = (Index* const)a[19];
    T* const p_grad_push_h = (T* const)a[20];
    const Long ld_grad_push_h = (Long)a[21];
    const T* const p_params_3 = (T* const)a[22];
    const T* const p_params_4 = (T* const)a[23];
    T* const p_sigmoid = (T* const)a[24];
    T* const p_sigmoid_1 = (T* const)a[25];
    T* const p_tanh = (T* const)a[26];
    T* const p_add_3 = (T* const)a[27];
    T* const p_sigmoid_2 = (T* const)a[28];
    T* const p_sigmoid_backward = (T* const)a[29];
    float* const send_edges_c = (float* const)a[30];
    T* const p_tanh_backward_1 = (T* const)a[31];
    T* const p_sigmoid_backward_1 = (T* const)a[32];
    T* const p_sigmoid_backward_2 = (T* const)a[33];
    T* const p_cat = (T* const)a[34];
    float* const send_edges_h = (float* const)a[35];
    T* const scratch_1 = (T* const)a[36];
    T* const scratch_2 = (T* const)a[37];
    T* const scratch_3 = (T* const)a[38];
    const Long num_computed = (Long)a[39];
    Long& packed = a[40];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[41];
    const Weight weight_0 = {p_params_3, packs ? room_0 : nullptr, false, 6, 18};
    T* const room_1 = (T* const)a[42];
    const Weight weight_1 = {p_params_4, packs ? room_1 : nullptr, false, 6, 6};
    const Index* const owner_of = (Index* const)a[43];
    if (must_pack)
#pragma omp parallel if (144 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
        pack(weight_1);
    }
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 69, serial);
        for (last = first + 1; last < steps + count && pays_threads(*last, 69, serial) == pays;) ++last;
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
                    constexpr Long v_kids_c_ld = 6;
                    T* const v_kids_c = p_gather_c_children + first_of_edges * v_kids_c_ld;
                    T* v_grad_scatter_h = received_h;
                    constexpr Long v_grad_scatter_h_ld = 6;
                    if (placed_sent_h && !placed_offset && !listed_sent_h && !outside_h && read_at >= 0)
                        v_grad_scatter_h = const_cast<T*>(placed_sent_h) + read_at * 6;
                    else receive(Parents<T>{placed_sent_h, placed_places, placed_offset}, Parents<T>{listed_sent_h, listed_places_h, listed_offset}, outside_h, group_start + start, rows, 6, v_grad_scatter_h);
                    T* v_grad_scatter_c = received_c;
                    constexpr Long v_grad_scatter_c_ld = 6;
                    if (placed_sent_c && !placed_offset && !listed_sent_c && !outside_c && read_at >= 0)
                        v_grad_scatter_c = const_cast<T*>(placed_sent_c) + read_at * 6;
                    else receive(Parents<T>{placed_sent_c, placed_places, placed_offset}, Parents<T>{listed_sent_c, listed_places_c, listed_offset}, outside_c, group_start + start, rows, 6, v_grad_scatter_c);
                    const Long v_grad_push_h_ld = ld_grad_push_h;
                    T* const v_grad_push_h = p_grad_push_h + start * v_grad_push_h_ld;
                    constexpr Long v_forget_ld = 6;
                    T* const v_forget = p_sigmoid + first_of_edges * v_forget_ld;
                    constexpr Long v_sigmoid_1_ld = 6;
                    T* const v_sigmoid_1 = p_sigmoid_1 + start * v_sigmoid_1_ld;
                    constexpr Long v_tanh_ld = 6;
                    T* const v_tanh = p_tanh + start * v_tanh_ld;
                    constexpr Long v_c_ld = 6;
                    T* const v_c = p_add_3 + start * v_c_ld;
                    constexpr Long v_sigmoid_2_ld = 6;
                    T* const v_sigmoid_2 = p_sigmoid_2 + start * v_sigmoid_2_ld;
                    constexpr Long v_sigmoid_backward_ld = 6;
                    T* const v_sigmoid_backward = p_sigmoid_backward + start * v_sigmoid_backward_ld;
                    float* const v_mul_5 = send_edges_c + first_of_edges * 6;
                    constexpr Long v_mul_5_ld = 6;
                    constexpr Long v_tanh_backward_1_ld = 6;
                    T* const v_tanh_backward_1 = p_tanh_backward_1 + start * v_tanh_backward_1_ld;
                    constexpr Long v_sigmoid_backward_1_ld = 6;
                    T* const v_sigmoid_backward_1 = p_sigmoid_backward_1 + start * v_sigmoid_backward_1_ld;
                    constexpr Long v_sigmoid_backward_2_ld = 6;
                    T* const v_sigmoid_backward_2 = p_sigmoid_backward_2 + first_of_edges * v_sigmoid_backward_2_ld;
                    constexpr Long v_cat_ld = 18;
                    T* const v_cat = p_cat + (start - num_leaves) * v_cat_ld;
                    float* const v_add_7 = send_edges_h + first_of_edges * 6;
                    constexpr Long v_add_7_ld = 6;
                    T* const v_add_6 = scratch_1;
                    constexpr Long v_add_6_ld = 6;
                    T* const v_mm_3 = scratch_2;
                    constexpr Long v_mm_3_ld = 6;
                    T* const v_mm_5 = scratch_3;
                    constexpr Long v_mm_5_ld = 6;
                    const Index* const owner = owner_of + first_of_edges;
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t1 = v_grad_scatter_h[i * v_grad_scatter_h_ld + j0] + v_grad_push_h[i * v_grad_push_h_ld + j0];
                            const float t2 = t1 * v_sigmoid_2[i * v_sigmoid_2_ld + j0];
                            const float t3 = tanh_of(v_c[i * v_c_ld + j0]);
                            const float t4 = -t3;
                            const float t5 = fused(t4, t3, float(1.0));
                            const float t6 = t2 * t5;
                            const float t7 = v_grad_scatter_c[i * v_grad_scatter_c_ld + j0] + t6;
                            v_add_6[i * v_add_6_ld + j0] = t7;
                            const float t8 = t1 * t3;
                            const float t9 = float(1.0) - v_sigmoid_2[i * v_sigmoid_2_ld + j0];
                            const float t10 = t8 * t9;
                            const float t11 = t10 * v_sigmoid_2[i * v_sigmoid_2_ld + j0];
                            v_sigmoid_backward[i * v_sigmoid_backward_ld + j0] = t11;
                            const float t12 = t7 * v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            const float t13 = -v_tanh[i * v_tanh_ld + j0];
                            const float t14 = fused(t13, v_tanh[i * v_tanh_ld + j0], float(1.0));
                            const float t15 = t12 * t14;
                            v_tanh_backward_1[i * v_tanh_backward_1_ld + j0] = t15;
                            const float t16 = t7 * v_tanh[i * v_tanh_ld + j0];
                            const float t17 = float(1.0) - v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            const float t18 = t16 * t17;
                            const float t19 = t18 * v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            v_sigmoid_backward_1[i * v_sigmoid_backward_1_ld + j0] = t19;
                            v_cat[i * v_cat_ld + j0] = t19;
                            v_cat[i * v_cat_ld + j0 + 6] = t11;
                            v_cat[i * v_cat_ld + j0 + 12] = t15;
                        }
                    }
                    meeting.wait(team);
                    product(rows, v_cat, v_cat_ld, weight_0, nullptr, v_mm_5, v_mm_5_ld);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < edges; ++i) {
                        const Long row20 = (owner[i] - start);
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t21 = v_add_6[row20 * v_add_6_ld + j0] * v_forget[i * v_forget_ld + j0];
                            v_mul_5[i * v_mul_5_ld + j0] = t21;
                            const float t22 = v_add_6[row20 * v_add_6_ld + j0] * v_kids_c[i * v_kids_c_ld + j0];
                            const float t23 = float(1.0) - v_forget[i * v_forget_ld + j0];
                            const float t24 = t22 * t23;
                            const float t25 = t24 * v_forget[i * v_forget_ld + j0];
                            v_sigmoid_backward_2[i * v_sigmoid_backward_2_ld + j0] = t25;
                        }
                    }
                    meeting.wait(team);
                    product(edges, v_sigmoid_backward_2, v_sigmoid_backward_2_ld, weight_1, nullptr, v_mm_3, v_mm_3_ld);
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < edges; ++i) {
                        const Long row26 = (owner[i] - start);
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t27 = v_mm_3[i * v_mm_3_ld + j0] + v_mm_5[row26 * v_mm_5_ld + j0];
                            v_add_7[i * v_add_7_ld + j0] = t27;
                        }
                    }
                    meeting.wait(team);
                } else {
                    T* v_grad_scatter_h = received_h;
                    constexpr Long v_grad_scatter_h_ld = 6;
                    if (placed_sent_h && !placed_offset && !listed_sent_h && !outside_h && read_at >= 0)
                        v_grad_scatter_h = const_cast<T*>(placed_sent_h) + read_at * 6;
                    else receive(Parents<T>{placed_sent_h, placed_places, placed_offset}, Parents<T>{listed_sent_h, listed_places_h, listed_offset}, outside_h, group_start + start, rows, 6, v_grad_scatter_h);
                    T* v_grad_scatter_c = received_c;
                    constexpr Long v_grad_scatter_c_ld = 6;
                    if (placed_sent_c && !placed_offset && !listed_sent_c && !outside_c && read_at >= 0)
                        v_grad_scatter_c = const_cast<T*>(placed_sent_c) + read_at * 6;
                    else receive(Parents<T>{placed_sent_c, placed_places, placed_offset}, Parents<T>{listed_sent_c, listed_places_c, listed_offset}, outside_c, group_start + start, rows, 6, v_grad_scatter_c);
                    const Long v_grad_push_h_ld = ld_grad_push_h;
                    T* const v_grad_push_h = p_grad_push_h + start * v_grad_push_h_ld;
                    constexpr Long v_sigmoid_1_ld = 6;
                    T* const v_sigmoid_1 = p_sigmoid_1 + start * v_sigmoid_1_ld;
                    constexpr Long v_tanh_ld = 6;
                    T* const v_tanh = p_tanh + start * v_tanh_ld;
                    constexpr Long v_c_ld = 6;
                    T* const v_c = p_add_3 + start * v_c_ld;
                    constexpr Long v_sigmoid_2_ld = 6;
                    T* const v_sigmoid_2 = p_sigmoid_2 + start * v_sigmoid_2_ld;
                    constexpr Long v_sigmoid_backward_ld = 6;
                    T* const v_sigmoid_backward = p_sigmoid_backward + start * v_sigmoid_backward_ld;
                    constexpr Long v_tanh_backward_1_ld = 6;
                    T* const v_tanh_backward_1 = p_tanh_backward_1 + start * v_tanh_backward_1_ld;
                    constexpr Long v_sigmoid_backward_1_ld = 6;
                    T* const v_sigmoid_backward_1 = p_sigmoid_backward_1 + start * v_sigmoid_backward_1_ld;
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t1 = v_grad_scatter_h[i * v_grad_scatter_h_ld + j0] + v_grad_push_h[i * v_grad_push_h_ld + j0];
                            const float t2 = tanh_of(v_c[i * v_c_ld + j0]);
                            const float t3 = t1 * t2;
                            const float t4 = float(1.0) - v_sigmoid_2[i * v_sigmoid_2_ld + j0];
                            const float t5 = t3 * t4;
                            const float t6 = t5 * v_sigmoid_2[i * v_sigmoid_2_ld + j0];
                            v_sigmoid_backward[i * v_sigmoid_backward_ld + j0] = t6;
                            const float t7 = t1 * v_sigmoid_2[i * v_sigmoid_2_ld + j0];
                            const float t8 = -t2;
                            const float t9 = fused(t8, t2, float(1.0));
                            const float t10 = t7 * t9;
                            const float t11 = v_grad_scatter_c[i * v_grad_scatter_c_ld + j0] + t10;
                            const float t12 = t11 * v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            const float t13 = -v_tanh[i * v_tanh_ld + j0];
                            const float t14 = fused(t13, v_tanh[i * v_tanh_ld + j0], float(1.0));
                            const float t15 = t12 * t14;
                            v_tanh_backward_1[i * v_tanh_backward_1_ld + j0] = t15;
                            const float t16 = t11 * v_tanh[i * v_tanh_ld + j0];
                            const float t17 = float(1.0) - v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            const float t18 = t16 * t17;
                            const float t19 = t18 * v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            v_sigmoid_backward_1[i * v_sigmoid_backward_1_ld + j0] = t19;
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
    T* const p_sigmoid_backward = (T* const)a[7];
    T* const p_tanh_backward_1 = (T* const)a[8];
    T* const p_sigmoid_backward_1 = (T* const)a[9];
    T* const p_sigmoid_backward_2 = (T* const)a[10];
    T* const p_mm_6 = (T* const)a[11];
    T* const p_mm_7 = (T* const)a[12];
    T* const p_view = (T* const)a[13];
    T* const scratch_1 = (T* const)a[14];
    T* const scratch_2 = (T* const)a[15];
    const bool adds = (bool)a[16];
    const Long num_computed = (Long)a[17];
    Long& packed = a[18];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[19];
    const Weight weight_0 = {p_params_1, packs ? room_0 : nullptr, false, 6, 24};
    const Index* const edge_offset = (Index* const)a[20];
    if (must_pack)
#pragma omp parallel if (144 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
    }
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
                constexpr Long v_pull_x_ld = 6;
                T* const v_pull_x = p_pull_x + start * v_pull_x_ld;
                constexpr Long v_sigmoid_backward_ld = 6;
                T* const v_sigmoid_backward = p_sigmoid_backward + start * v_sigmoid_backward_ld;
                constexpr Long v_tanh_backward_1_ld = 6;
                T* const v_tanh_backward_1 = p_tanh_backward_1 + start * v_tanh_backward_1_ld;
                constexpr Long v_sigmoid_backward_1_ld = 6;
                T* const v_sigmoid_backward_1 = p_sigmoid_backward_1 + start * v_sigmoid_backward_1_ld;
                constexpr Long v_sigmoid_backward_2_ld = 6;
                T* const v_sigmoid_backward_2 = p_sigmoid_backward_2 + first_of_edges * v_sigmoid_backward_2_ld;
                constexpr Long v_mm_6_ld = 6;
                T* const v_mm_6 = p_mm_6 + start * v_mm_6_ld;
                T* const v_segment_sum_2 = scratch_1;
                constexpr Long v_segment_sum_2_ld = 6;
                T* const v_cat_1 = scratch_2;
                constexpr Long v_cat_1_ld = 24;
                const Index* const first_edge = edge_offset + (start - num_leaves);
                const Long without = std::max<Long>(num_leaves - start, 0);  // rows without edges come first
                #pragma omp for schedule(static) nowait
                for (Long i = 0; i < rows; ++i) {
                    const Long from = i < without ? 0 : first_edge[i] - first_edge[without];
                    const Long to = i < without ? 0 : first_edge[i + 1] - first_edge[without];
                    #pragma omp simd
                    for (Long j0 = 0; j0 < 6; ++j0) {
                        v_segment_sum_2[i * v_segment_sum_2_ld + j0] = float(0.0);
                    }
                    for (Long e = from; e < to; ++e) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            v_segment_sum_2[i * v_segment_sum_2_ld + j0] = v_segment_sum_2[i * v_segment_sum_2_ld + j0] + v_sigmoid_backward_2[e * v_sigmoid_backward_2_ld + j0];
                        }
                    }
                }
                #pragma omp for schedule(static) nowait
                for (Long i = 0; i < rows; ++i) {
                    #pragma omp simd
                    for (Long j0 = 0; j0 < 6; ++j0) {
                        v_cat_1[i * v_cat_1_ld + j0] = v_sigmoid_backward_1[i * v_sigmoid_backward_1_ld + j0];
                        v_cat_1[i * v_cat_1_ld + j0 + 6] = v_sigmoid_backward[i * v_sigmoid_backward_ld + j0];
                        v_cat_1[i * v_cat_1_ld + j0 + 12] = v_tanh_backward_1[i * v_tanh_backward_1_ld + j0];
                        v_cat_1[i * v_cat_1_ld + j0 + 18] = v_segment_sum_2[i * v_segment_sum_2_ld + j0];
                    }
                }
                meeting.wait(team);
                product(rows, v_cat_1, v_cat_1_ld, weight_0, nullptr, v_mm_6, v_mm_6_ld);
                outer(rows, v_cat_1, v_cat_1_ld, 24, v_pull_x, v_pull_x_ld, 6, p_mm_7, adds);
                #pragma omp for schedule(static) nowait
                for (Long first = 0; first < 24; first += 64) {
                    const Long last = std::min<Long>(first + 64, 24);
                    float sum[64] = {};
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j = first; j < last; ++j) {
                            sum[j - first] += v_cat_1[i * v_cat_1_ld + j];
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
    T* const p_gather_h_children = (T* const)a[5];
    T* const p_segment_sum = (T* const)a[6];
    T* const p_sigmoid_backward_2 = (T* const)a[7];
    T* const p_cat = (T* const)a[8];
    T* const p_mm_2 = (T* const)a[9];
    T* const p_mm_4 = (T* const)a[10];
    const bool adds = (bool)a[11];
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 9, serial_once);
        for (last = first + 1; last < steps + count && pays_threads(*last, 9, serial_once) == pays;) ++last;
        Meeting meeting(company);
#pragma omp parallel if (pays) num_threads(threads_in(company))
        {
            const int team = omp_get_num_threads();
            for (const Step* at = first; at < last; ++at) {
                const Step& step = *at;
                const Long start = step.start, first_of_edges = step.edge_start, rows = step.stop - start;
                [[maybe_unused]] const Long edges = step.edge_stop - first_of_edges;
                [[maybe_unused]] const Long reads_from = step.reads_from, read_at = step.read_at;
                constexpr Long v_kids_h_ld = 6;
                T* const v_kids_h = p_gather_h_children + first_of_edges * v_kids_h_ld;
                constexpr Long v_segment_sum_ld = 6;
                T* const v_segment_sum = p_segment_sum + (start - num_leaves) * v_segment_sum_ld;
                constexpr Long v_sigmoid_backward_2_ld = 6;
                T* const v_sigmoid_backward_2 = p_sigmoid_backward_2 + first_of_edges * v_sigmoid_backward_2_ld;
                constexpr Long v_cat_ld = 18;
                T* const v_cat = p_cat + (start - num_leaves) * v_cat_ld;
                outer(edges, v_sigmoid_backward_2, v_sigmoid_backward_2_ld, 6, v_kids_h, v_kids_h_ld, 6, p_mm_2, adds);
                outer(rows, v_cat, v_cat_ld, 18, v_segment_sum, v_segment_sum_ld, 6, p_mm_4, adds);
                meeting.wait(team);
            }
            if (team > 1) meeting.ends();
        }
    }
}
