// GGNN, method begin

extern "C" void eager(Long* a, const Step* steps, Long count) {
    const Product product = (Product)a[0];
    const Outer outer = (Outer)a[1];
    const Pack pack = (Pack)a[2];
    Company* const company = (Company* const)a[3];
    const Long num_leaves = (Long)a[4];
    T* const p_pull_x = (T* const)a[5];
    const T* const p_params_1 = (T* const)a[6];
    const T* const p_params_2 = (T* const)a[7];
    T* const p_clone_default = (T* const)a[8];
    T* const p_addmm = (T* const)a[9];
    const Long num_computed = (Long)a[10];
    Long& packed = a[11];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[12];
    const Weight weight_0 = {p_params_1, packs ? room_0 : nullptr, true, 6, 6};
    if (must_pack)
#pragma omp parallel if (36 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
    }
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 8, serial_once);
        for (last = first + 1; last < steps + count && pays_threads(*last, 8, serial_once) == pays;) ++last;
        Meeting meeting(company);
#pragma omp parallel if (pays) num_threads(threads_in(company))
        {
            const int team = omp_get_num_threads();
            for (const Step* at = first; at < last; ++at) {
                const Step& step = *at;
                const Long start = step.start, first_of_edges = step.edge_start, rows = step.stop - start;
                [[maybe_unused]] const Long edges = step.edge_stop - first_of_edges;
                [[maybe_unused]] const Long reads_from = step.reads_from, read_at = step.read_at;
                constexpr Long v_h_ld = 6;
                T* const v_h = p_pull_x + start * v_h_ld;
                constexpr Long v_clone_default_ld = 6;
                T* const v_clone_default = p_clone_default + start * v_clone_default_ld;
                constexpr Long v_message_ld = 6;
                T* const v_message = p_addmm + start * v_message_ld;
                #pragma omp for schedule(static) nowait
                for (Long i = 0; i < rows; ++i) {
                    #pragma omp simd
                    for (Long j0 = 0; j0 < 6; ++j0) {
                        v_clone_default[i * v_clone_default_ld + j0] = v_h[i * v_h_ld + j0];
                    }
                }
                product(rows, v_h, v_h_ld, weight_0, p_params_2, v_message, v_message_ld);
                meeting.wait(team);
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
    T* const p_grad_scatter_h = (T* const)a[6];
    T* const p_grad_scatter_message = (T* const)a[7];
    T* const p_grad_push_h = (T* const)a[8];
    const Long ld_grad_push_h = (Long)a[9];
    const T* const p_params_1 = (T* const)a[10];
    T* const p_mm_1 = (T* const)a[11];
    T* const p_add_1 = (T* const)a[12];
    T* const p_view = (T* const)a[13];
    T* const scratch_1 = (T* const)a[14];
    const bool adds = (bool)a[15];
    const Long num_computed = (Long)a[16];
    Long& packed = a[17];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[18];
    const Weight weight_0 = {p_params_1, packs ? room_0 : nullptr, false, 6, 6};
    if (must_pack)
#pragma omp parallel if (36 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
    }
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 10, serial_once);
        for (last = first + 1; last < steps + count && pays_threads(*last, 10, serial_once) == pays;) ++last;
        Meeting meeting(company);
