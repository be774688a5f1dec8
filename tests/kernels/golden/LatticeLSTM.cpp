// LatticeLSTM, method word

extern "C" void eager(Long* a, const Step* steps, Long count) {
    const Product product = (Product)a[0];
    const Outer outer = (Outer)a[1];
    const Pack pack = (Pack)a[2];
    Company* const company = (Company* const)a[3];
    const Long num_leaves = (Long)a[4];
    T* const p_pull_word = (T* const)a[5];
    const T* const p_params_4 = (T* const)a[6];
    const T* const p_params_5 = (T* const)a[7];
    T* const p_addmm = (T* const)a[8];
    T* const p_clone_default = (T* const)a[9];
    const Long num_computed = (Long)a[10];
    Long& packed = a[11];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[12];
    const Weight weight_0 = {p_params_4, packs ? room_0 : nullptr, true, 18, 6};
    if (must_pack)
#pragma omp parallel if (108 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
    }
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 7, serial_once);
        for (last = first + 1; last < steps + count && pays_threads(*last, 7, serial_once) == pays;) ++last;
        Meeting meeting(company);
#pragma omp parallel if (pays) num_threads(threads_in(company))
        {
            const int team = omp_get_num_threads();
            for (const Step* at = first; at < last; ++at) {
                const Step& step = *at;
                const Long start = step.start, first_of_edges = step.edge_start, rows = step.stop - start;
                [[maybe_unused]] const Long edges = step.edge_stop - first_of_edges;
                [[maybe_unused]] const Long reads_from = step.reads_from, read_at = step.read_at;
                constexpr Long v_x_ld = 6;
                T* const v_x = p_pull_word + start * v_x_ld;
                constexpr Long v_addmm_ld = 18;
                T* const v_addmm = p_addmm + start * v_addmm_ld;
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
                product(rows, v_x, v_x_ld, weight_0, p_params_5, v_addmm, v_addmm_ld);
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
    const T* const p_params_6 = (T* const)a[10];
    const T* const p_params_9 = (T* const)a[11];
    T* const p_addmm = (T* const)a[12];
    T* const p_sigmoid = (T* const)a[13];
    T* const p_sigmoid_1 = (T* const)a[14];
    T* const p_tanh = (T* const)a[15];
    T* const p_add_1 = (T* const)a[16];
    T* const p_mm_1 = (T* const)a[17];
    T* const scratch_1 = (T* const)a[18];
    const Long num_computed = (Long)a[19];
    Long& packed = a[20];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[21];
    const Weight weight_0 = {p_params_6, packs ? room_0 : nullptr, true, 18, 6};
    T* const room_1 = (T* const)a[22];
    const Weight weight_1 = {p_params_9, packs ? room_1 : nullptr, true, 6, 6};
    if (must_pack)
#pragma omp parallel if (144 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
        pack(weight_1);
    }
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 33, serial);
        for (last = first + 1; last < steps + count && pays_threads(*last, 33, serial) == pays;) ++last;
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
                    const T* const v_first_h = g_h + 0;
                    constexpr Long v_first_h_ld = 6;
                    const T* const g_c = reads_from < 0 ? gathered_c + (start - num_leaves) * 6 : state_c + reads_from * 6;
                    gather(state_c, child_rows + (start - num_leaves) * 1, rows, 1, 6, gathered_c + (start - num_leaves) * 6);
                    const T* const v_first_c = g_c + 0;
                    constexpr Long v_first_c_ld = 6;
                    constexpr Long v_addmm_ld = 18;
                    T* const v_addmm = p_addmm + start * v_addmm_ld;
                    constexpr Long v_sigmoid_ld = 6;
                    T* const v_sigmoid = p_sigmoid + start * v_sigmoid_ld;
                    constexpr Long v_sigmoid_1_ld = 6;
                    T* const v_sigmoid_1 = p_sigmoid_1 + start * v_sigmoid_1_ld;
                    constexpr Long v_tanh_ld = 6;
                    T* const v_tanh = p_tanh + start * v_tanh_ld;
                    constexpr Long v_c_ld = 6;
                    T* const v_c = p_add_1 + start * v_c_ld;
                    constexpr Long v_h_ld = 6;
                    T* const v_h = p_mm_1 + start * v_h_ld;
                    T* const v_mm = scratch_1;
                    constexpr Long v_mm_ld = 18;
                    if (reads_from < 0) {
                    meeting.wait(team);
                    }
                    product(rows, v_first_h, v_first_h_ld, weight_0, nullptr, v_mm, v_mm_ld);
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t1 = v_addmm[i * v_addmm_ld + j0 + 6] + v_mm[i * v_mm_ld + j0 + 6];
                            const float t2 = sigmoid(t1);
                            v_sigmoid[i * v_sigmoid_ld + j0] = t2;
                            const float t3 = v_addmm[i * v_addmm_ld + j0] + v_mm[i * v_mm_ld + j0];
                            const float t4 = sigmoid(t3);
                            v_sigmoid_1[i * v_sigmoid_1_ld + j0] = t4;
                            const float t5 = v_addmm[i * v_addmm_ld + j0 + 12] + v_mm[i * v_mm_ld + j0 + 12];
                            const float t6 = tanh_of(t5);
                            v_tanh[i * v_tanh_ld + j0] = t6;
                            const float t7 = t2 * v_first_c[i * v_first_c_ld + j0];
                            const float t8 = t4 * t6;
                            const float t9 = t7 + t8;
                            v_c[i * v_c_ld + j0] = t9;
                        }
                    }
                    meeting.wait(team);
                    product(rows, v_c, v_c_ld, weight_1, nullptr, v_h, v_h_ld);
                    meeting.wait(team);
                } else {
                    constexpr Long v_addmm_ld = 18;
                    T* const v_addmm = p_addmm + start * v_addmm_ld;
                    constexpr Long v_sigmoid_ld = 6;
                    T* const v_sigmoid = p_sigmoid + start * v_sigmoid_ld;
                    constexpr Long v_sigmoid_1_ld = 6;
                    T* const v_sigmoid_1 = p_sigmoid_1 + start * v_sigmoid_1_ld;
                    constexpr Long v_tanh_ld = 6;
                    T* const v_tanh = p_tanh + start * v_tanh_ld;
                    constexpr Long v_c_ld = 6;
                    T* const v_c = p_add_1 + start * v_c_ld;
                    constexpr Long v_h_ld = 6;
                    T* const v_h = p_mm_1 + start * v_h_ld;
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t1 = sigmoid(v_addmm[i * v_addmm_ld + j0 + 6]);
                            v_sigmoid[i * v_sigmoid_ld + j0] = t1;
                            const float t2 = sigmoid(v_addmm[i * v_addmm_ld + j0]);
                            v_sigmoid_1[i * v_sigmoid_1_ld + j0] = t2;
                            const float t3 = tanh_of(v_addmm[i * v_addmm_ld + j0 + 12]);
                            v_tanh[i * v_tanh_ld + j0] = t3;
                            const float t4 = t1 * float(0.0);
                            const float t5 = t2 * t3;
                            const float t6 = t4 + t5;
                            v_c[i * v_c_ld + j0] = t6;
                        }
                    }
                    meeting.wait(team);
                    product(rows, v_c, v_c_ld, weight_1, nullptr, v_h, v_h_ld);
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
    const T* const p_params_6 = (T* const)a[20];
    const T* const p_params_9 = (T* const)a[21];
    T* const p_sigmoid = (T* const)a[22];
    T* const p_sigmoid_1 = (T* const)a[23];
    T* const p_tanh = (T* const)a[24];
    float* const send_c = (float* const)a[25];
    T* const p_cat = (T* const)a[26];
    float* const send_h = (float* const)a[27];
    T* const scratch_1 = (T* const)a[28];
    const Long num_computed = (Long)a[29];
    Long& packed = a[30];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[31];
    const Weight weight_0 = {p_params_9, packs ? room_0 : nullptr, false, 6, 6};
    T* const room_1 = (T* const)a[32];
    const Weight weight_1 = {p_params_6, packs ? room_1 : nullptr, false, 6, 18};
    const Long first_sending = (Long)a[33];
    T* const scratch_2 = (T* const)a[34];
    if (must_pack)
