// BinaryTreeLSTM, method vertex

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
                constexpr Long v_x_ld = 18;
                T* const v_x = p_addmm + start * v_x_ld;
                product(rows, v_pull_x, v_pull_x_ld, weight_0, p_params_2, v_x, v_x_ld);
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
    T* const p_add_3 = (T* const)a[16];
    T* const p_sigmoid_3 = (T* const)a[17];
    T* const p_mul_3 = (T* const)a[18];
    T* const scratch_1 = (T* const)a[19];
    const Long num_computed = (Long)a[20];
    Long& packed = a[21];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[22];
    const Weight weight_0 = {p_params_3, packs ? room_0 : nullptr, true, 30, 12};
    if (must_pack)
#pragma omp parallel if (360 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
    }
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 64, serial);
        for (last = first + 1; last < steps + count && pays_threads(*last, 64, serial) == pays;) ++last;
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
                    const T* const v_children_h = g_h;
                    constexpr Long v_children_h_ld = 12;
                    const T* const g_c = reads_from < 0 ? gathered_c + (start - num_leaves) * 12 : state_c + reads_from * 6;
                    gather(state_c, child_rows + (start - num_leaves) * 2, rows, 2, 6, gathered_c + (start - num_leaves) * 12);
                    const T* const v_left_c = g_c + 0;
                    constexpr Long v_left_c_ld = 12;
                    const T* const v_right_c = g_c + 6;
                    constexpr Long v_right_c_ld = 12;
                    constexpr Long v_x_ld = 18;
                    T* const v_x = p_addmm + start * v_x_ld;
                    constexpr Long v_sigmoid_ld = 6;
                    T* const v_sigmoid = p_sigmoid + start * v_sigmoid_ld;
                    constexpr Long v_tanh_ld = 6;
                    T* const v_tanh = p_tanh + start * v_tanh_ld;
                    constexpr Long v_sigmoid_1_ld = 6;
                    T* const v_sigmoid_1 = p_sigmoid_1 + (start - num_leaves) * v_sigmoid_1_ld;
                    constexpr Long v_sigmoid_2_ld = 6;
                    T* const v_sigmoid_2 = p_sigmoid_2 + (start - num_leaves) * v_sigmoid_2_ld;
                    constexpr Long v_c_ld = 6;
                    T* const v_c = p_add_3 + start * v_c_ld;
                    constexpr Long v_sigmoid_3_ld = 6;
                    T* const v_sigmoid_3 = p_sigmoid_3 + start * v_sigmoid_3_ld;
                    constexpr Long v_h_ld = 6;
                    T* const v_h = p_mul_3 + start * v_h_ld;
                    T* const v_mm = scratch_1;
                    constexpr Long v_mm_ld = 30;
                    if (reads_from < 0) {
                    meeting.wait(team);
                    }
                    product(rows, v_children_h, v_children_h_ld, weight_0, nullptr, v_mm, v_mm_ld);
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t1 = v_mm[i * v_mm_ld + j0] + v_x[i * v_x_ld + j0];
                            const float t2 = sigmoid(t1);
                            v_sigmoid[i * v_sigmoid_ld + j0] = t2;
                            const float t3 = v_mm[i * v_mm_ld + j0 + 12] + v_x[i * v_x_ld + j0 + 12];
                            const float t4 = tanh_of(t3);
                            v_tanh[i * v_tanh_ld + j0] = t4;
                            const float t5 = sigmoid(v_mm[i * v_mm_ld + j0 + 18]);
                            v_sigmoid_1[i * v_sigmoid_1_ld + j0] = t5;
                            const float t6 = sigmoid(v_mm[i * v_mm_ld + j0 + 24]);
                            v_sigmoid_2[i * v_sigmoid_2_ld + j0] = t6;
                            const float t7 = t2 * t4;
                            const float t8 = t5 * v_left_c[i * v_left_c_ld + j0];
                            const float t9 = t7 + t8;
                            const float t10 = t6 * v_right_c[i * v_right_c_ld + j0];
                            const float t11 = t9 + t10;
                            v_c[i * v_c_ld + j0] = t11;
                            const float t12 = v_mm[i * v_mm_ld + j0 + 6] + v_x[i * v_x_ld + j0 + 6];
                            const float t13 = sigmoid(t12);
                            v_sigmoid_3[i * v_sigmoid_3_ld + j0] = t13;
                            const float t14 = tanh_of(t11);
                            const float t15 = t13 * t14;
                            v_h[i * v_h_ld + j0] = t15;
                        }
                    }
                    meeting.wait(team);
                } else {
                    constexpr Long v_x_ld = 18;
                    T* const v_x = p_addmm + start * v_x_ld;
                    constexpr Long v_sigmoid_ld = 6;
                    T* const v_sigmoid = p_sigmoid + start * v_sigmoid_ld;
                    constexpr Long v_tanh_ld = 6;
                    T* const v_tanh = p_tanh + start * v_tanh_ld;
                    constexpr Long v_c_ld = 6;
                    T* const v_c = p_add_3 + start * v_c_ld;
                    constexpr Long v_sigmoid_3_ld = 6;
                    T* const v_sigmoid_3 = p_sigmoid_3 + start * v_sigmoid_3_ld;
                    constexpr Long v_h_ld = 6;
                    T* const v_h = p_mul_3 + start * v_h_ld;
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t1 = sigmoid(v_x[i * v_x_ld + j0]);
                            v_sigmoid[i * v_sigmoid_ld + j0] = t1;
                            const float t2 = tanh_of(v_x[i * v_x_ld + j0 + 12]);
                            v_tanh[i * v_tanh_ld + j0] = t2;
                            const float t3 = t1 * t2;
                            v_c[i * v_c_ld + j0] = t3;
                            const float t4 = sigmoid(v_x[i * v_x_ld + j0 + 6]);
                            v_sigmoid_3[i * v_sigmoid_3_ld + j0] = t4;
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
    T* const p_gather_c_0 = (T* const)a[5];
    T* const p_gather_c_1 = (T* const)a[6];
    T* const received_h = (T* const)a[7];
    const Long group_start = (Long)a[8];
    const T* const outside_h = (T* const)a[9];
    const T* const placed_sent_h = (T* const)a[10];
    const Index* const placed_places = (Index* const)a[11];
    const Index* const placed_offset = (Index* const)a[12];
    const T* const listed_sent_h = (T* const)a[13];
    const Index* const listed_places_h = (Index* const)a[14];
    const Index* const listed_offset = (Index* const)a[15];
    T* const received_c = (T* const)a[16];
    const T* const outside_c = (T* const)a[17];
    const T* const placed_sent_c = (T* const)a[18];
    const T* const listed_sent_c = (T* const)a[19];
    const Index* const listed_places_c = (Index* const)a[20];
    T* const p_grad_push_h = (T* const)a[21];
    const Long ld_grad_push_h = (Long)a[22];
    const T* const p_params_3 = (T* const)a[23];
    T* const p_sigmoid = (T* const)a[24];
    T* const p_tanh = (T* const)a[25];
    T* const p_sigmoid_1 = (T* const)a[26];
    T* const p_sigmoid_2 = (T* const)a[27];
    T* const p_add_3 = (T* const)a[28];
    T* const p_sigmoid_3 = (T* const)a[29];
    float* const send_c = (float* const)a[30];
    T* const p_cat_2 = (T* const)a[31];
    float* const send_h = (float* const)a[32];
    const Long num_computed = (Long)a[33];
    Long& packed = a[34];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[35];
    const Weight weight_0 = {p_params_3, packs ? room_0 : nullptr, false, 12, 30};
    const Long first_sending = (Long)a[36];
    if (must_pack)
#pragma omp parallel if (360 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
    }
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 64, serial);
        for (last = first + 1; last < steps + count && pays_threads(*last, 64, serial) == pays;) ++last;
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
                    constexpr Long v_left_c_ld = 12;
                    T* const v_left_c = p_gather_c_0 + (start - num_leaves) * v_left_c_ld;
                    constexpr Long v_right_c_ld = 12;
                    T* const v_right_c = p_gather_c_1 + (start - num_leaves) * v_right_c_ld;
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
                    T* const v_sigmoid_1 = p_sigmoid_1 + (start - num_leaves) * v_sigmoid_1_ld;
                    constexpr Long v_sigmoid_2_ld = 6;
                    T* const v_sigmoid_2 = p_sigmoid_2 + (start - num_leaves) * v_sigmoid_2_ld;
                    constexpr Long v_c_ld = 6;
                    T* const v_c = p_add_3 + start * v_c_ld;
                    constexpr Long v_sigmoid_3_ld = 6;
                    T* const v_sigmoid_3 = p_sigmoid_3 + start * v_sigmoid_3_ld;
                    float* const v_mul_6 = send_c + (start - num_leaves) * 12 + 6;
                    constexpr Long v_mul_6_ld = 12;
                    float* const v_mul_8 = send_c + (start - num_leaves) * 12 + 0;
                    constexpr Long v_mul_8_ld = 12;
                    constexpr Long v_cat_2_ld = 30;
                    T* const v_cat_2 = p_cat_2 + start * v_cat_2_ld;
                    float* const v_mm_2 = send_h + (start - num_leaves) * 12;
                    constexpr Long v_mm_2_ld = 12;
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t1 = v_grad_scatter_h[i * v_grad_scatter_h_ld + j0] + v_grad_push_h[i * v_grad_push_h_ld + j0];
                            const float t2 = t1 * v_sigmoid_3[i * v_sigmoid_3_ld + j0];
                            const float t3 = tanh_of(v_c[i * v_c_ld + j0]);
                            const float t4 = -t3;
                            const float t5 = fused(t4, t3, float(1.0));
                            const float t6 = t2 * t5;
                            const float t7 = v_grad_scatter_c[i * v_grad_scatter_c_ld + j0] + t6;
                            const float t8 = t7 * v_sigmoid_2[i * v_sigmoid_2_ld + j0];
                            v_mul_6[i * v_mul_6_ld + j0] = t8;
                            const float t9 = t7 * v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            v_mul_8[i * v_mul_8_ld + j0] = t9;
                            const float t10 = t7 * v_tanh[i * v_tanh_ld + j0];
                            const float t11 = float(1.0) - v_sigmoid[i * v_sigmoid_ld + j0];
                            const float t12 = t10 * t11;
                            const float t13 = t12 * v_sigmoid[i * v_sigmoid_ld + j0];
                            v_cat_2[i * v_cat_2_ld + j0] = t13;
                            const float t14 = t1 * t3;
                            const float t15 = float(1.0) - v_sigmoid_3[i * v_sigmoid_3_ld + j0];
                            const float t16 = t14 * t15;
                            const float t17 = t16 * v_sigmoid_3[i * v_sigmoid_3_ld + j0];
                            v_cat_2[i * v_cat_2_ld + j0 + 6] = t17;
                            const float t18 = t7 * v_sigmoid[i * v_sigmoid_ld + j0];
                            const float t19 = -v_tanh[i * v_tanh_ld + j0];
                            const float t20 = fused(t19, v_tanh[i * v_tanh_ld + j0], float(1.0));
                            const float t21 = t18 * t20;
                            v_cat_2[i * v_cat_2_ld + j0 + 12] = t21;
                            const float t22 = t7 * v_left_c[i * v_left_c_ld + j0];
                            const float t23 = float(1.0) - v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            const float t24 = t22 * t23;
                            const float t25 = t24 * v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            v_cat_2[i * v_cat_2_ld + j0 + 18] = t25;
                            const float t26 = t7 * v_right_c[i * v_right_c_ld + j0];
                            const float t27 = float(1.0) - v_sigmoid_2[i * v_sigmoid_2_ld + j0];
                            const float t28 = t26 * t27;
                            const float t29 = t28 * v_sigmoid_2[i * v_sigmoid_2_ld + j0];
                            v_cat_2[i * v_cat_2_ld + j0 + 24] = t29;
                        }
                    }
                    meeting.wait(team);
                    if (start + rows > first_sending)
                    product(rows, v_cat_2, v_cat_2_ld, weight_0, nullptr, v_mm_2, v_mm_2_ld);
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
                    constexpr Long v_c_ld = 6;
                    T* const v_c = p_add_3 + start * v_c_ld;
                    constexpr Long v_sigmoid_3_ld = 6;
                    T* const v_sigmoid_3 = p_sigmoid_3 + start * v_sigmoid_3_ld;
                    constexpr Long v_cat_2_ld = 30;
                    T* const v_cat_2 = p_cat_2 + start * v_cat_2_ld;
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t1 = v_grad_scatter_h[i * v_grad_scatter_h_ld + j0] + v_grad_push_h[i * v_grad_push_h_ld + j0];
                            const float t2 = t1 * v_sigmoid_3[i * v_sigmoid_3_ld + j0];
                            const float t3 = tanh_of(v_c[i * v_c_ld + j0]);
                            const float t4 = -t3;
                            const float t5 = fused(t4, t3, float(1.0));
                            const float t6 = t2 * t5;
                            const float t7 = v_grad_scatter_c[i * v_grad_scatter_c_ld + j0] + t6;
                            const float t8 = t7 * v_tanh[i * v_tanh_ld + j0];
                            const float t9 = float(1.0) - v_sigmoid[i * v_sigmoid_ld + j0];
                            const float t10 = t8 * t9;
                            const float t11 = t10 * v_sigmoid[i * v_sigmoid_ld + j0];
                            v_cat_2[i * v_cat_2_ld + j0] = t11;
                            const float t12 = t1 * t3;
                            const float t13 = float(1.0) - v_sigmoid_3[i * v_sigmoid_3_ld + j0];
                            const float t14 = t12 * t13;
                            const float t15 = t14 * v_sigmoid_3[i * v_sigmoid_3_ld + j0];
                            v_cat_2[i * v_cat_2_ld + j0 + 6] = t15;
                            const float t16 = t7 * v_sigmoid[i * v_sigmoid_ld + j0];
                            const float t17 = -v_tanh[i * v_tanh_ld + j0];
                            const float t18 = fused(t17, v_tanh[i * v_tanh_ld + j0], float(1.0));
                            const float t19 = t16 * t18;
                            v_cat_2[i * v_cat_2_ld + j0 + 12] = t19;
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
    T* const p_cat_2 = (T* const)a[7];
    T* const p_mm_3 = (T* const)a[8];
    T* const p_mm_4 = (T* const)a[9];
    T* const p_view = (T* const)a[10];
    const bool adds = (bool)a[11];
    const Long num_computed = (Long)a[12];
    Long& packed = a[13];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[14];
    const Weight weight_0 = {p_params_1, packs ? room_0 : nullptr, false, 6, 18};
    if (must_pack)