#pragma omp parallel if (pays) num_threads(threads_in(company))
        {
            const int team = omp_get_num_threads();
            for (const Step* at = first; at < last; ++at) {
                const Step& step = *at;
                const Long start = step.start, first_of_edges = step.edge_start, rows = step.stop - start;
                [[maybe_unused]] const Long edges = step.edge_stop - first_of_edges;
                [[maybe_unused]] const Long reads_from = step.reads_from, read_at = step.read_at;
                constexpr Long v_h_ld = 6;
                T* const v_h = p_pull_x + start * v_h_ld;
                constexpr Long v_grad_scatter_h_ld = 6;
                T* const v_grad_scatter_h = p_grad_scatter_h + start * v_grad_scatter_h_ld;
                constexpr Long v_grad_scatter_message_ld = 6;
                T* const v_grad_scatter_message = p_grad_scatter_message + start * v_grad_scatter_message_ld;
                const Long v_grad_push_h_ld = ld_grad_push_h;
                T* const v_grad_push_h = p_grad_push_h + start * v_grad_push_h_ld;
                constexpr Long v_add_1_ld = 6;
                T* const v_add_1 = p_add_1 + start * v_add_1_ld;
                T* const v_mm = scratch_1;
                constexpr Long v_mm_ld = 6;
                product(rows, v_grad_scatter_message, v_grad_scatter_message_ld, weight_0, nullptr, v_mm, v_mm_ld);
                outer(rows, v_grad_scatter_message, v_grad_scatter_message_ld, 6, v_h, v_h_ld, 6, p_mm_1, adds);
                #pragma omp for schedule(static) nowait
                for (Long first = 0; first < 6; first += 64) {
                    const Long last = std::min<Long>(first + 64, 6);
                    float sum[64] = {};
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j = first; j < last; ++j) {
                            sum[j - first] += v_grad_scatter_message[i * v_grad_scatter_message_ld + j];
                        }
                    }
                    for (Long j = 0; adds && j < last - first; ++j) sum[j] += p_view[first + j];
                    std::copy(sum, sum + last - first, p_view + first);
                }
                meeting.wait(team);
                #pragma omp for schedule(static) nowait
                for (Long i = 0; i < rows; ++i) {
                    #pragma omp simd
                    for (Long j0 = 0; j0 < 6; ++j0) {
                        const float t1 = v_grad_scatter_h[i * v_grad_scatter_h_ld + j0] + v_grad_push_h[i * v_grad_push_h_ld + j0];
                        const float t2 = t1 + v_mm[i * v_mm_ld + j0];
                        v_add_1[i * v_add_1_ld + j0] = t2;
                    }
                }
                meeting.wait(team);
            }
            if (team > 1) meeting.ends();
        }
    }
}

// GGNN, method update