#pragma omp parallel if (144 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
        pack(weight_1);
    }
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 33, serial);
        for (last = first + 1; last < steps + count && pays_threads(*last, 33, serial) == pays;) ++last;
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
                    constexpr Long v_first_c_ld = 6;
                    T* const v_first_c = p_gather_c_0 + (start - num_leaves) * v_first_c_ld;
                    T* v_grad_scatter_h = received_h + start * 6;
                    constexpr Long v_grad_scatter_h_ld = 6;
                    receive(Parents<T>{placed_sent_h, placed_places, placed_offset}, Parents<T>{listed_sent_h, listed_places_h, listed_offset}, outside_h, group_start + start, rows, 6, v_grad_scatter_h);
                    T* v_grad_scatter_c = received_c;
                    constexpr Long v_grad_scatter_c_ld = 6;
                    if (placed_sent_c && !placed_offset && !listed_sent_c && !outside_c && read_at >= 0)
                        v_grad_scatter_c = const_cast<T*>(placed_sent_c) + read_at * 6;
                    else receive(Parents<T>{placed_sent_c, placed_places, placed_offset}, Parents<T>{listed_sent_c, listed_places_c, listed_offset}, outside_c, group_start + start, rows, 6, v_grad_scatter_c);
                    constexpr Long v_sigmoid_ld = 6;
                    T* const v_sigmoid = p_sigmoid + start * v_sigmoid_ld;
                    constexpr Long v_sigmoid_1_ld = 6;
                    T* const v_sigmoid_1 = p_sigmoid_1 + start * v_sigmoid_1_ld;
                    constexpr Long v_tanh_ld = 6;
                    T* const v_tanh = p_tanh + start * v_tanh_ld;
                    float* const v_mul_4 = send_c + (start - num_leaves) * 6 + 0;
                    constexpr Long v_mul_4_ld = 6;
                    constexpr Long v_cat_ld = 18;
                    T* const v_cat = p_cat + start * v_cat_ld;
                    float* const v_mm_5 = send_h + (start - num_leaves) * 6 + 0;
                    constexpr Long v_mm_5_ld = 6;
                    T* const v_mm_3 = scratch_1;
                    constexpr Long v_mm_3_ld = 6;
                    meeting.wait(team);
                    product(rows, v_grad_scatter_h, v_grad_scatter_h_ld, weight_0, nullptr, v_mm_3, v_mm_3_ld);
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t1 = v_grad_scatter_c[i * v_grad_scatter_c_ld + j0] + v_mm_3[i * v_mm_3_ld + j0];
                            const float t2 = t1 * v_sigmoid[i * v_sigmoid_ld + j0];
                            v_mul_4[i * v_mul_4_ld + j0] = t2;
                            const float t3 = t1 * v_tanh[i * v_tanh_ld + j0];
                            const float t4 = float(1.0) - v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            const float t5 = t3 * t4;
                            const float t6 = t5 * v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            v_cat[i * v_cat_ld + j0] = t6;
                            const float t7 = t1 * v_first_c[i * v_first_c_ld + j0];
                            const float t8 = float(1.0) - v_sigmoid[i * v_sigmoid_ld + j0];
                            const float t9 = t7 * t8;
                            const float t10 = t9 * v_sigmoid[i * v_sigmoid_ld + j0];
                            v_cat[i * v_cat_ld + j0 + 6] = t10;
                            const float t11 = t1 * v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            const float t12 = -v_tanh[i * v_tanh_ld + j0];
                            const float t13 = fused(t12, v_tanh[i * v_tanh_ld + j0], float(1.0));
                            const float t14 = t11 * t13;
                            v_cat[i * v_cat_ld + j0 + 12] = t14;
                        }
                    }
                    meeting.wait(team);
                    if (start + rows > first_sending)
                    product(rows, v_cat, v_cat_ld, weight_1, nullptr, v_mm_5, v_mm_5_ld);
                    meeting.wait(team);
                } else {
                    T* v_grad_scatter_h = received_h + start * 6;
                    constexpr Long v_grad_scatter_h_ld = 6;
                    receive(Parents<T>{placed_sent_h, placed_places, placed_offset}, Parents<T>{listed_sent_h, listed_places_h, listed_offset}, outside_h, group_start + start, rows, 6, v_grad_scatter_h);
                    T* v_grad_scatter_c = received_c;
                    constexpr Long v_grad_scatter_c_ld = 6;
                    if (placed_sent_c && !placed_offset && !listed_sent_c && !outside_c && read_at >= 0)
                        v_grad_scatter_c = const_cast<T*>(placed_sent_c) + read_at * 6;
                    else receive(Parents<T>{placed_sent_c, placed_places, placed_offset}, Parents<T>{listed_sent_c, listed_places_c, listed_offset}, outside_c, group_start + start, rows, 6, v_grad_scatter_c);
                    constexpr Long v_sigmoid_ld = 6;
                    T* const v_sigmoid = p_sigmoid + start * v_sigmoid_ld;
                    constexpr Long v_sigmoid_1_ld = 6;
                    T* const v_sigmoid_1 = p_sigmoid_1 + start * v_sigmoid_1_ld;
                    constexpr Long v_tanh_ld = 6;
                    T* const v_tanh = p_tanh + start * v_tanh_ld;
                    constexpr Long v_cat_ld = 18;
                    T* const v_cat = p_cat + start * v_cat_ld;
                    T* const v_mm_3 = scratch_2;
                    constexpr Long v_mm_3_ld = 6;
                    meeting.wait(team);
                    product(rows, v_grad_scatter_h, v_grad_scatter_h_ld, weight_0, nullptr, v_mm_3, v_mm_3_ld);
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t1 = v_grad_scatter_c[i * v_grad_scatter_c_ld + j0] + v_mm_3[i * v_mm_3_ld + j0];
                            const float t2 = t1 * v_tanh[i * v_tanh_ld + j0];
                            const float t3 = float(1.0) - v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            const float t4 = t2 * t3;
                            const float t5 = t4 * v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            v_cat[i * v_cat_ld + j0] = t5;
                            const float t6 = t1 * float(0.0);
                            const float t7 = float(1.0) - v_sigmoid[i * v_sigmoid_ld + j0];
                            const float t8 = t6 * t7;
                            const float t9 = t8 * v_sigmoid[i * v_sigmoid_ld + j0];
                            v_cat[i * v_cat_ld + j0 + 6] = t9;
                            const float t10 = t1 * v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            const float t11 = -v_tanh[i * v_tanh_ld + j0];
                            const float t12 = fused(t11, v_tanh[i * v_tanh_ld + j0], float(1.0));
                            const float t13 = t10 * t12;
                            v_cat[i * v_cat_ld + j0 + 12] = t13;
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
    T* const p_pull_word = (T* const)a[5];
    T* const p_grad_scatter_h = (T* const)a[6];
    const T* const p_params_4 = (T* const)a[7];
    T* const p_add_1 = (T* const)a[8];
    T* const p_cat = (T* const)a[9];
    T* const p_mm_2 = (T* const)a[10];
    T* const p_mm_6 = (T* const)a[11];
    T* const p_mm_7 = (T* const)a[12];
    T* const p_view = (T* const)a[13];
    const bool adds = (bool)a[14];
    const Long num_computed = (Long)a[15];
    Long& packed = a[16];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[17];
    const Weight weight_0 = {p_params_4, packs ? room_0 : nullptr, false, 6, 18};
    if (must_pack)
#pragma omp parallel if (108 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
    }
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 15, serial_once);
        for (last = first + 1; last < steps + count && pays_threads(*last, 15, serial_once) == pays;) ++last;
        Meeting meeting(company);
