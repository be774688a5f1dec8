// GRUCell, method vertex

extern "C" void eager(Long* a, const Step* steps, Long count) {
    const Product product = (Product)a[0];
    const Outer outer = (Outer)a[1];
    const Pack pack = (Pack)a[2];
    Company* const company = (Company* const)a[3];
    const Long num_leaves = (Long)a[4];
    T* const p_pull_x = (T* const)a[5];
    const T* const p_params_1 = (T* const)a[6];
    const T* const p_params_3 = (T* const)a[7];
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
                product(rows, v_pull_x, v_pull_x_ld, weight_0, p_params_3, v_addmm, v_addmm_ld);
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
    const T* const p_params_2 = (T* const)a[8];
    const T* const p_params_4 = (T* const)a[9];
    T* const p_addmm = (T* const)a[10];
    T* const p_clone_default = (T* const)a[11];
    T* const p_sigmoid = (T* const)a[12];
    T* const p_tanh = (T* const)a[13];
    T* const p_sigmoid_1 = (T* const)a[14];
    T* const p_add_3 = (T* const)a[15];
    T* const scratch_1 = (T* const)a[16];
    const Long num_computed = (Long)a[17];
    Long& packed = a[18];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[19];
    const Weight weight_0 = {p_params_2, packs ? room_0 : nullptr, true, 18, 6};
    if (must_pack)
#pragma omp parallel if (108 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
    }
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 36, serial);
        for (last = first + 1; last < steps + count && pays_threads(*last, 36, serial) == pays;) ++last;
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
                    const T* const g_h = reads_from < 0 ? gathered_h + (start - num_leaves) * 6 : state_h + reads_from * 6;
                    gather(state_h, child_rows + (start - num_leaves) * 1, rows, 1, 6, gathered_h + (start - num_leaves) * 6);
                    const T* const v_before = g_h + 0;
                    constexpr Long v_before_ld = 6;
                    constexpr Long v_addmm_ld = 18;
                    T* const v_addmm = p_addmm + start * v_addmm_ld;
                    constexpr Long v_clone_default_ld = 6;
                    T* const v_clone_default = p_clone_default + start * v_clone_default_ld;
                    constexpr Long v_sigmoid_ld = 6;
                    T* const v_sigmoid = p_sigmoid + start * v_sigmoid_ld;
                    constexpr Long v_n_ld = 6;
                    T* const v_n = p_tanh + start * v_n_ld;
                    constexpr Long v_sigmoid_1_ld = 6;
                    T* const v_sigmoid_1 = p_sigmoid_1 + start * v_sigmoid_1_ld;
                    constexpr Long v_h_ld = 6;
                    T* const v_h = p_add_3 + start * v_h_ld;
                    T* const v_addmm_1 = scratch_1;
                    constexpr Long v_addmm_1_ld = 18;
                    if (reads_from < 0) {
                    meeting.wait(team);
                    }
                    product(rows, v_before, v_before_ld, weight_0, p_params_4, v_addmm_1, v_addmm_1_ld);
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            v_clone_default[i * v_clone_default_ld + j0] = v_addmm_1[i * v_addmm_1_ld + j0 + 12];
                            const float t1 = v_addmm[i * v_addmm_ld + j0] + v_addmm_1[i * v_addmm_1_ld + j0];
                            const float t2 = sigmoid(t1);
                            v_sigmoid[i * v_sigmoid_ld + j0] = t2;
                            const float t3 = t2 * v_addmm_1[i * v_addmm_1_ld + j0 + 12];
                            const float t4 = v_addmm[i * v_addmm_ld + j0 + 12] + t3;
                            const float t5 = tanh_of(t4);
                            v_n[i * v_n_ld + j0] = t5;
                            const float t6 = v_addmm[i * v_addmm_ld + j0 + 6] + v_addmm_1[i * v_addmm_1_ld + j0 + 6];
                            const float t7 = sigmoid(t6);
                            v_sigmoid_1[i * v_sigmoid_1_ld + j0] = t7;
                            const float t8 = v_before[i * v_before_ld + j0] - t5;
                            const float t9 = t7 * t8;
                            const float t10 = t5 + t9;
                            v_h[i * v_h_ld + j0] = t10;
                        }
                    }
                    meeting.wait(team);
                } else {
                    constexpr Long v_addmm_ld = 18;
                    T* const v_addmm = p_addmm + start * v_addmm_ld;
                    constexpr Long v_clone_default_ld = 6;
                    T* const v_clone_default = p_clone_default + start * v_clone_default_ld;
                    constexpr Long v_sigmoid_ld = 6;
                    T* const v_sigmoid = p_sigmoid + start * v_sigmoid_ld;
                    constexpr Long v_n_ld = 6;
                    T* const v_n = p_tanh + start * v_n_ld;
                    constexpr Long v_sigmoid_1_ld = 6;
                    T* const v_sigmoid_1 = p_sigmoid_1 + start * v_sigmoid_1_ld;
                    constexpr Long v_h_ld = 6;
                    T* const v_h = p_add_3 + start * v_h_ld;
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            v_clone_default[i * v_clone_default_ld + j0] = p_params_4[j0 + 12];
                            const float t1 = v_addmm[i * v_addmm_ld + j0] + p_params_4[j0];
                            const float t2 = sigmoid(t1);
                            v_sigmoid[i * v_sigmoid_ld + j0] = t2;
                            const float t3 = t2 * p_params_4[j0 + 12];
                            const float t4 = v_addmm[i * v_addmm_ld + j0 + 12] + t3;
                            const float t5 = tanh_of(t4);
                            v_n[i * v_n_ld + j0] = t5;
                            const float t6 = v_addmm[i * v_addmm_ld + j0 + 6] + p_params_4[j0 + 6];
                            const float t7 = sigmoid(t6);
                            v_sigmoid_1[i * v_sigmoid_1_ld + j0] = t7;
                            const float t8 = float(0.0) - t5;
                            const float t9 = t7 * t8;
                            const float t10 = t5 + t9;
                            v_h[i * v_h_ld + j0] = t10;
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
    T* const received_h = (T* const)a[6];
    const Long group_start = (Long)a[7];
    const T* const outside_h = (T* const)a[8];
    const T* const placed_sent_h = (T* const)a[9];
    const Index* const placed_places = (Index* const)a[10];
    const Index* const placed_offset = (Index* const)a[11];
    const T* const listed_sent_h = (T* const)a[12];
    const Index* const listed_places_h = (Index* const)a[13];
    const Index* const listed_offset = (Index* const)a[14];
    T* const p_grad_push_h = (T* const)a[15];
    const Long ld_grad_push_h = (Long)a[16];
    const T* const p_params_2 = (T* const)a[17];
    T* const p_clone_default = (T* const)a[18];
    T* const p_sigmoid = (T* const)a[19];
    T* const p_tanh = (T* const)a[20];
    T* const p_sigmoid_1 = (T* const)a[21];
    T* const p_sigmoid_backward = (T* const)a[22];
    T* const p_tanh_backward = (T* const)a[23];
    T* const p_sigmoid_backward_1 = (T* const)a[24];
    T* const p_cat = (T* const)a[25];
    float* const send_h = (float* const)a[26];
    T* const scratch_1 = (T* const)a[27];
    T* const scratch_2 = (T* const)a[28];
    const Long num_computed = (Long)a[29];
    Long& packed = a[30];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[31];
    const Weight weight_0 = {p_params_2, packs ? room_0 : nullptr, false, 6, 18};
    if (must_pack)
#pragma omp parallel if (108 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
    }
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 54, serial);
        for (last = first + 1; last < steps + count && pays_threads(*last, 54, serial) == pays;) ++last;
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
                    constexpr Long v_before_ld = 6;
                    T* const v_before = p_gather_h_0 + (start - num_leaves) * v_before_ld;
                    T* v_grad_scatter_h = received_h;
                    constexpr Long v_grad_scatter_h_ld = 6;
                    if (placed_sent_h && !placed_offset && !listed_sent_h && !outside_h && read_at >= 0)
                        v_grad_scatter_h = const_cast<T*>(placed_sent_h) + read_at * 6;
                    else receive(Parents<T>{placed_sent_h, placed_places, placed_offset}, Parents<T>{listed_sent_h, listed_places_h, listed_offset}, outside_h, group_start + start, rows, 6, v_grad_scatter_h);
                    const Long v_grad_push_h_ld = ld_grad_push_h;
                    T* const v_grad_push_h = p_grad_push_h + start * v_grad_push_h_ld;
                    constexpr Long v_clone_default_ld = 6;
                    T* const v_clone_default = p_clone_default + start * v_clone_default_ld;
                    constexpr Long v_sigmoid_ld = 6;
                    T* const v_sigmoid = p_sigmoid + start * v_sigmoid_ld;
                    constexpr Long v_n_ld = 6;
                    T* const v_n = p_tanh + start * v_n_ld;
                    constexpr Long v_sigmoid_1_ld = 6;
                    T* const v_sigmoid_1 = p_sigmoid_1 + start * v_sigmoid_1_ld;
                    constexpr Long v_sigmoid_backward_ld = 6;
                    T* const v_sigmoid_backward = p_sigmoid_backward + start * v_sigmoid_backward_ld;
                    constexpr Long v_tanh_backward_ld = 6;
                    T* const v_tanh_backward = p_tanh_backward + start * v_tanh_backward_ld;
                    constexpr Long v_sigmoid_backward_1_ld = 6;
                    T* const v_sigmoid_backward_1 = p_sigmoid_backward_1 + start * v_sigmoid_backward_1_ld;
                    constexpr Long v_cat_ld = 18;
                    T* const v_cat = p_cat + start * v_cat_ld;
                    float* const v_add_6 = send_h + (start - num_leaves) * 6 + 0;
                    constexpr Long v_add_6_ld = 6;
                    T* const v_mm = scratch_1;
                    constexpr Long v_mm_ld = 6;
                    T* const v_mul_2 = scratch_2;
                    constexpr Long v_mul_2_ld = 6;
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t1 = v_grad_scatter_h[i * v_grad_scatter_h_ld + j0] + v_grad_push_h[i * v_grad_push_h_ld + j0];
                            const float t2 = t1 * v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            v_mul_2[i * v_mul_2_ld + j0] = t2;
                            const float t3 = v_before[i * v_before_ld + j0] - v_n[i * v_n_ld + j0];
                            const float t4 = t1 * t3;
                            const float t5 = float(1.0) - v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            const float t6 = t4 * t5;
                            const float t7 = t6 * v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            v_sigmoid_backward[i * v_sigmoid_backward_ld + j0] = t7;
                            const float t8 = -t2;
                            const float t9 = t1 + t8;
                            const float t10 = -v_n[i * v_n_ld + j0];
                            const float t11 = fused(t10, v_n[i * v_n_ld + j0], float(1.0));
                            const float t12 = t9 * t11;
                            v_tanh_backward[i * v_tanh_backward_ld + j0] = t12;
                            const float t13 = t12 * v_clone_default[i * v_clone_default_ld + j0];
                            const float t14 = float(1.0) - v_sigmoid[i * v_sigmoid_ld + j0];
                            const float t15 = t13 * t14;
                            const float t16 = t15 * v_sigmoid[i * v_sigmoid_ld + j0];
                            v_sigmoid_backward_1[i * v_sigmoid_backward_1_ld + j0] = t16;
                            v_cat[i * v_cat_ld + j0] = t16;
                            v_cat[i * v_cat_ld + j0 + 6] = t7;
                            const float t17 = t12 * v_sigmoid[i * v_sigmoid_ld + j0];
                            v_cat[i * v_cat_ld + j0 + 12] = t17;
                        }
                    }
                    meeting.wait(team);
                    product(rows, v_cat, v_cat_ld, weight_0, nullptr, v_mm, v_mm_ld);
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t18 = v_mul_2[i * v_mul_2_ld + j0] + v_mm[i * v_mm_ld + j0];
                            v_add_6[i * v_add_6_ld + j0] = t18;
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
                    constexpr Long v_clone_default_ld = 6;
                    T* const v_clone_default = p_clone_default + start * v_clone_default_ld;
                    constexpr Long v_sigmoid_ld = 6;
                    T* const v_sigmoid = p_sigmoid + start * v_sigmoid_ld;
                    constexpr Long v_n_ld = 6;
                    T* const v_n = p_tanh + start * v_n_ld;
                    constexpr Long v_sigmoid_1_ld = 6;
                    T* const v_sigmoid_1 = p_sigmoid_1 + start * v_sigmoid_1_ld;
                    constexpr Long v_sigmoid_backward_ld = 6;
                    T* const v_sigmoid_backward = p_sigmoid_backward + start * v_sigmoid_backward_ld;
                    constexpr Long v_tanh_backward_ld = 6;
                    T* const v_tanh_backward = p_tanh_backward + start * v_tanh_backward_ld;
                    constexpr Long v_sigmoid_backward_1_ld = 6;
                    T* const v_sigmoid_backward_1 = p_sigmoid_backward_1 + start * v_sigmoid_backward_1_ld;
                    constexpr Long v_cat_ld = 18;
                    T* const v_cat = p_cat + start * v_cat_ld;
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t1 = v_grad_scatter_h[i * v_grad_scatter_h_ld + j0] + v_grad_push_h[i * v_grad_push_h_ld + j0];
                            const float t2 = float(0.0) - v_n[i * v_n_ld + j0];
                            const float t3 = t1 * t2;
                            const float t4 = float(1.0) - v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            const float t5 = t3 * t4;
                            const float t6 = t5 * v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            v_sigmoid_backward[i * v_sigmoid_backward_ld + j0] = t6;
                            const float t7 = t1 * v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            const float t8 = -t7;
                            const float t9 = t1 + t8;
                            const float t10 = -v_n[i * v_n_ld + j0];
                            const float t11 = fused(t10, v_n[i * v_n_ld + j0], float(1.0));
                            const float t12 = t9 * t11;
                            v_tanh_backward[i * v_tanh_backward_ld + j0] = t12;
                            const float t13 = t12 * v_clone_default[i * v_clone_default_ld + j0];
                            const float t14 = float(1.0) - v_sigmoid[i * v_sigmoid_ld + j0];
                            const float t15 = t13 * t14;
                            const float t16 = t15 * v_sigmoid[i * v_sigmoid_ld + j0];
                            v_sigmoid_backward_1[i * v_sigmoid_backward_1_ld + j0] = t16;
                            v_cat[i * v_cat_ld + j0] = t16;
                            v_cat[i * v_cat_ld + j0 + 6] = t6;
                            const float t17 = t12 * v_sigmoid[i * v_sigmoid_ld + j0];
                            v_cat[i * v_cat_ld + j0 + 12] = t17;
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
    T* const p_tanh_backward = (T* const)a[8];
    T* const p_sigmoid_backward_1 = (T* const)a[9];
    T* const p_cat = (T* const)a[10];
    T* const p_mm_2 = (T* const)a[11];
    T* const p_mm_3 = (T* const)a[12];
    T* const p_view_1 = (T* const)a[13];
    T* const p_view = (T* const)a[14];
    T* const scratch_1 = (T* const)a[15];
    const bool adds = (bool)a[16];
    const Long num_computed = (Long)a[17];
    Long& packed = a[18];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[19];
    const Weight weight_0 = {p_params_1, packs ? room_0 : nullptr, false, 6, 18};
    if (must_pack)