extern "C" void core(Long* a, const Step* steps, Long count) {
    const Product product = (Product)a[0];
    const Outer outer = (Outer)a[1];
    const Pack pack = (Pack)a[2];
    Company* const company = (Company* const)a[3];
    const Long num_leaves = (Long)a[4];
    const T* const state_h = (T* const)a[5];
    const Index* const child_rows = (Index* const)a[6];
    T* const gathered_h = (T* const)a[7];
    const T* const state_message = (T* const)a[8];
    T* const gathered_message = (T* const)a[9];
    const Index* const edge_rows = (Index* const)a[10];
    T* const listed_message = (T* const)a[11];
    const T* const p_params_1 = (T* const)a[12];
    const T* const p_params_2 = (T* const)a[13];
    const T* const p_params_3 = (T* const)a[14];
    const T* const p_params_4 = (T* const)a[15];
    const T* const p_params_5 = (T* const)a[16];
    const T* const p_params_6 = (T* const)a[17];
    T* const p_sub = (T* const)a[18];
    T* const p_sigmoid = (T* const)a[19];
    T* const p_sigmoid_1 = (T* const)a[20];
    T* const p_tanh = (T* const)a[21];
    T* const p_add_3 = (T* const)a[22];
    T* const p_addmm_1 = (T* const)a[23];
    T* const scratch_1 = (T* const)a[24];
    T* const scratch_2 = (T* const)a[25];
    T* const scratch_3 = (T* const)a[26];
    T* const scratch_4 = (T* const)a[27];
    T* const scratch_5 = (T* const)a[28];
    T* const scratch_6 = (T* const)a[29];
    const Long num_computed = (Long)a[30];
    Long& packed = a[31];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[32];
    const Weight weight_0 = {p_params_5, packs ? room_0 : nullptr, true, 12, 6};
    T* const room_1 = (T* const)a[33];
    const Weight weight_1 = {p_params_3, packs ? room_1 : nullptr, true, 18, 6};
    T* const room_2 = (T* const)a[34];
    const Weight weight_2 = {p_params_6, packs ? room_2 : nullptr, true, 6, 6};
    T* const room_3 = (T* const)a[35];
    const Weight weight_3 = {p_params_1, packs ? room_3 : nullptr, true, 6, 6};
    const Index* const edge_offset = (Index* const)a[36];
    T* const scratch_7 = (T* const)a[37];
    T* const scratch_8 = (T* const)a[38];
    T* const scratch_9 = (T* const)a[39];
    if (must_pack)
#pragma omp parallel if (252 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
        pack(weight_1);
        pack(weight_2);
        pack(weight_3);
    }
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 57, serial);
        for (last = first + 1; last < steps + count && pays_threads(*last, 57, serial) == pays;) ++last;
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
                    const T* const g_h = reads_from < 0 ? gathered_h + start * 6 : state_h + reads_from * 6;
                    gather(state_h, child_rows + (start - num_leaves) * 1, rows, 1, 6, gathered_h + start * 6);
                    const T* const v_before_h = g_h + 0;
                    constexpr Long v_before_h_ld = 6;
                    const T* const g_message = reads_from < 0 ? gathered_message : state_message + reads_from * 6;
                    if (reads_from < 0) gather(state_message, child_rows + (start - num_leaves) * 1, rows, 1, 6, gathered_message);
                    const T* const v_before_message = g_message + 0;
                    constexpr Long v_before_message_ld = 6;
                    T* const v_gather_message_children = listed_message;
                    constexpr Long v_gather_message_children_ld = 6;
                    gather(state_message, edge_rows + first_of_edges, edges, 1, 6, v_gather_message_children);
                    constexpr Long v_a_ld = 6;
                    T* const v_a = p_sub + (start - num_leaves) * v_a_ld;
                    constexpr Long v_z_ld = 6;
                    T* const v_z = p_sigmoid + start * v_z_ld;
                    constexpr Long v_r_ld = 6;
                    T* const v_r = p_sigmoid_1 + start * v_r_ld;
                    constexpr Long v_n_ld = 6;
                    T* const v_n = p_tanh + start * v_n_ld;
                    constexpr Long v_h_ld = 6;
                    T* const v_h = p_add_3 + start * v_h_ld;
                    constexpr Long v_message_ld = 6;
                    T* const v_message = p_addmm_1 + start * v_message_ld;
                    T* const v_segment_sum = scratch_1;
                    constexpr Long v_segment_sum_ld = 6;
                    T* const v_addmm = scratch_2;
                    constexpr Long v_addmm_ld = 18;
                    T* const v_mm = scratch_3;
                    constexpr Long v_mm_ld = 12;
                    T* const v_mm_1 = scratch_4;
                    constexpr Long v_mm_1_ld = 6;
                    T* const v_mul = scratch_5;
                    constexpr Long v_mul_ld = 6;
                    T* const v_mul_1 = scratch_6;
                    constexpr Long v_mul_1_ld = 6;
                    const Index* const first_edge = edge_offset + (start - num_leaves);
                    const Long without = std::max<Long>(num_leaves - start, 0);  // rows without edges come first
                    if (reads_from < 0) {
                    meeting.wait(team);
                    }
                    product(rows, v_before_h, v_before_h_ld, weight_0, nullptr, v_mm, v_mm_ld);
                    meeting.wait(team);
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
                                v_segment_sum[i * v_segment_sum_ld + j0] = v_segment_sum[i * v_segment_sum_ld + j0] + v_gather_message_children[e * v_gather_message_children_ld + j0];
                            }
                        }
                    }
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t1 = v_segment_sum[i * v_segment_sum_ld + j0] - v_before_message[i * v_before_message_ld + j0];
                            v_a[i * v_a_ld + j0] = t1;
                        }
                    }
                    meeting.wait(team);
                    product(rows, v_a, v_a_ld, weight_1, p_params_4, v_addmm, v_addmm_ld);
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t2 = v_addmm[i * v_addmm_ld + j0] + v_mm[i * v_mm_ld + j0];
                            const float t3 = sigmoid(t2);
                            v_z[i * v_z_ld + j0] = t3;
                            const float t4 = v_addmm[i * v_addmm_ld + j0 + 6] + v_mm[i * v_mm_ld + j0 + 6];
                            const float t5 = sigmoid(t4);
                            v_r[i * v_r_ld + j0] = t5;
                            const float t6 = t5 * v_before_h[i * v_before_h_ld + j0];
                            v_mul[i * v_mul_ld + j0] = t6;
                            const float t7 = float(1.0) - t3;
                            const float t8 = t7 * v_before_h[i * v_before_h_ld + j0];
                            v_mul_1[i * v_mul_1_ld + j0] = t8;
                        }
                    }
                    meeting.wait(team);
                    product(rows, v_mul, v_mul_ld, weight_2, nullptr, v_mm_1, v_mm_1_ld);
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t9 = v_addmm[i * v_addmm_ld + j0 + 12] + v_mm_1[i * v_mm_1_ld + j0];
                            const float t10 = tanh_of(t9);
                            v_n[i * v_n_ld + j0] = t10;
                            const float t11 = v_z[i * v_z_ld + j0] * t10;
                            const float t12 = v_mul_1[i * v_mul_1_ld + j0] + t11;
                            v_h[i * v_h_ld + j0] = t12;
                        }
                    }
                    meeting.wait(team);
                    product(rows, v_h, v_h_ld, weight_3, p_params_2, v_message, v_message_ld);
                    meeting.wait(team);
                } else {
                    constexpr Long v_z_ld = 6;
                    T* const v_z = p_sigmoid + start * v_z_ld;
                    constexpr Long v_r_ld = 6;
                    T* const v_r = p_sigmoid_1 + start * v_r_ld;
                    constexpr Long v_n_ld = 6;
                    T* const v_n = p_tanh + start * v_n_ld;
                    constexpr Long v_h_ld = 6;
                    T* const v_h = p_add_3 + start * v_h_ld;
                    constexpr Long v_message_ld = 6;
                    T* const v_message = p_addmm_1 + start * v_message_ld;
                    T* const v_mm_1 = scratch_7;
                    constexpr Long v_mm_1_ld = 6;
                    T* const v_mul = scratch_8;
                    constexpr Long v_mul_ld = 6;
                    T* const v_mul_1 = scratch_9;
                    constexpr Long v_mul_1_ld = 6;
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t1 = sigmoid(p_params_4[j0]);
                            v_z[i * v_z_ld + j0] = t1;
                            const float t2 = sigmoid(p_params_4[j0 + 6]);
                            v_r[i * v_r_ld + j0] = t2;
                            const float t3 = t2 * float(0.0);
                            v_mul[i * v_mul_ld + j0] = t3;
                            const float t4 = float(1.0) - t1;
                            const float t5 = t4 * float(0.0);
                            v_mul_1[i * v_mul_1_ld + j0] = t5;
                        }
                    }
                    meeting.wait(team);
                    product(rows, v_mul, v_mul_ld, weight_2, nullptr, v_mm_1, v_mm_1_ld);
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t6 = p_params_4[j0 + 12] + v_mm_1[i * v_mm_1_ld + j0];
                            const float t7 = tanh_of(t6);
                            v_n[i * v_n_ld + j0] = t7;
                            const float t8 = v_z[i * v_z_ld + j0] * t7;
                            const float t9 = v_mul_1[i * v_mul_1_ld + j0] + t8;
                            v_h[i * v_h_ld + j0] = t9;
                        }
                    }
                    meeting.wait(team);
                    product(rows, v_h, v_h_ld, weight_3, p_params_2, v_message, v_message_ld);
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
    T* const received_h = (T* const)a[6];
    const Long group_start = (Long)a[7];
    const T* const outside_h = (T* const)a[8];
    const T* const placed_sent_h = (T* const)a[9];
    const Index* const placed_places = (Index* const)a[10];
    const Index* const placed_offset = (Index* const)a[11];
    const T* const listed_sent_h = (T* const)a[12];
    const Index* const listed_places_h = (Index* const)a[13];
    const Index* const listed_offset = (Index* const)a[14];
    T* const received_message = (T* const)a[15];
    const T* const outside_message = (T* const)a[16];
    const T* const placed_sent_message = (T* const)a[17];
    const T* const listed_sent_message = (T* const)a[18];
    const Index* const listed_places_message = (Index* const)a[19];
    T* const p_grad_push_h = (T* const)a[20];
    const Long ld_grad_push_h = (Long)a[21];
    const T* const p_params_1 = (T* const)a[22];
    const T* const p_params_3 = (T* const)a[23];
    const T* const p_params_5 = (T* const)a[24];
    const T* const p_params_6 = (T* const)a[25];
    T* const p_sigmoid = (T* const)a[26];
    T* const p_sigmoid_1 = (T* const)a[27];
    T* const p_tanh = (T* const)a[28];
    T* const p_tanh_backward = (T* const)a[29];
    T* const p_cat = (T* const)a[30];
    float* const send_h = (float* const)a[31];
    T* const p_cat_1 = (T* const)a[32];
    float* const send_message = (float* const)a[33];
    float* const send_edges_message = (float* const)a[34];
    T* const scratch_1 = (T* const)a[35];
    T* const scratch_2 = (T* const)a[36];
    T* const scratch_3 = (T* const)a[37];
    T* const scratch_4 = (T* const)a[38];
    T* const scratch_5 = (T* const)a[39];
    T* const scratch_6 = (T* const)a[40];
    T* const scratch_7 = (T* const)a[41];
    T* const scratch_8 = (T* const)a[42];
    const Long num_computed = (Long)a[43];
    Long& packed = a[44];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[45];
    const Weight weight_0 = {p_params_1, packs ? room_0 : nullptr, false, 6, 6};
    T* const room_1 = (T* const)a[46];
    const Weight weight_1 = {p_params_6, packs ? room_1 : nullptr, false, 6, 6};
    T* const room_2 = (T* const)a[47];
    const Weight weight_2 = {p_params_5, packs ? room_2 : nullptr, false, 6, 12};
    T* const room_3 = (T* const)a[48];
    const Weight weight_3 = {p_params_3, packs ? room_3 : nullptr, false, 6, 18};
    const Index* const owner_of = (Index* const)a[49];
    T* const scratch_9 = (T* const)a[50];
    T* const scratch_10 = (T* const)a[51];
    T* const scratch_11 = (T* const)a[52];
    if (must_pack)