#pragma omp parallel if (pays) num_threads(threads_in(company))
        {
            const int team = omp_get_num_threads();
            for (const Step* at = first; at < last; ++at) {
                const Step& step = *at;
                const Long start = step.start, first_of_edges = step.edge_start, rows = step.stop - start;
                [[maybe_unused]] const Long edges = step.edge_stop - first_of_edges;
                [[maybe_unused]] const Long reads_from = step.reads_from, read_at = step.read_at;
                constexpr Long v_x_ld = 6;
                T* const v_x = p_pull_word + start * v_x_ld;
                constexpr Long v_grad_scatter_h_ld = 6;
                T* const v_grad_scatter_h = p_grad_scatter_h + start * v_grad_scatter_h_ld;
                constexpr Long v_c_ld = 6;
                T* const v_c = p_add_1 + start * v_c_ld;
                constexpr Long v_cat_ld = 18;
                T* const v_cat = p_cat + start * v_cat_ld;
                constexpr Long v_mm_6_ld = 6;
                T* const v_mm_6 = p_mm_6 + start * v_mm_6_ld;
                product(rows, v_cat, v_cat_ld, weight_0, nullptr, v_mm_6, v_mm_6_ld);
                outer(rows, v_grad_scatter_h, v_grad_scatter_h_ld, 6, v_c, v_c_ld, 6, p_mm_2, adds);
                outer(rows, v_cat, v_cat_ld, 18, v_x, v_x_ld, 6, p_mm_7, adds);
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
    T* const p_mm_4 = (T* const)a[7];
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
                constexpr Long v_first_h_ld = 6;
                T* const v_first_h = p_gather_h_0 + (start - num_leaves) * v_first_h_ld;
                constexpr Long v_cat_ld = 18;
                T* const v_cat = p_cat + start * v_cat_ld;
                outer(rows, v_cat, v_cat_ld, 18, v_first_h, v_first_h_ld, 6, p_mm_4, adds);
                meeting.wait(team);
            }
            if (team > 1) meeting.ends();
        }
    }
}

// LatticeLSTM, method char

extern "C" void eager(Long* a, const Step* steps, Long count) {
    const Product product = (Product)a[0];
    const Outer outer = (Outer)a[1];
    const Pack pack = (Pack)a[2];
    Company* const company = (Company* const)a[3];
    const Long num_leaves = (Long)a[4];
    T* const p_pull_char = (T* const)a[5];
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
                constexpr Long v_x_ld = 6;
                T* const v_x = p_pull_char + start * v_x_ld;
                constexpr Long v_addmm_ld = 18;
                T* const v_addmm = p_addmm + start * v_addmm_ld;
                product(rows, v_x, v_x_ld, weight_0, p_params_2, v_addmm, v_addmm_ld);
                meeting.wait(team);
            }
            if (team > 1) meeting.ends();
        }
    }
}