#pragma omp parallel if (108 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
    }
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 31, serial_once);
        for (last = first + 1; last < steps + count && pays_threads(*last, 31, serial_once) == pays;) ++last;
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
                constexpr Long v_tanh_backward_ld = 6;
                T* const v_tanh_backward = p_tanh_backward + start * v_tanh_backward_ld;
                constexpr Long v_sigmoid_backward_1_ld = 6;
                T* const v_sigmoid_backward_1 = p_sigmoid_backward_1 + start * v_sigmoid_backward_1_ld;
                constexpr Long v_cat_ld = 18;
                T* const v_cat = p_cat + start * v_cat_ld;
                constexpr Long v_mm_2_ld = 6;
                T* const v_mm_2 = p_mm_2 + start * v_mm_2_ld;
                T* const v_cat_1 = scratch_1;
                constexpr Long v_cat_1_ld = 18;
                #pragma omp for schedule(static) nowait
                for (Long i = 0; i < rows; ++i) {
                    #pragma omp simd
                    for (Long j0 = 0; j0 < 6; ++j0) {
                        v_cat_1[i * v_cat_1_ld + j0] = v_sigmoid_backward_1[i * v_sigmoid_backward_1_ld + j0];
                        v_cat_1[i * v_cat_1_ld + j0 + 6] = v_sigmoid_backward[i * v_sigmoid_backward_ld + j0];
                        v_cat_1[i * v_cat_1_ld + j0 + 12] = v_tanh_backward[i * v_tanh_backward_ld + j0];
                    }
                }
                meeting.wait(team);
                product(rows, v_cat_1, v_cat_1_ld, weight_0, nullptr, v_mm_2, v_mm_2_ld);
                outer(rows, v_cat_1, v_cat_1_ld, 18, v_pull_x, v_pull_x_ld, 6, p_mm_3, adds);
                #pragma omp for schedule(static) nowait
                for (Long first = 0; first < 18; first += 64) {
                    const Long last = std::min<Long>(first + 64, 18);
                    float sum[64] = {};
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j = first; j < last; ++j) {
                            sum[j - first] += v_cat[i * v_cat_ld + j];
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
    T* const p_cat = (T* const)a[6];
    T* const p_mm_1 = (T* const)a[7];
    const bool adds = (bool)a[8];
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
                constexpr Long v_before_ld = 6;
                T* const v_before = p_gather_h_0 + (start - num_leaves) * v_before_ld;
                constexpr Long v_cat_ld = 18;
                T* const v_cat = p_cat + start * v_cat_ld;
                outer(rows, v_cat, v_cat_ld, 18, v_before, v_before_ld, 6, p_mm_1, adds);
                meeting.wait(team);
            }
            if (team > 1) meeting.ends();
        }
    }
}