#pragma omp parallel if (252 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
        pack(weight_1);
        pack(weight_2);
        pack(weight_3);
    }
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 93, serial);
        for (last = first + 1; last < steps + count && pays_threads(*last, 93, serial) == pays;) ++last;
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
                    constexpr Long v_before_h_ld = 6;
                    T* const v_before_h = p_gather_h_0 + start * v_before_h_ld;
                    T* v_grad_scatter_h = received_h;
                    constexpr Long v_grad_scatter_h_ld = 6;
                    if (placed_sent_h && !placed_offset && !listed_sent_h && !outside_h && read_at >= 0)
                        v_grad_scatter_h = const_cast<T*>(placed_sent_h) + read_at * 6;
                    else receive(Parents<T>{placed_sent_h, placed_places, placed_offset}, Parents<T>{listed_sent_h, listed_places_h, listed_offset}, outside_h, group_start + start, rows, 6, v_grad_scatter_h);
                    T* v_grad_scatter_message = received_message + start * 6;
                    constexpr Long v_grad_scatter_message_ld = 6;
                    receive(Parents<T>{placed_sent_message, placed_places, placed_offset}, Parents<T>{listed_sent_message, listed_places_message, listed_offset}, outside_message, group_start + start, rows, 6, v_grad_scatter_message);
                    const Long v_grad_push_h_ld = ld_grad_push_h;
                    T* const v_grad_push_h = p_grad_push_h + start * v_grad_push_h_ld;
                    constexpr Long v_z_ld = 6;
                    T* const v_z = p_sigmoid + start * v_z_ld;
                    constexpr Long v_r_ld = 6;
                    T* const v_r = p_sigmoid_1 + start * v_r_ld;
                    constexpr Long v_n_ld = 6;
                    T* const v_n = p_tanh + start * v_n_ld;
                    constexpr Long v_tanh_backward_ld = 6;
                    T* const v_tanh_backward = p_tanh_backward + start * v_tanh_backward_ld;
                    constexpr Long v_cat_ld = 12;
                    T* const v_cat = p_cat + (start - num_leaves) * v_cat_ld;
                    float* const v_add_8 = send_h + (start - num_leaves) * 6 + 0;
                    constexpr Long v_add_8_ld = 6;
                    constexpr Long v_cat_1_ld = 18;
                    T* const v_cat_1 = p_cat_1 + start * v_cat_1_ld;
                    float* const v_neg_1 = send_message + (start - num_leaves) * 6 + 0;
                    constexpr Long v_neg_1_ld = 6;
                    float* const v_expand = send_edges_message + first_of_edges * 6;
                    constexpr Long v_expand_ld = 6;
                    T* const v_mm_2 = scratch_1;
                    constexpr Long v_mm_2_ld = 6;
                    T* const v_rsub_scalar = scratch_2;
                    constexpr Long v_rsub_scalar_ld = 6;
                    T* const v_mm_5 = scratch_3;
                    constexpr Long v_mm_5_ld = 6;
                    T* const v_mul_5 = scratch_4;
                    constexpr Long v_mul_5_ld = 6;
                    T* const v_sigmoid_backward_1 = scratch_5;
                    constexpr Long v_sigmoid_backward_1_ld = 6;
                    T* const v_mm_7 = scratch_6;
                    constexpr Long v_mm_7_ld = 6;
                    T* const v_add_7 = scratch_7;
                    constexpr Long v_add_7_ld = 6;
                    T* const v_mm_8 = scratch_8;
                    constexpr Long v_mm_8_ld = 6;
                    const Index* const owner = owner_of + first_of_edges;
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t1 = float(1.0) - v_z[i * v_z_ld + j0];
                            v_rsub_scalar[i * v_rsub_scalar_ld + j0] = t1;
                        }
                    }
                    meeting.wait(team);
                    product(rows, v_grad_scatter_message, v_grad_scatter_message_ld, weight_0, nullptr, v_mm_2, v_mm_2_ld);
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t2 = v_grad_scatter_h[i * v_grad_scatter_h_ld + j0] + v_grad_push_h[i * v_grad_push_h_ld + j0];
                            const float t3 = t2 + v_mm_2[i * v_mm_2_ld + j0];
                            const float t4 = t3 * v_rsub_scalar[i * v_rsub_scalar_ld + j0];
                            v_mul_5[i * v_mul_5_ld + j0] = t4;
                            const float t5 = t3 * v_z[i * v_z_ld + j0];
                            const float t6 = -v_n[i * v_n_ld + j0];
                            const float t7 = fused(t6, v_n[i * v_n_ld + j0], float(1.0));
                            const float t8 = t5 * t7;
                            v_tanh_backward[i * v_tanh_backward_ld + j0] = t8;
                            const float t9 = t3 * v_n[i * v_n_ld + j0];
                            const float t10 = t3 * v_before_h[i * v_before_h_ld + j0];
                            const float t11 = -t10;
                            const float t12 = t9 + t11;
                            const float t13 = float(1.0) - v_z[i * v_z_ld + j0];
                            const float t14 = t12 * t13;
                            const float t15 = t14 * v_z[i * v_z_ld + j0];
                            v_sigmoid_backward_1[i * v_sigmoid_backward_1_ld + j0] = t15;
                        }
                    }
                    meeting.wait(team);
                    product(rows, v_tanh_backward, v_tanh_backward_ld, weight_1, nullptr, v_mm_5, v_mm_5_ld);
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t16 = v_mm_5[i * v_mm_5_ld + j0] * v_r[i * v_r_ld + j0];
                            const float t17 = v_mul_5[i * v_mul_5_ld + j0] + t16;
                            v_add_7[i * v_add_7_ld + j0] = t17;
                            v_cat[i * v_cat_ld + j0] = v_sigmoid_backward_1[i * v_sigmoid_backward_1_ld + j0];
                            const float t18 = v_mm_5[i * v_mm_5_ld + j0] * v_before_h[i * v_before_h_ld + j0];
                            const float t19 = float(1.0) - v_r[i * v_r_ld + j0];
                            const float t20 = t18 * t19;
                            const float t21 = t20 * v_r[i * v_r_ld + j0];
                            v_cat[i * v_cat_ld + j0 + 6] = t21;
                            v_cat_1[i * v_cat_1_ld + j0] = v_sigmoid_backward_1[i * v_sigmoid_backward_1_ld + j0];
                            v_cat_1[i * v_cat_1_ld + j0 + 6] = t21;
                            v_cat_1[i * v_cat_1_ld + j0 + 12] = v_tanh_backward[i * v_tanh_backward_ld + j0];
                        }
                    }
                    meeting.wait(team);
                    product(rows, v_cat, v_cat_ld, weight_2, nullptr, v_mm_7, v_mm_7_ld);
                    product(rows, v_cat_1, v_cat_1_ld, weight_3, nullptr, v_mm_8, v_mm_8_ld);
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t22 = v_add_7[i * v_add_7_ld + j0] + v_mm_7[i * v_mm_7_ld + j0];
                            v_add_8[i * v_add_8_ld + j0] = t22;
                            const float t23 = -v_mm_8[i * v_mm_8_ld + j0];
                            v_neg_1[i * v_neg_1_ld + j0] = t23;
                        }
                    }
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < edges; ++i) {
                        const Long row24 = (owner[i] - start);
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            v_expand[i * v_expand_ld + j0] = v_mm_8[row24 * v_mm_8_ld + j0];
                        }
                    }
                    meeting.wait(team);
                } else {
                    T* v_grad_scatter_h = received_h;
                    constexpr Long v_grad_scatter_h_ld = 6;
                    if (placed_sent_h && !placed_offset && !listed_sent_h && !outside_h && read_at >= 0)
                        v_grad_scatter_h = const_cast<T*>(placed_sent_h) + read_at * 6;
                    else receive(Parents<T>{placed_sent_h, placed_places, placed_offset}, Parents<T>{listed_sent_h, listed_places_h, listed_offset}, outside_h, group_start + start, rows, 6, v_grad_scatter_h);
                    T* v_grad_scatter_message = received_message + start * 6;
                    constexpr Long v_grad_scatter_message_ld = 6;
                    receive(Parents<T>{placed_sent_message, placed_places, placed_offset}, Parents<T>{listed_sent_message, listed_places_message, listed_offset}, outside_message, group_start + start, rows, 6, v_grad_scatter_message);
                    const Long v_grad_push_h_ld = ld_grad_push_h;
                    T* const v_grad_push_h = p_grad_push_h + start * v_grad_push_h_ld;
                    constexpr Long v_z_ld = 6;
                    T* const v_z = p_sigmoid + start * v_z_ld;
                    constexpr Long v_r_ld = 6;
                    T* const v_r = p_sigmoid_1 + start * v_r_ld;
                    constexpr Long v_n_ld = 6;
                    T* const v_n = p_tanh + start * v_n_ld;
                    constexpr Long v_tanh_backward_ld = 6;
                    T* const v_tanh_backward = p_tanh_backward + start * v_tanh_backward_ld;
                    constexpr Long v_cat_1_ld = 18;
                    T* const v_cat_1 = p_cat_1 + start * v_cat_1_ld;
                    T* const v_mm_2 = scratch_9;
                    constexpr Long v_mm_2_ld = 6;
                    T* const v_mm_5 = scratch_10;
                    constexpr Long v_mm_5_ld = 6;
                    T* const v_sigmoid_backward_1 = scratch_11;
                    constexpr Long v_sigmoid_backward_1_ld = 6;
                    meeting.wait(team);
                    product(rows, v_grad_scatter_message, v_grad_scatter_message_ld, weight_0, nullptr, v_mm_2, v_mm_2_ld);
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t1 = v_grad_scatter_h[i * v_grad_scatter_h_ld + j0] + v_grad_push_h[i * v_grad_push_h_ld + j0];
                            const float t2 = t1 + v_mm_2[i * v_mm_2_ld + j0];
                            const float t3 = t2 * v_z[i * v_z_ld + j0];
                            const float t4 = -v_n[i * v_n_ld + j0];
                            const float t5 = fused(t4, v_n[i * v_n_ld + j0], float(1.0));
                            const float t6 = t3 * t5;
                            v_tanh_backward[i * v_tanh_backward_ld + j0] = t6;
                            const float t7 = t2 * v_n[i * v_n_ld + j0];
                            const float t8 = t2 * float(0.0);
                            const float t9 = -t8;
                            const float t10 = t7 + t9;
                            const float t11 = float(1.0) - v_z[i * v_z_ld + j0];
                            const float t12 = t10 * t11;
                            const float t13 = t12 * v_z[i * v_z_ld + j0];
                            v_sigmoid_backward_1[i * v_sigmoid_backward_1_ld + j0] = t13;
                        }
                    }
                    meeting.wait(team);
                    product(rows, v_tanh_backward, v_tanh_backward_ld, weight_1, nullptr, v_mm_5, v_mm_5_ld);
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            v_cat_1[i * v_cat_1_ld + j0] = v_sigmoid_backward_1[i * v_sigmoid_backward_1_ld + j0];
                            const float t14 = v_mm_5[i * v_mm_5_ld + j0] * float(0.0);
                            const float t15 = float(1.0) - v_r[i * v_r_ld + j0];
                            const float t16 = t14 * t15;
                            const float t17 = t16 * v_r[i * v_r_ld + j0];
                            v_cat_1[i * v_cat_1_ld + j0 + 6] = t17;
                            v_cat_1[i * v_cat_1_ld + j0 + 12] = v_tanh_backward[i * v_tanh_backward_ld + j0];
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
    T* const p_gather_h_0 = (T* const)a[5];
    T* const p_grad_scatter_message = (T* const)a[6];
    T* const p_sigmoid_1 = (T* const)a[7];
    T* const p_add_3 = (T* const)a[8];
    T* const p_tanh_backward = (T* const)a[9];
    T* const p_cat_1 = (T* const)a[10];
    T* const p_mm_3 = (T* const)a[11];
    T* const p_mm_4 = (T* const)a[12];
    T* const p_view = (T* const)a[13];
    T* const p_view_1 = (T* const)a[14];
    T* const scratch_1 = (T* const)a[15];
    const bool adds = (bool)a[16];
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 10, serial_once);
        for (last = first + 1; last < steps + count && pays_threads(*last, 10, serial_once) == pays;) ++last;
        Meeting meeting(company);