extern "C" void eager_inner(Long* a, const Step* steps, Long count) {
    const Product product = (Product)a[0];
    const Outer outer = (Outer)a[1];
    const Pack pack = (Pack)a[2];
    Company* const company = (Company* const)a[3];
    const Long num_leaves = (Long)a[4];
    T* const p_pull_char = (T* const)a[5];
    const T* const p_params_7 = (T* const)a[6];
    const T* const p_params_8 = (T* const)a[7];
    T* const p_addmm_1 = (T* const)a[8];
    const Long num_computed = (Long)a[9];
    Long& packed = a[10];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[11];
    const Weight weight_0 = {p_params_7, packs ? room_0 : nullptr, true, 6, 6};
    if (must_pack)
#pragma omp parallel if (36 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
    }
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 2, serial_once);
        for (last = first + 1; last < steps + count && pays_threads(*last, 2, serial_once) == pays;) ++last;
        Meeting meeting(company);
#pragma omp parallel if (pays) num_threads(threads_in(company))
        {
            const int team = omp_get_num_threads();
            for (const Step* at = first; at < last; ++at) {
                const Step& step = *at;
                const Long start = step.start, first_of_edges = step.edge_start, rows = step.stop - start;
                [[maybe_unused]] const Long edges = step.edge_stop - first_of_edges;
                [[maybe_unused]] const Long reads_from = step.reads_from, read_at = step.read_at;
                constexpr Long v_x_ld = 6;
                T* const v_x = p_pull_char + start * v_x_ld;
                constexpr Long v_addmm_1_ld = 6;
                T* const v_addmm_1 = p_addmm_1 + (start - num_leaves) * v_addmm_1_ld;
                product(rows, v_x, v_x_ld, weight_0, p_params_8, v_addmm_1, v_addmm_1_ld);
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
    const Index* const edge_rows = (Index* const)a[10];
    T* const listed_h = (T* const)a[11];
    T* const listed_c = (T* const)a[12];
    const T* const state_is_word = (T* const)a[13];
    const Index* const edge_rows_is_word = (Index* const)a[14];
    T* const listed_is_word = (T* const)a[15];
    const T* const p_params_3 = (T* const)a[16];
    T* const p_addmm = (T* const)a[17];
    T* const p_addmm_1 = (T* const)a[18];
    T* const p_sigmoid = (T* const)a[19];
    T* const p_tanh = (T* const)a[20];
    T* const p_exp = (T* const)a[21];
    T* const p_sigmoid_1 = (T* const)a[22];
    T* const p_exp_1 = (T* const)a[23];
    T* const p_add_2 = (T* const)a[24];
    T* const p_add_3 = (T* const)a[25];
    T* const p_sub = (T* const)a[26];
    T* const p_clamp_max = (T* const)a[27];
    T* const p_add_5 = (T* const)a[28];
    T* const p_sigmoid_2 = (T* const)a[29];
    T* const p_mul_5 = (T* const)a[30];
    T* const scratch_1 = (T* const)a[31];
    T* const scratch_2 = (T* const)a[32];
    T* const scratch_3 = (T* const)a[33];
    T* const scratch_4 = (T* const)a[34];
    const Long num_computed = (Long)a[35];
    Long& packed = a[36];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[37];
    const Weight weight_0 = {p_params_3, packs ? room_0 : nullptr, true, 18, 6};
    const Index* const owner_of = (Index* const)a[38];
    const Index* const edge_offset = (Index* const)a[39];
    if (must_pack)
#pragma omp parallel if (108 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
    }
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 73, serial);
        for (last = first + 1; last < steps + count && pays_threads(*last, 73, serial) == pays;) ++last;
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
                    const T* const v_before_h = g_h + 0;
                    constexpr Long v_before_h_ld = 6;
                    const T* const g_c = reads_from < 0 ? gathered_c : state_c + reads_from * 6;
                    if (reads_from < 0) gather(state_c, child_rows + (start - num_leaves) * 1, rows, 1, 6, gathered_c);
                    const T* const v_before_c = g_c + 0;
                    constexpr Long v_before_c_ld = 6;
                    T* const v_kids_h = listed_h;
                    constexpr Long v_kids_h_ld = 6;
                    gather(state_h, edge_rows + first_of_edges, edges, 1, 6, v_kids_h);
                    T* const v_kids_c = listed_c + first_of_edges * 6;
                    constexpr Long v_kids_c_ld = 6;
                    gather(state_c, edge_rows + first_of_edges, edges, 1, 6, v_kids_c);
                    T* const v_kids_is_word = listed_is_word + first_of_edges * 1;
                    constexpr Long v_kids_is_word_ld = 1;
                    gather(state_is_word, edge_rows_is_word + first_of_edges, edges, 1, 1, v_kids_is_word);
                    constexpr Long v_addmm_ld = 18;
                    T* const v_addmm = p_addmm + start * v_addmm_ld;
                    constexpr Long v_addmm_1_ld = 6;
                    T* const v_addmm_1 = p_addmm_1 + (start - num_leaves) * v_addmm_1_ld;
                    constexpr Long v_i_1_ld = 6;
                    T* const v_i_1 = p_sigmoid + start * v_i_1_ld;
                    constexpr Long v_g_1_ld = 6;
                    T* const v_g_1 = p_tanh + start * v_g_1_ld;
                    constexpr Long v_own_ld = 6;
                    T* const v_own = p_exp + start * v_own_ld;
                    constexpr Long v_sigmoid_1_ld = 6;
                    T* const v_sigmoid_1 = p_sigmoid_1 + first_of_edges * v_sigmoid_1_ld;
                    constexpr Long v_exp_1_ld = 6;
                    T* const v_exp_1 = p_exp_1 + first_of_edges * v_exp_1_ld;
                    constexpr Long v_add_2_ld = 6;
                    T* const v_add_2 = p_add_2 + start * v_add_2_ld;
                    constexpr Long v_add_3_ld = 6;
                    T* const v_add_3 = p_add_3 + start * v_add_3_ld;
                    constexpr Long v_sub_ld = 6;
                    T* const v_sub = p_sub + start * v_sub_ld;
                    constexpr Long v_clamp_max_ld = 1;
                    T* const v_clamp_max = p_clamp_max + start * v_clamp_max_ld;
                    constexpr Long v_c_ld = 6;
                    T* const v_c = p_add_5 + start * v_c_ld;
                    constexpr Long v_sigmoid_2_ld = 6;
                    T* const v_sigmoid_2 = p_sigmoid_2 + start * v_sigmoid_2_ld;
                    constexpr Long v_h_ld = 6;
                    T* const v_h = p_mul_5 + start * v_h_ld;
                    T* const v_mm = scratch_1;
                    constexpr Long v_mm_ld = 18;
                    T* const v_segment_sum = scratch_2;
                    constexpr Long v_segment_sum_ld = 6;
                    T* const v_segment_sum_1 = scratch_3;
                    constexpr Long v_segment_sum_1_ld = 6;
                    T* const v_segment_sum_2 = scratch_4;
                    constexpr Long v_segment_sum_2_ld = 1;
                    const Index* const owner = owner_of + first_of_edges;
                    const Index* const first_edge = edge_offset + (start - num_leaves);
                    const Long without = std::max<Long>(num_leaves - start, 0);  // rows without edges come first
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < edges; ++i) {
                        const Long row1 = (owner[i] - start);
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t2 = v_addmm_1[row1 * v_addmm_1_ld + j0] + v_kids_h[i * v_kids_h_ld + j0];
                            const float t3 = sigmoid(t2);
                            v_sigmoid_1[i * v_sigmoid_1_ld + j0] = t3;
                            const float t4 = exp_of(t3);
                            v_exp_1[i * v_exp_1_ld + j0] = t4;
                        }
                    }
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
                                const float t5 = v_exp_1[e * v_exp_1_ld + j0] * v_kids_is_word[e * v_kids_is_word_ld + 0];
                                const float t6 = t5 * v_kids_c[e * v_kids_c_ld + j0];
                                v_segment_sum[i * v_segment_sum_ld + j0] = v_segment_sum[i * v_segment_sum_ld + j0] + t6;
                            }
                        }
                    }
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
                                const float t7 = v_exp_1[e * v_exp_1_ld + j0] * v_kids_is_word[e * v_kids_is_word_ld + 0];
                                v_segment_sum_1[i * v_segment_sum_1_ld + j0] = v_segment_sum_1[i * v_segment_sum_1_ld + j0] + t7;
                            }
                        }
                    }
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        const Long from = i < without ? 0 : first_edge[i] - first_edge[without];
                        const Long to = i < without ? 0 : first_edge[i + 1] - first_edge[without];
                        float total8 = float(0.0);
                        for (Long e = from; e < to; ++e) {
                            total8 = total8 + v_kids_is_word[e * v_kids_is_word_ld + 0];
                        }
                        v_segment_sum_2[i * v_segment_sum_2_ld + 0] = total8;
                    }
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        const float t9 = smaller(v_segment_sum_2[i * v_segment_sum_2_ld + 0], float(1.0));
                        v_clamp_max[i * v_clamp_max_ld + 0] = t9;
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t10 = v_addmm[i * v_addmm_ld + j0] + v_mm[i * v_mm_ld + j0];
                            const float t11 = sigmoid(t10);
                            v_i_1[i * v_i_1_ld + j0] = t11;
                            const float t12 = v_addmm[i * v_addmm_ld + j0 + 12] + v_mm[i * v_mm_ld + j0 + 12];
                            const float t13 = tanh_of(t12);
                            v_g_1[i * v_g_1_ld + j0] = t13;
                            const float t14 = exp_of(t11);
                            v_own[i * v_own_ld + j0] = t14;
                            const float t15 = t14 * t13;
                            const float t16 = t15 + v_segment_sum[i * v_segment_sum_ld + j0];
                            v_add_2[i * v_add_2_ld + j0] = t16;
                            const float t17 = t14 + v_segment_sum_1[i * v_segment_sum_1_ld + j0];
                            v_add_3[i * v_add_3_ld + j0] = t17;
                            const float t18 = t13 - v_before_c[i * v_before_c_ld + j0];
                            v_sub[i * v_sub_ld + j0] = t18;
                            const float t19 = t11 * t18;
                            const float t20 = v_before_c[i * v_before_c_ld + j0] + t19;
                            const float t21 = t16 / t17;
                            const float t22 = t21 - t20;
                            const float t23 = t9 * t22;
                            const float t24 = t20 + t23;
                            v_c[i * v_c_ld + j0] = t24;
                            const float t25 = v_addmm[i * v_addmm_ld + j0 + 6] + v_mm[i * v_mm_ld + j0 + 6];
                            const float t26 = sigmoid(t25);
                            v_sigmoid_2[i * v_sigmoid_2_ld + j0] = t26;
                            const float t27 = tanh_of(t24);
                            const float t28 = t26 * t27;
                            v_h[i * v_h_ld + j0] = t28;
                        }
                    }
                    meeting.wait(team);
                } else {
                    constexpr Long v_addmm_ld = 18;
                    T* const v_addmm = p_addmm + start * v_addmm_ld;
                    constexpr Long v_i_1_ld = 6;
                    T* const v_i_1 = p_sigmoid + start * v_i_1_ld;
                    constexpr Long v_sub_ld = 6;
                    T* const v_sub = p_tanh + start * v_sub_ld;
                    constexpr Long v_add_3_ld = 6;
                    T* const v_add_3 = p_exp + start * v_add_3_ld;
                    constexpr Long v_add_2_ld = 6;
                    T* const v_add_2 = p_add_2 + start * v_add_2_ld;
                    constexpr Long v_clamp_max_ld = 1;
                    T* const v_clamp_max = p_clamp_max + start * v_clamp_max_ld;
                    constexpr Long v_c_ld = 6;
                    T* const v_c = p_add_5 + start * v_c_ld;
                    constexpr Long v_sigmoid_2_ld = 6;
                    T* const v_sigmoid_2 = p_sigmoid_2 + start * v_sigmoid_2_ld;
                    constexpr Long v_h_ld = 6;
                    T* const v_h = p_mul_5 + start * v_h_ld;
                    constexpr Long v_add_3__ld = 6;
                    T* const v_add_3_ = p_add_3 + start * v_add_3__ld;
                    constexpr Long v_sub__ld = 6;
                    T* const v_sub_ = p_sub + start * v_sub__ld;
                    const float t1 = smaller(float(0.0), float(1.0));
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        v_clamp_max[i * v_clamp_max_ld + 0] = t1;
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t2 = sigmoid(v_addmm[i * v_addmm_ld + j0]);
                            v_i_1[i * v_i_1_ld + j0] = t2;
                            const float t3 = tanh_of(v_addmm[i * v_addmm_ld + j0 + 12]);
                            v_sub[i * v_sub_ld + j0] = t3;
                            const float t4 = exp_of(t2);
                            v_add_3[i * v_add_3_ld + j0] = t4;
                            const float t5 = t4 * t3;
                            v_add_2[i * v_add_2_ld + j0] = t5;
                            const float t6 = t2 * t3;
                            const float t7 = t5 / t4;
                            const float t8 = t7 - t6;
                            const float t9 = t1 * t8;
                            const float t10 = t6 + t9;
                            v_c[i * v_c_ld + j0] = t10;
                            const float t11 = sigmoid(v_addmm[i * v_addmm_ld + j0 + 6]);
                            v_sigmoid_2[i * v_sigmoid_2_ld + j0] = t11;
                            const float t12 = tanh_of(t10);
                            const float t13 = t11 * t12;
                            v_h[i * v_h_ld + j0] = t13;
                        }
                    }
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            v_add_3_[i * v_add_3__ld + j0] = v_add_3[i * v_add_3_ld + j0];
                            v_sub_[i * v_sub__ld + j0] = v_sub[i * v_sub_ld + j0];
                        }
                    }
                    meeting.wait(team);
                }
            }
            if (team > 1) meeting.ends();
        }
    }
}

