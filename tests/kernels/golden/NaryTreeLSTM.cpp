// NaryTreeLSTM, method vertex

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
    const Index* const child_rows = (Index* const)a[6];
    T* const gathered_h = (T* const)a[7];
    const T* const state_c = (T* const)a[8];
    T* const gathered_c = (T* const)a[9];
    const T* const p_params_3 = (T* const)a[10];
    T* const p_addmm = (T* const)a[11];
    T* const p_sigmoid = (T* const)a[12];
    T* const p_tanh = (T* const)a[13];
    T* const p_sigmoid_1 = (T* const)a[14];
    T* const p_sigmoid_2 = (T* const)a[15];
    T* const p_sigmoid_3 = (T* const)a[16];
    T* const p_add_7 = (T* const)a[17];
    T* const p_sigmoid_4 = (T* const)a[18];
    T* const p_mul_4 = (T* const)a[19];
    T* const scratch_1 = (T* const)a[20];
    const Long num_computed = (Long)a[21];
    Long& packed = a[22];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[23];
    const Weight weight_0 = {p_params_3, packs ? room_0 : nullptr, true, 36, 18};
    if (must_pack)
#pragma omp parallel if (648 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
    }
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 88, serial);
        for (last = first + 1; last < steps + count && pays_threads(*last, 88, serial) == pays;) ++last;
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
                    const T* const g_h = reads_from < 0 ? gathered_h + (start - num_leaves) * 18 : state_h + reads_from * 6;
                    gather(state_h, child_rows + (start - num_leaves) * 3, rows, 3, 6, gathered_h + (start - num_leaves) * 18);
                    const T* const v_children_h = g_h;
                    constexpr Long v_children_h_ld = 18;
                    const T* const g_c = reads_from < 0 ? gathered_c + (start - num_leaves) * 18 : state_c + reads_from * 6;
                    gather(state_c, child_rows + (start - num_leaves) * 3, rows, 3, 6, gathered_c + (start - num_leaves) * 18);
                    const T* const v_child_c = g_c + 0;
                    constexpr Long v_child_c_ld = 18;
                    const T* const v_child_c_1 = g_c + 6;
                    constexpr Long v_child_c_1_ld = 18;
                    const T* const v_child_c_2 = g_c + 12;
                    constexpr Long v_child_c_2_ld = 18;
                    constexpr Long v_addmm_ld = 24;
                    T* const v_addmm = p_addmm + start * v_addmm_ld;
                    constexpr Long v_sigmoid_ld = 6;
                    T* const v_sigmoid = p_sigmoid + start * v_sigmoid_ld;
                    constexpr Long v_tanh_ld = 6;
                    T* const v_tanh = p_tanh + start * v_tanh_ld;
                    constexpr Long v_sigmoid_1_ld = 6;
                    T* const v_sigmoid_1 = p_sigmoid_1 + start * v_sigmoid_1_ld;
                    constexpr Long v_sigmoid_2_ld = 6;
                    T* const v_sigmoid_2 = p_sigmoid_2 + start * v_sigmoid_2_ld;
                    constexpr Long v_sigmoid_3_ld = 6;
                    T* const v_sigmoid_3 = p_sigmoid_3 + start * v_sigmoid_3_ld;
                    constexpr Long v_c_3_ld = 6;
                    T* const v_c_3 = p_add_7 + start * v_c_3_ld;
                    constexpr Long v_sigmoid_4_ld = 6;
                    T* const v_sigmoid_4 = p_sigmoid_4 + start * v_sigmoid_4_ld;
                    constexpr Long v_h_ld = 6;
                    T* const v_h = p_mul_4 + start * v_h_ld;
                    T* const v_mm = scratch_1;
                    constexpr Long v_mm_ld = 36;
                    if (reads_from < 0) {
                    meeting.wait(team);
                    }
                    product(rows, v_children_h, v_children_h_ld, weight_0, nullptr, v_mm, v_mm_ld);
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t1 = v_addmm[i * v_addmm_ld + j0] + v_mm[i * v_mm_ld + j0];
                            const float t2 = sigmoid(t1);
                            v_sigmoid[i * v_sigmoid_ld + j0] = t2;
                            const float t3 = v_addmm[i * v_addmm_ld + j0 + 12] + v_mm[i * v_mm_ld + j0 + 12];
                            const float t4 = tanh_of(t3);
                            v_tanh[i * v_tanh_ld + j0] = t4;
                            const float t5 = v_addmm[i * v_addmm_ld + j0 + 18] + v_mm[i * v_mm_ld + j0 + 18];
                            const float t6 = sigmoid(t5);
                            v_sigmoid_1[i * v_sigmoid_1_ld + j0] = t6;
                            const float t7 = v_addmm[i * v_addmm_ld + j0 + 18] + v_mm[i * v_mm_ld + j0 + 24];
                            const float t8 = sigmoid(t7);
                            v_sigmoid_2[i * v_sigmoid_2_ld + j0] = t8;
                            const float t9 = v_addmm[i * v_addmm_ld + j0 + 18] + v_mm[i * v_mm_ld + j0 + 30];
                            const float t10 = sigmoid(t9);
                            v_sigmoid_3[i * v_sigmoid_3_ld + j0] = t10;
                            const float t11 = t2 * t4;
                            const float t12 = t6 * v_child_c[i * v_child_c_ld + j0];
                            const float t13 = t11 + t12;
                            const float t14 = t8 * v_child_c_1[i * v_child_c_1_ld + j0];
                            const float t15 = t13 + t14;
                            const float t16 = t10 * v_child_c_2[i * v_child_c_2_ld + j0];
                            const float t17 = t15 + t16;
                            v_c_3[i * v_c_3_ld + j0] = t17;
                            const float t18 = v_addmm[i * v_addmm_ld + j0 + 6] + v_mm[i * v_mm_ld + j0 + 6];
                            const float t19 = sigmoid(t18);
                            v_sigmoid_4[i * v_sigmoid_4_ld + j0] = t19;
                            const float t20 = tanh_of(t17);
                            const float t21 = t19 * t20;
                            v_h[i * v_h_ld + j0] = t21;
                        }
                    }
                    meeting.wait(team);
                } else {
                    constexpr Long v_addmm_ld = 24;
                    T* const v_addmm = p_addmm + start * v_addmm_ld;
                    constexpr Long v_sigmoid_ld = 6;
                    T* const v_sigmoid = p_sigmoid + start * v_sigmoid_ld;
                    constexpr Long v_tanh_ld = 6;
                    T* const v_tanh = p_tanh + start * v_tanh_ld;
                    constexpr Long v_sigmoid_1_ld = 6;
                    T* const v_sigmoid_1 = p_sigmoid_1 + start * v_sigmoid_1_ld;
                    constexpr Long v_sigmoid_2_ld = 6;
                    T* const v_sigmoid_2 = p_sigmoid_2 + start * v_sigmoid_2_ld;
                    constexpr Long v_sigmoid_3_ld = 6;
                    T* const v_sigmoid_3 = p_sigmoid_3 + start * v_sigmoid_3_ld;
                    constexpr Long v_c_3_ld = 6;
                    T* const v_c_3 = p_add_7 + start * v_c_3_ld;
                    constexpr Long v_sigmoid_4_ld = 6;
                    T* const v_sigmoid_4 = p_sigmoid_4 + start * v_sigmoid_4_ld;
                    constexpr Long v_h_ld = 6;
                    T* const v_h = p_mul_4 + start * v_h_ld;
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t1 = sigmoid(v_addmm[i * v_addmm_ld + j0]);
                            v_sigmoid[i * v_sigmoid_ld + j0] = t1;
                            const float t2 = tanh_of(v_addmm[i * v_addmm_ld + j0 + 12]);
                            v_tanh[i * v_tanh_ld + j0] = t2;
                            const float t3 = sigmoid(v_addmm[i * v_addmm_ld + j0 + 18]);
                            v_sigmoid_1[i * v_sigmoid_1_ld + j0] = t3;
                            const float t4 = sigmoid(v_addmm[i * v_addmm_ld + j0 + 18]);
                            v_sigmoid_2[i * v_sigmoid_2_ld + j0] = t4;
                            const float t5 = sigmoid(v_addmm[i * v_addmm_ld + j0 + 18]);
                            v_sigmoid_3[i * v_sigmoid_3_ld + j0] = t5;
                            const float t6 = t1 * t2;
                            const float t7 = t3 * float(0.0);
                            const float t8 = t6 + t7;
                            const float t9 = t4 * float(0.0);
                            const float t10 = t8 + t9;
                            const float t11 = t5 * float(0.0);
                            const float t12 = t10 + t11;
                            v_c_3[i * v_c_3_ld + j0] = t12;
                            const float t13 = sigmoid(v_addmm[i * v_addmm_ld + j0 + 6]);
                            v_sigmoid_4[i * v_sigmoid_4_ld + j0] = t13;
                            const float t14 = tanh_of(t12);
                            const float t15 = t13 * t14;
                            v_h[i * v_h_ld + j0] = t15;
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
    T* const p_gather_c_0 = (T* const)a[5];
    T* const p_gather_c_1 = (T* const)a[6];
    T* const p_gather_c_2 = (T* const)a[7];
    T* const received_h = (T* const)a[8];
    const Long group_start = (Long)a[9];
    const T* const outside_h = (T* const)a[10];
    const T* const placed_sent_h = (T* const)a[11];
    const Index* const placed_places = (Index* const)a[12];
    const Index* const placed_offset = (Index* const)a[13];
    const T* const listed_sent_h = (T* const)a[14];
    const Index* const listed_places_h = (Index* const)a[15];
    const Index* const listed_offset = (Index* const)a[16];
    T* const received_c = (T* const)a[17];
    const T* const outside_c = (T* const)a[18];
    const T* const placed_sent_c = (T* const)a[19];
    const T* const listed_sent_c = (T* const)a[20];
    const Index* const listed_places_c = (Index* const)a[21];
    T* const p_grad_push_h = (T* const)a[22];
    const Long ld_grad_push_h = (Long)a[23];
    const T* const p_params_3 = (T* const)a[24];
    T* const p_sigmoid = (T* const)a[25];
    T* const p_tanh = (T* const)a[26];
    T* const p_sigmoid_1 = (T* const)a[27];
    T* const p_sigmoid_2 = (T* const)a[28];
    T* const p_sigmoid_3 = (T* const)a[29];
    T* const p_add_7 = (T* const)a[30];
    T* const p_sigmoid_4 = (T* const)a[31];
    T* const p_sigmoid_backward = (T* const)a[32];
    float* const send_c = (float* const)a[33];
    T* const p_sigmoid_backward_1 = (T* const)a[34];
    T* const p_sigmoid_backward_2 = (T* const)a[35];
    T* const p_sigmoid_backward_3 = (T* const)a[36];
    T* const p_tanh_backward_1 = (T* const)a[37];
    T* const p_sigmoid_backward_4 = (T* const)a[38];
    T* const p_cat_1 = (T* const)a[39];
    float* const send_h = (float* const)a[40];
    const Long num_computed = (Long)a[41];
    Long& packed = a[42];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[43];
    const Weight weight_0 = {p_params_3, packs ? room_0 : nullptr, false, 18, 36};
    const Long first_sending = (Long)a[44];
    if (must_pack)
#pragma omp parallel if (648 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
    }
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 130, serial);
        for (last = first + 1; last < steps + count && pays_threads(*last, 130, serial) == pays;) ++last;
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
                    constexpr Long v_child_c_ld = 18;
                    T* const v_child_c = p_gather_c_0 + (start - num_leaves) * v_child_c_ld;
                    constexpr Long v_child_c_1_ld = 18;
                    T* const v_child_c_1 = p_gather_c_1 + (start - num_leaves) * v_child_c_1_ld;
                    constexpr Long v_child_c_2_ld = 18;
                    T* const v_child_c_2 = p_gather_c_2 + (start - num_leaves) * v_child_c_2_ld;
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
                    constexpr Long v_sigmoid_ld = 6;
                    T* const v_sigmoid = p_sigmoid + start * v_sigmoid_ld;
                    constexpr Long v_tanh_ld = 6;
                    T* const v_tanh = p_tanh + start * v_tanh_ld;
                    constexpr Long v_sigmoid_1_ld = 6;
                    T* const v_sigmoid_1 = p_sigmoid_1 + start * v_sigmoid_1_ld;
                    constexpr Long v_sigmoid_2_ld = 6;
                    T* const v_sigmoid_2 = p_sigmoid_2 + start * v_sigmoid_2_ld;
                    constexpr Long v_sigmoid_3_ld = 6;
                    T* const v_sigmoid_3 = p_sigmoid_3 + start * v_sigmoid_3_ld;
                    constexpr Long v_c_ld = 6;
                    T* const v_c = p_add_7 + start * v_c_ld;
                    constexpr Long v_sigmoid_4_ld = 6;
                    T* const v_sigmoid_4 = p_sigmoid_4 + start * v_sigmoid_4_ld;
                    constexpr Long v_sigmoid_backward_ld = 6;
                    T* const v_sigmoid_backward = p_sigmoid_backward + start * v_sigmoid_backward_ld;
                    float* const v_mul_7 = send_c + (start - num_leaves) * 18 + 12;
                    constexpr Long v_mul_7_ld = 18;
                    constexpr Long v_sigmoid_backward_1_ld = 6;
                    T* const v_sigmoid_backward_1 = p_sigmoid_backward_1 + start * v_sigmoid_backward_1_ld;
                    float* const v_mul_9 = send_c + (start - num_leaves) * 18 + 6;
                    constexpr Long v_mul_9_ld = 18;
                    constexpr Long v_sigmoid_backward_2_ld = 6;
                    T* const v_sigmoid_backward_2 = p_sigmoid_backward_2 + start * v_sigmoid_backward_2_ld;
                    float* const v_mul_11 = send_c + (start - num_leaves) * 18 + 0;
                    constexpr Long v_mul_11_ld = 18;
                    constexpr Long v_sigmoid_backward_3_ld = 6;
                    T* const v_sigmoid_backward_3 = p_sigmoid_backward_3 + start * v_sigmoid_backward_3_ld;
                    constexpr Long v_tanh_backward_1_ld = 6;
                    T* const v_tanh_backward_1 = p_tanh_backward_1 + start * v_tanh_backward_1_ld;
                    constexpr Long v_sigmoid_backward_4_ld = 6;
                    T* const v_sigmoid_backward_4 = p_sigmoid_backward_4 + start * v_sigmoid_backward_4_ld;
                    constexpr Long v_cat_1_ld = 36;
                    T* const v_cat_1 = p_cat_1 + (start - num_leaves) * v_cat_1_ld;
                    float* const v_mm_2 = send_h + (start - num_leaves) * 18;
                    constexpr Long v_mm_2_ld = 18;
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t1 = v_grad_scatter_h[i * v_grad_scatter_h_ld + j0] + v_grad_push_h[i * v_grad_push_h_ld + j0];
                            const float t2 = tanh_of(v_c[i * v_c_ld + j0]);
                            const float t3 = t1 * t2;
                            const float t4 = float(1.0) - v_sigmoid_4[i * v_sigmoid_4_ld + j0];
                            const float t5 = t3 * t4;
                            const float t6 = t5 * v_sigmoid_4[i * v_sigmoid_4_ld + j0];
                            v_sigmoid_backward[i * v_sigmoid_backward_ld + j0] = t6;
                            const float t7 = t1 * v_sigmoid_4[i * v_sigmoid_4_ld + j0];
                            const float t8 = -t2;
                            const float t9 = fused(t8, t2, float(1.0));
                            const float t10 = t7 * t9;
                            const float t11 = v_grad_scatter_c[i * v_grad_scatter_c_ld + j0] + t10;
                            const float t12 = t11 * v_sigmoid_3[i * v_sigmoid_3_ld + j0];
                            v_mul_7[i * v_mul_7_ld + j0] = t12;
                            const float t13 = t11 * v_child_c_2[i * v_child_c_2_ld + j0];
                            const float t14 = float(1.0) - v_sigmoid_3[i * v_sigmoid_3_ld + j0];
                            const float t15 = t13 * t14;
                            const float t16 = t15 * v_sigmoid_3[i * v_sigmoid_3_ld + j0];
                            v_sigmoid_backward_1[i * v_sigmoid_backward_1_ld + j0] = t16;
                            const float t17 = t11 * v_sigmoid_2[i * v_sigmoid_2_ld + j0];
                            v_mul_9[i * v_mul_9_ld + j0] = t17;
                            const float t18 = t11 * v_child_c_1[i * v_child_c_1_ld + j0];
                            const float t19 = float(1.0) - v_sigmoid_2[i * v_sigmoid_2_ld + j0];
                            const float t20 = t18 * t19;
                            const float t21 = t20 * v_sigmoid_2[i * v_sigmoid_2_ld + j0];
                            v_sigmoid_backward_2[i * v_sigmoid_backward_2_ld + j0] = t21;
                            const float t22 = t11 * v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            v_mul_11[i * v_mul_11_ld + j0] = t22;
                            const float t23 = t11 * v_child_c[i * v_child_c_ld + j0];
                            const float t24 = float(1.0) - v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            const float t25 = t23 * t24;
                            const float t26 = t25 * v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            v_sigmoid_backward_3[i * v_sigmoid_backward_3_ld + j0] = t26;
                            const float t27 = t11 * v_sigmoid[i * v_sigmoid_ld + j0];
                            const float t28 = -v_tanh[i * v_tanh_ld + j0];
                            const float t29 = fused(t28, v_tanh[i * v_tanh_ld + j0], float(1.0));
                            const float t30 = t27 * t29;
                            v_tanh_backward_1[i * v_tanh_backward_1_ld + j0] = t30;
                            const float t31 = t11 * v_tanh[i * v_tanh_ld + j0];
                            const float t32 = float(1.0) - v_sigmoid[i * v_sigmoid_ld + j0];
                            const float t33 = t31 * t32;
                            const float t34 = t33 * v_sigmoid[i * v_sigmoid_ld + j0];
                            v_sigmoid_backward_4[i * v_sigmoid_backward_4_ld + j0] = t34;
                            v_cat_1[i * v_cat_1_ld + j0] = t34;
                            v_cat_1[i * v_cat_1_ld + j0 + 6] = t6;
                            v_cat_1[i * v_cat_1_ld + j0 + 12] = t30;
                            v_cat_1[i * v_cat_1_ld + j0 + 18] = t26;
                            v_cat_1[i * v_cat_1_ld + j0 + 24] = t21;
                            v_cat_1[i * v_cat_1_ld + j0 + 30] = t16;
                        }
                    }
                    meeting.wait(team);
                    if (start + rows > first_sending)
                    product(rows, v_cat_1, v_cat_1_ld, weight_0, nullptr, v_mm_2, v_mm_2_ld);
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
                    constexpr Long v_sigmoid_ld = 6;
                    T* const v_sigmoid = p_sigmoid + start * v_sigmoid_ld;
                    constexpr Long v_tanh_ld = 6;
                    T* const v_tanh = p_tanh + start * v_tanh_ld;
                    constexpr Long v_sigmoid_1_ld = 6;
                    T* const v_sigmoid_1 = p_sigmoid_1 + start * v_sigmoid_1_ld;
                    constexpr Long v_sigmoid_2_ld = 6;
                    T* const v_sigmoid_2 = p_sigmoid_2 + start * v_sigmoid_2_ld;
                    constexpr Long v_sigmoid_3_ld = 6;
                    T* const v_sigmoid_3 = p_sigmoid_3 + start * v_sigmoid_3_ld;
                    constexpr Long v_c_ld = 6;
                    T* const v_c = p_add_7 + start * v_c_ld;
                    constexpr Long v_sigmoid_4_ld = 6;
                    T* const v_sigmoid_4 = p_sigmoid_4 + start * v_sigmoid_4_ld;
                    constexpr Long v_sigmoid_backward_ld = 6;
                    T* const v_sigmoid_backward = p_sigmoid_backward + start * v_sigmoid_backward_ld;
                    constexpr Long v_sigmoid_backward_1_ld = 6;
                    T* const v_sigmoid_backward_1 = p_sigmoid_backward_1 + start * v_sigmoid_backward_1_ld;
                    constexpr Long v_sigmoid_backward_2_ld = 6;
                    T* const v_sigmoid_backward_2 = p_sigmoid_backward_2 + start * v_sigmoid_backward_2_ld;
                    constexpr Long v_sigmoid_backward_3_ld = 6;
                    T* const v_sigmoid_backward_3 = p_sigmoid_backward_3 + start * v_sigmoid_backward_3_ld;
                    constexpr Long v_tanh_backward_1_ld = 6;
                    T* const v_tanh_backward_1 = p_tanh_backward_1 + start * v_tanh_backward_1_ld;
                    constexpr Long v_sigmoid_backward_4_ld = 6;
                    T* const v_sigmoid_backward_4 = p_sigmoid_backward_4 + start * v_sigmoid_backward_4_ld;
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t1 = v_grad_scatter_h[i * v_grad_scatter_h_ld + j0] + v_grad_push_h[i * v_grad_push_h_ld + j0];
                            const float t2 = tanh_of(v_c[i * v_c_ld + j0]);
                            const float t3 = t1 * t2;
                            const float t4 = float(1.0) - v_sigmoid_4[i * v_sigmoid_4_ld + j0];
                            const float t5 = t3 * t4;
                            const float t6 = t5 * v_sigmoid_4[i * v_sigmoid_4_ld + j0];
                            v_sigmoid_backward[i * v_sigmoid_backward_ld + j0] = t6;
                            const float t7 = t1 * v_sigmoid_4[i * v_sigmoid_4_ld + j0];
                            const float t8 = -t2;
                            const float t9 = fused(t8, t2, float(1.0));
                            const float t10 = t7 * t9;
                            const float t11 = v_grad_scatter_c[i * v_grad_scatter_c_ld + j0] + t10;
                            const float t12 = t11 * float(0.0);
                            const float t13 = float(1.0) - v_sigmoid_3[i * v_sigmoid_3_ld + j0];
                            const float t14 = t12 * t13;
                            const float t15 = t14 * v_sigmoid_3[i * v_sigmoid_3_ld + j0];
                            v_sigmoid_backward_1[i * v_sigmoid_backward_1_ld + j0] = t15;
                            const float t16 = t11 * float(0.0);
                            const float t17 = float(1.0) - v_sigmoid_2[i * v_sigmoid_2_ld + j0];
                            const float t18 = t16 * t17;
                            const float t19 = t18 * v_sigmoid_2[i * v_sigmoid_2_ld + j0];
                            v_sigmoid_backward_2[i * v_sigmoid_backward_2_ld + j0] = t19;
                            const float t20 = t11 * float(0.0);
                            const float t21 = float(1.0) - v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            const float t22 = t20 * t21;
                            const float t23 = t22 * v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            v_sigmoid_backward_3[i * v_sigmoid_backward_3_ld + j0] = t23;
                            const float t24 = t11 * v_sigmoid[i * v_sigmoid_ld + j0];
                            const float t25 = -v_tanh[i * v_tanh_ld + j0];
                            const float t26 = fused(t25, v_tanh[i * v_tanh_ld + j0], float(1.0));
                            const float t27 = t24 * t26;
                            v_tanh_backward_1[i * v_tanh_backward_1_ld + j0] = t27;
                            const float t28 = t11 * v_tanh[i * v_tanh_ld + j0];
                            const float t29 = float(1.0) - v_sigmoid[i * v_sigmoid_ld + j0];
                            const float t30 = t28 * t29;
                            const float t31 = t30 * v_sigmoid[i * v_sigmoid_ld + j0];
                            v_sigmoid_backward_4[i * v_sigmoid_backward_4_ld + j0] = t31;
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
    T* const p_sigmoid_backward_1 = (T* const)a[8];
    T* const p_sigmoid_backward_2 = (T* const)a[9];
    T* const p_sigmoid_backward_3 = (T* const)a[10];
    T* const p_tanh_backward_1 = (T* const)a[11];
    T* const p_sigmoid_backward_4 = (T* const)a[12];
    T* const p_mm_3 = (T* const)a[13];
    T* const p_mm_4 = (T* const)a[14];
    T* const p_view = (T* const)a[15];
    T* const scratch_1 = (T* const)a[16];
    const bool adds = (bool)a[17];
    const Long num_computed = (Long)a[18];
    Long& packed = a[19];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[20];
    const Weight weight_0 = {p_params_1, packs ? room_0 : nullptr, false, 6, 24};
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
                constexpr Long v_sigmoid_backward_1_ld = 6;
                T* const v_sigmoid_backward_1 = p_sigmoid_backward_1 + start * v_sigmoid_backward_1_ld;
                constexpr Long v_sigmoid_backward_2_ld = 6;
                T* const v_sigmoid_backward_2 = p_sigmoid_backward_2 + start * v_sigmoid_backward_2_ld;
                constexpr Long v_sigmoid_backward_3_ld = 6;
                T* const v_sigmoid_backward_3 = p_sigmoid_backward_3 + start * v_sigmoid_backward_3_ld;
                constexpr Long v_tanh_backward_1_ld = 6;
                T* const v_tanh_backward_1 = p_tanh_backward_1 + start * v_tanh_backward_1_ld;
                constexpr Long v_sigmoid_backward_4_ld = 6;
                T* const v_sigmoid_backward_4 = p_sigmoid_backward_4 + start * v_sigmoid_backward_4_ld;
                constexpr Long v_mm_3_ld = 6;
                T* const v_mm_3 = p_mm_3 + start * v_mm_3_ld;
                T* const v_cat_2 = scratch_1;
                constexpr Long v_cat_2_ld = 24;
                #pragma omp for schedule(static) nowait
                for (Long i = 0; i < rows; ++i) {
                    #pragma omp simd
                    for (Long j0 = 0; j0 < 6; ++j0) {
                        v_cat_2[i * v_cat_2_ld + j0] = v_sigmoid_backward_4[i * v_sigmoid_backward_4_ld + j0];
                        v_cat_2[i * v_cat_2_ld + j0 + 6] = v_sigmoid_backward[i * v_sigmoid_backward_ld + j0];
                        v_cat_2[i * v_cat_2_ld + j0 + 12] = v_tanh_backward_1[i * v_tanh_backward_1_ld + j0];
                        const float t1 = v_sigmoid_backward_1[i * v_sigmoid_backward_1_ld + j0] + v_sigmoid_backward_2[i * v_sigmoid_backward_2_ld + j0];
                        const float t2 = t1 + v_sigmoid_backward_3[i * v_sigmoid_backward_3_ld + j0];
                        v_cat_2[i * v_cat_2_ld + j0 + 18] = t2;
                    }
                }
                meeting.wait(team);
                product(rows, v_cat_2, v_cat_2_ld, weight_0, nullptr, v_mm_3, v_mm_3_ld);
                outer(rows, v_cat_2, v_cat_2_ld, 24, v_pull_x, v_pull_x_ld, 6, p_mm_4, adds);
                #pragma omp for schedule(static) nowait
                for (Long first = 0; first < 24; first += 64) {
                    const Long last = std::min<Long>(first + 64, 24);
                    float sum[64] = {};
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j = first; j < last; ++j) {
                            sum[j - first] += v_cat_2[i * v_cat_2_ld + j];
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
    T* const p_gather_h = (T* const)a[5];
    T* const p_cat_1 = (T* const)a[6];
    T* const p_mm_1 = (T* const)a[7];
    const bool adds = (bool)a[8];
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 40, serial_once);
        for (last = first + 1; last < steps + count && pays_threads(*last, 40, serial_once) == pays;) ++last;
        Meeting meeting(company);
#pragma omp parallel if (pays) num_threads(threads_in(company))
        {
            const int team = omp_get_num_threads();
            for (const Step* at = first; at < last; ++at) {
                const Step& step = *at;
                const Long start = step.start, first_of_edges = step.edge_start, rows = step.stop - start;
                [[maybe_unused]] const Long edges = step.edge_stop - first_of_edges;
                [[maybe_unused]] const Long reads_from = step.reads_from, read_at = step.read_at;
                constexpr Long v_children_h_ld = 18;
                T* const v_children_h = p_gather_h + (start - num_leaves) * v_children_h_ld;
                constexpr Long v_cat_1_ld = 36;
                T* const v_cat_1 = p_cat_1 + (start - num_leaves) * v_cat_1_ld;
                outer(rows, v_cat_1, v_cat_1_ld, 36, v_children_h, v_children_h_ld, 18, p_mm_1, adds);
                meeting.wait(team);
            }
            if (team > 1) meeting.ends();
        }
    }
}