#pragma omp parallel if (pays) num_threads(threads_in(company))
        {
            const int team = omp_get_num_threads();
            for (const Step* at = first; at < last; ++at) {
                const Step& step = *at;
                const Long start = step.start, first_of_edges = step.edge_start, rows = step.stop - start;
                [[maybe_unused]] const Long edges = step.edge_stop - first_of_edges;
                [[maybe_unused]] const Long reads_from = step.reads_from, read_at = step.read_at;
                constexpr Long v_before_h_ld = 6;
                T* const v_before_h = p_gather_h_0 + start * v_before_h_ld;
                constexpr Long v_grad_scatter_message_ld = 6;
                T* const v_grad_scatter_message = p_grad_scatter_message + start * v_grad_scatter_message_ld;
                constexpr Long v_r_ld = 6;
                T* const v_r = p_sigmoid_1 + start * v_r_ld;
                constexpr Long v_h_ld = 6;
                T* const v_h = p_add_3 + start * v_h_ld;
                constexpr Long v_tanh_backward_ld = 6;
                T* const v_tanh_backward = p_tanh_backward + start * v_tanh_backward_ld;
                constexpr Long v_cat_1_ld = 18;
                T* const v_cat_1 = p_cat_1 + start * v_cat_1_ld;
                T* const v_mul_tensor = scratch_1;
                constexpr Long v_mul_tensor_ld = 6;
                #pragma omp for schedule(static) nowait
                for (Long i = 0; i < rows; ++i) {
                    #pragma omp simd
                    for (Long j0 = 0; j0 < 6; ++j0) {
                        const float t1 = v_r[i * v_r_ld + j0] * v_before_h[i * v_before_h_ld + j0];
                        v_mul_tensor[i * v_mul_tensor_ld + j0] = t1;
                    }
                }
                outer(rows, v_grad_scatter_message, v_grad_scatter_message_ld, 6, v_h, v_h_ld, 6, p_mm_3, adds);
                meeting.wait(team);
                outer(rows, v_tanh_backward, v_tanh_backward_ld, 6, v_mul_tensor, v_mul_tensor_ld, 6, p_mm_4, adds);
                #pragma omp for schedule(static) nowait
                for (Long first = 0; first < 6; first += 64) {
                    const Long last = std::min<Long>(first + 64, 6);
                    float sum[64] = {};
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j = first; j < last; ++j) {
                            sum[j - first] += v_grad_scatter_message[i * v_grad_scatter_message_ld + j];
                        }
                    }
                    for (Long j = 0; adds && j < last - first; ++j) sum[j] += p_view[first + j];
                    std::copy(sum, sum + last - first, p_view + first);
                }
                #pragma omp for schedule(static) nowait
                for (Long first = 0; first < 18; first += 64) {
                    const Long last = std::min<Long>(first + 64, 18);
                    float sum[64] = {};
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j = first; j < last; ++j) {
                            sum[j - first] += v_cat_1[i * v_cat_1_ld + j];
                        }
                    }
                    for (Long j = 0; adds && j < last - first; ++j) sum[j] += p_view_1[first + j];
                    std::copy(sum, sum + last - first, p_view_1 + first);
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
    T* const p_gather_h_0 = (T* const)a[5];
    T* const p_sub = (T* const)a[6];
    T* const p_cat = (T* const)a[7];
    T* const p_cat_1 = (T* const)a[8];
    T* const p_mm_6 = (T* const)a[9];
    T* const p_mm_9 = (T* const)a[10];
    const bool adds = (bool)a[11];
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 11, serial_once);
        for (last = first + 1; last < steps + count && pays_threads(*last, 11, serial_once) == pays;) ++last;
        Meeting meeting(company);