extern "C" void grad_eager(Long* a, const Step* steps, Long count) {
    const Product product = (Product)a[0];
    const Outer outer = (Outer)a[1];
    const Pack pack = (Pack)a[2];
    Company* const company = (Company* const)a[3];
    const Long num_leaves = (Long)a[4];
    T* const p_add_2 = (T* const)a[5];
    T* const p_add_3 = (T* const)a[6];
    T* const p_div_2 = (T* const)a[7];
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
                constexpr Long v_add_2_ld = 6;
                T* const v_add_2 = p_add_2 + start * v_add_2_ld;
                constexpr Long v_add_3_ld = 6;
                T* const v_add_3 = p_add_3 + start * v_add_3_ld;
                constexpr Long v_div_2_ld = 6;
                T* const v_div_2 = p_div_2 + start * v_div_2_ld;
                #pragma omp for schedule(static) nowait
                for (Long i = 0; i < rows; ++i) {
                    #pragma omp simd
                    for (Long j0 = 0; j0 < 6; ++j0) {
                        const float t1 = v_add_2[i * v_add_2_ld + j0] / v_add_3[i * v_add_3_ld + j0];
                        const float t2 = t1 / v_add_3[i * v_add_3_ld + j0];
                        v_div_2[i * v_div_2_ld + j0] = t2;
                    }
                }
                meeting.wait(team);
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
    T* const p_gather_is_word_children = (T* const)a[6];
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
    T* const p_exp = (T* const)a[26];
    T* const p_sigmoid_1 = (T* const)a[27];
    T* const p_exp_1 = (T* const)a[28];
    T* const p_add_3 = (T* const)a[29];
    T* const p_sub = (T* const)a[30];
    T* const p_clamp_max = (T* const)a[31];
    T* const p_add_5 = (T* const)a[32];
    T* const p_sigmoid_2 = (T* const)a[33];
    T* const p_div_2 = (T* const)a[34];
    float* const send_c = (float* const)a[35];
    float* const send_edges_c = (float* const)a[36];
    T* const p_sigmoid_backward_1 = (T* const)a[37];
    float* const send_edges_h = (float* const)a[38];
    T* const p_cat = (T* const)a[39];
    float* const send_h = (float* const)a[40];
    T* const scratch_1 = (T* const)a[41];
    T* const scratch_2 = (T* const)a[42];
    const Long num_computed = (Long)a[43];
    Long& packed = a[44];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[45];
    const Weight weight_0 = {p_params_3, packs ? room_0 : nullptr, false, 6, 18};
    const Long first_sending = (Long)a[46];
    const Index* const owner_of = (Index* const)a[47];
    if (must_pack)
#pragma omp parallel if (108 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
    }
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 60, serial);
        for (last = first + 1; last < steps + count && pays_threads(*last, 60, serial) == pays;) ++last;
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
                    constexpr Long v_kids_is_word_ld = 1;
                    T* const v_kids_is_word = p_gather_is_word_children + first_of_edges * v_kids_is_word_ld;
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
                    constexpr Long v_i_ld = 6;
                    T* const v_i = p_sigmoid + start * v_i_ld;
                    constexpr Long v_g_ld = 6;
                    T* const v_g = p_tanh + start * v_g_ld;
                    constexpr Long v_own_ld = 6;
                    T* const v_own = p_exp + start * v_own_ld;
                    constexpr Long v_sigmoid_1_ld = 6;
                    T* const v_sigmoid_1 = p_sigmoid_1 + first_of_edges * v_sigmoid_1_ld;
                    constexpr Long v_exp_1_ld = 6;
                    T* const v_exp_1 = p_exp_1 + first_of_edges * v_exp_1_ld;
                    constexpr Long v_add_3_ld = 6;
                    T* const v_add_3 = p_add_3 + start * v_add_3_ld;
                    constexpr Long v_sub_ld = 6;
                    T* const v_sub = p_sub + start * v_sub_ld;
                    constexpr Long v_clamp_max_ld = 1;
                    T* const v_clamp_max = p_clamp_max + start * v_clamp_max_ld;
                    constexpr Long v_c_ld = 6;
                    T* const v_c = p_add_5 + start * v_c_ld;
                    constexpr Long v_sigmoid_2_ld = 6;
                    T* const v_sigmoid_2 = p_sigmoid_2 + start * v_sigmoid_2_ld;
                    constexpr Long v_div_2_ld = 6;
                    T* const v_div_2 = p_div_2 + start * v_div_2_ld;
                    float* const v_add_9 = send_c + (start - num_leaves) * 6 + 0;
                    constexpr Long v_add_9_ld = 6;
                    float* const v_mul_12 = send_edges_c + first_of_edges * 6;
                    constexpr Long v_mul_12_ld = 6;
                    constexpr Long v_sigmoid_backward_1_ld = 6;
                    T* const v_sigmoid_backward_1 = p_sigmoid_backward_1 + first_of_edges * v_sigmoid_backward_1_ld;
                    float* const v_clone_default_1 = send_edges_h + first_of_edges * 6;
                    constexpr Long v_clone_default_1_ld = 6;
                    constexpr Long v_cat_ld = 18;
                    T* const v_cat = p_cat + start * v_cat_ld;
                    float* const v_mm_4 = send_h + (start - num_leaves) * 6 + 0;
                    constexpr Long v_mm_4_ld = 6;
                    T* const v_mul_11 = scratch_1;
                    constexpr Long v_mul_11_ld = 6;
                    T* const v_div_3 = scratch_2;
                    constexpr Long v_div_3_ld = 6;
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
                            const float t8 = t7 * v_clamp_max[i * v_clamp_max_ld + 0];
                            const float t9 = -t8;
                            const float t10 = t7 + t9;
                            const float t11 = t10 * v_i[i * v_i_ld + j0];
                            const float t12 = -t11;
                            const float t13 = t10 + t12;
                            v_add_9[i * v_add_9_ld + j0] = t13;
                            const float t14 = -t8;
                            const float t15 = t14 * v_div_2[i * v_div_2_ld + j0];
                            v_mul_11[i * v_mul_11_ld + j0] = t15;
                            const float t16 = t8 / v_add_3[i * v_add_3_ld + j0];
                            v_div_3[i * v_div_3_ld + j0] = t16;
                            const float t17 = t10 * v_sub[i * v_sub_ld + j0];
                            const float t18 = t16 * v_g[i * v_g_ld + j0];
                            const float t19 = t15 + t18;
                            const float t20 = t19 * v_own[i * v_own_ld + j0];
                            const float t21 = t17 + t20;
                            const float t22 = float(1.0) - v_i[i * v_i_ld + j0];
                            const float t23 = t21 * t22;
                            const float t24 = t23 * v_i[i * v_i_ld + j0];
                            v_cat[i * v_cat_ld + j0] = t24;
                            const float t25 = t1 * t3;
                            const float t26 = float(1.0) - v_sigmoid_2[i * v_sigmoid_2_ld + j0];
                            const float t27 = t25 * t26;
                            const float t28 = t27 * v_sigmoid_2[i * v_sigmoid_2_ld + j0];
                            v_cat[i * v_cat_ld + j0 + 6] = t28;
                            const float t29 = t16 * v_own[i * v_own_ld + j0];
                            const float t30 = t11 + t29;
                            const float t31 = -v_g[i * v_g_ld + j0];
                            const float t32 = fused(t31, v_g[i * v_g_ld + j0], float(1.0));
                            const float t33 = t30 * t32;
                            v_cat[i * v_cat_ld + j0 + 12] = t33;
                        }
                    }
                    meeting.wait(team);
                    if (start + rows > first_sending)
                    product(rows, v_cat, v_cat_ld, weight_0, nullptr, v_mm_4, v_mm_4_ld);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < edges; ++i) {
                        const Long row34 = (owner[i] - start);
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t35 = v_exp_1[i * v_exp_1_ld + j0] * v_kids_is_word[i * v_kids_is_word_ld + 0];
                            const float t36 = v_div_3[row34 * v_div_3_ld + j0] * t35;
                            v_mul_12[i * v_mul_12_ld + j0] = t36;
                            const float t37 = v_div_3[row34 * v_div_3_ld + j0] * v_kids_c[i * v_kids_c_ld + j0];
                            const float t38 = v_mul_11[row34 * v_mul_11_ld + j0] + t37;
                            const float t39 = t38 * v_kids_is_word[i * v_kids_is_word_ld + 0];
                            const float t40 = t39 * v_exp_1[i * v_exp_1_ld + j0];
                            const float t41 = float(1.0) - v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            const float t42 = t40 * t41;
                            const float t43 = t42 * v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            v_sigmoid_backward_1[i * v_sigmoid_backward_1_ld + j0] = t43;
                            v_clone_default_1[i * v_clone_default_1_ld + j0] = t43;
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
                    constexpr Long v_i_ld = 6;
                    T* const v_i = p_sigmoid + start * v_i_ld;
                    constexpr Long v_g_ld = 6;
                    T* const v_g = p_tanh + start * v_g_ld;
                    constexpr Long v_own_ld = 6;
                    T* const v_own = p_exp + start * v_own_ld;
                    constexpr Long v_add_3_ld = 6;
                    T* const v_add_3 = p_add_3 + start * v_add_3_ld;
                    constexpr Long v_sub_ld = 6;
                    T* const v_sub = p_sub + start * v_sub_ld;
                    constexpr Long v_clamp_max_ld = 1;
                    T* const v_clamp_max = p_clamp_max + start * v_clamp_max_ld;
                    constexpr Long v_c_ld = 6;
                    T* const v_c = p_add_5 + start * v_c_ld;
                    constexpr Long v_sigmoid_2_ld = 6;
                    T* const v_sigmoid_2 = p_sigmoid_2 + start * v_sigmoid_2_ld;
                    constexpr Long v_div_2_ld = 6;
                    T* const v_div_2 = p_div_2 + start * v_div_2_ld;
                    constexpr Long v_cat_ld = 18;
                    T* const v_cat = p_cat + start * v_cat_ld;
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
                            const float t8 = t7 * v_clamp_max[i * v_clamp_max_ld + 0];
                            const float t9 = -t8;
                            const float t10 = t7 + t9;
                            const float t11 = t10 * v_sub[i * v_sub_ld + j0];
                            const float t12 = -t8;
                            const float t13 = t12 * v_div_2[i * v_div_2_ld + j0];
                            const float t14 = t8 / v_add_3[i * v_add_3_ld + j0];
                            const float t15 = t14 * v_g[i * v_g_ld + j0];
                            const float t16 = t13 + t15;
                            const float t17 = t16 * v_own[i * v_own_ld + j0];
                            const float t18 = t11 + t17;
                            const float t19 = float(1.0) - v_i[i * v_i_ld + j0];
                            const float t20 = t18 * t19;
                            const float t21 = t20 * v_i[i * v_i_ld + j0];
                            v_cat[i * v_cat_ld + j0] = t21;
                            const float t22 = t1 * t3;
                            const float t23 = float(1.0) - v_sigmoid_2[i * v_sigmoid_2_ld + j0];
                            const float t24 = t22 * t23;
                            const float t25 = t24 * v_sigmoid_2[i * v_sigmoid_2_ld + j0];
                            v_cat[i * v_cat_ld + j0 + 6] = t25;
                            const float t26 = t10 * v_i[i * v_i_ld + j0];
                            const float t27 = t14 * v_own[i * v_own_ld + j0];
                            const float t28 = t26 + t27;
                            const float t29 = -v_g[i * v_g_ld + j0];
                            const float t30 = fused(t29, v_g[i * v_g_ld + j0], float(1.0));
                            const float t31 = t28 * t30;
                            v_cat[i * v_cat_ld + j0 + 12] = t31;
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
    T* const p_pull_char = (T* const)a[5];
    const T* const p_params_1 = (T* const)a[6];
    const T* const p_params_7 = (T* const)a[7];
    T* const p_sigmoid_backward_1 = (T* const)a[8];
    T* const p_cat = (T* const)a[9];
    T* const p_segment_sum_3 = (T* const)a[10];
    T* const p_mm_6 = (T* const)a[11];
    T* const p_add_14 = (T* const)a[12];
    T* const p_view_1 = (T* const)a[13];
    T* const scratch_1 = (T* const)a[14];
    T* const scratch_2 = (T* const)a[15];
    const bool adds = (bool)a[16];
    const Long num_computed = (Long)a[17];
    Long& packed = a[18];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[19];
    const Weight weight_0 = {p_params_1, packs ? room_0 : nullptr, false, 6, 18};
    T* const room_1 = (T* const)a[20];
    const Weight weight_1 = {p_params_7, packs ? room_1 : nullptr, false, 6, 6};
    const Index* const edge_offset = (Index* const)a[21];
    if (must_pack)
#pragma omp parallel if (144 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
        pack(weight_1);
    }
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 21, serial_once);
        for (last = first + 1; last < steps + count && pays_threads(*last, 21, serial_once) == pays;) ++last;
        Meeting meeting(company);