#pragma omp parallel if (108 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
    }
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
                constexpr Long v_pull_x_ld = 6;
                T* const v_pull_x = p_pull_x + start * v_pull_x_ld;
                constexpr Long v_cat_2_ld = 30;
                T* const v_cat_2 = p_cat_2 + start * v_cat_2_ld;
                constexpr Long v_mm_3_ld = 6;
                T* const v_mm_3 = p_mm_3 + start * v_mm_3_ld;
                product(rows, v_cat_2, v_cat_2_ld, weight_0, nullptr, v_mm_3, v_mm_3_ld);
                outer(rows, v_cat_2, v_cat_2_ld, 18, v_pull_x, v_pull_x_ld, 6, p_mm_4, adds);
                #pragma omp for schedule(static) nowait
                for (Long first = 0; first < 18; first += 64) {
                    const Long last = std::min<Long>(first + 64, 18);
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
    T* const p_cat_2 = (T* const)a[6];
    T* const p_mm_1 = (T* const)a[7];
    const bool adds = (bool)a[8];
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 22, serial_once);
        for (last = first + 1; last < steps + count && pays_threads(*last, 22, serial_once) == pays;) ++last;
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
                constexpr Long v_cat_2_ld = 30;
                T* const v_cat_2 = p_cat_2 + start * v_cat_2_ld;
                outer(rows, v_cat_2, v_cat_2_ld, 30, v_children_h, v_children_h_ld, 12, p_mm_1, adds);
                meeting.wait(team);
            }
            if (team > 1) meeting.ends();
        }
    }
}