#pragma omp parallel if (pays) num_threads(threads_in(company))
        {
            const int team = omp_get_num_threads();
            for (const Step* at = first; at < last; ++at) {
                const Step& step = *at;
                const Long start = step.start, first_of_edges = step.edge_start, rows = step.stop - start;
                [[maybe_unused]] const Long edges = step.edge_stop - first_of_edges;
                [[maybe_unused]] const Long reads_from = step.reads_from, read_at = step.read_at;
                constexpr Long v_before_h_ld = 6;
                T* const v_before_h = p_gather_h_0 + start * v_before_h_ld;
                constexpr Long v_a_ld = 6;
                T* const v_a = p_sub + (start - num_leaves) * v_a_ld;
                constexpr Long v_cat_ld = 12;
                T* const v_cat = p_cat + (start - num_leaves) * v_cat_ld;
                constexpr Long v_cat_1_ld = 18;
                T* const v_cat_1 = p_cat_1 + start * v_cat_1_ld;
                outer(rows, v_cat, v_cat_ld, 12, v_before_h, v_before_h_ld, 6, p_mm_6, adds);
                outer(rows, v_cat_1, v_cat_1_ld, 18, v_a, v_a_ld, 6, p_mm_9, adds);
                meeting.wait(team);
            }
            if (team > 1) meeting.ends();
        }
    }
}