#pragma omp parallel if (pays) num_threads(threads_in(company))
        {
            const int team = omp_get_num_threads();
            for (const Step* at = first; at < last; ++at) {
                const Step& step = *at;
                const Long start = step.start, first_of_edges = step.edge_start, rows = step.stop - start;
                [[maybe_unused]] const Long edges = step.edge_stop - first_of_edges;
                [[maybe_unused]] const Long reads_from = step.reads_from, read_at = step.read_at;
                constexpr Long v_x_ld = 6;
                T* const v_x = p_pull_char + start * v_x_ld;
                constexpr Long v_sigmoid_backward_1_ld = 6;
                T* const v_sigmoid_backward_1 = p_sigmoid_backward_1 + first_of_edges * v_sigmoid_backward_1_ld;
                constexpr Long v_cat_ld = 18;
                T* const v_cat = p_cat + start * v_cat_ld;
                constexpr Long v_segment_sum_3_ld = 6;
                T* const v_segment_sum_3 = p_segment_sum_3 + start * v_segment_sum_3_ld;
                constexpr Long v_add_14_ld = 6;
                T* const v_add_14 = p_add_14 + start * v_add_14_ld;
                T* const v_mm_1 = scratch_1;
                constexpr Long v_mm_1_ld = 6;
                T* const v_mm_5 = scratch_2;
                constexpr Long v_mm_5_ld = 6;
                const Index* const first_edge = edge_offset + (start - num_leaves);
                const Long without = std::max<Long>(num_leaves - start, 0);  // rows without edges come first
                product(rows, v_cat, v_cat_ld, weight_0, nullptr, v_mm_5, v_mm_5_ld);
                outer(rows, v_cat, v_cat_ld, 18, v_x, v_x_ld, 6, p_mm_6, adds);
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
                    for (Long j = 0; adds && j < last - first; ++j) sum[j] += p_view_1[first + j];
                    std::copy(sum, sum + last - first, p_view_1 + first);
                }
                #pragma omp for schedule(static) nowait
                for (Long i = 0; i < rows; ++i) {
                    const Long from = i < without ? 0 : first_edge[i] - first_edge[without];
                    const Long to = i < without ? 0 : first_edge[i + 1] - first_edge[without];
                    #pragma omp simd
                    for (Long j0 = 0; j0 < 6; ++j0) {
                        v_segment_sum_3[i * v_segment_sum_3_ld + j0] = float(0.0);
                    }
                    for (Long e = from; e < to; ++e) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            v_segment_sum_3[i * v_segment_sum_3_ld + j0] = v_segment_sum_3[i * v_segment_sum_3_ld + j0] + v_sigmoid_backward_1[e * v_sigmoid_backward_1_ld + j0];
                        }
                    }
                }
                meeting.wait(team);
                product(rows, v_segment_sum_3, v_segment_sum_3_ld, weight_1, nullptr, v_mm_1, v_mm_1_ld);
                meeting.wait(team);
                #pragma omp for schedule(static) nowait
                for (Long i = 0; i < rows; ++i) {
                    #pragma omp simd
                    for (Long j0 = 0; j0 < 6; ++j0) {
                        const float t1 = v_mm_1[i * v_mm_1_ld + j0] + v_mm_5[i * v_mm_5_ld + j0];
                        v_add_14[i * v_add_14_ld + j0] = t1;
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
    T* const p_pull_char = (T* const)a[5];
    T* const p_gather_h_0 = (T* const)a[6];
    T* const p_segment_sum_3 = (T* const)a[7];
    T* const p_cat = (T* const)a[8];
    T* const p_mm_2 = (T* const)a[9];
    T* const p_mm_3 = (T* const)a[10];
    T* const p_view = (T* const)a[11];
    const bool adds = (bool)a[12];
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
                constexpr Long v_x_ld = 6;
                T* const v_x = p_pull_char + start * v_x_ld;
                constexpr Long v_before_h_ld = 6;
                T* const v_before_h = p_gather_h_0 + (start - num_leaves) * v_before_h_ld;
                constexpr Long v_segment_sum_3_ld = 6;
                T* const v_segment_sum_3 = p_segment_sum_3 + start * v_segment_sum_3_ld;
                constexpr Long v_cat_ld = 18;
                T* const v_cat = p_cat + start * v_cat_ld;
                outer(rows, v_segment_sum_3, v_segment_sum_3_ld, 6, v_x, v_x_ld, 6, p_mm_2, adds);
                outer(rows, v_cat, v_cat_ld, 18, v_before_h, v_before_h_ld, 6, p_mm_3, adds);
                #pragma omp for schedule(static) nowait
                for (Long first = 0; first < 6; first += 64) {
                    const Long last = std::min<Long>(first + 64, 6);
                    float sum[64] = {};
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j = first; j < last; ++j) {
                            sum[j - first] += v_segment_sum_3[i * v_segment_sum_3_ld + j];
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
