// DAGNNLayer, method vertex

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
    const Index* const edge_rows = (Index* const)a[6];
    T* const listed_h = (T* const)a[7];
    const T* const state_score = (T* const)a[8];
    T* const listed_score = (T* const)a[9];
    const T* const p_params_2 = (T* const)a[10];
    const T* const p_params_4 = (T* const)a[11];
    const T* const p_params_5 = (T* const)a[12];
    T* const p_addmm = (T* const)a[13];
    T* const p_exp = (T* const)a[14];
    T* const p_expand_1 = (T* const)a[15];
    T* const p_div = (T* const)a[16];
    T* const p_segment_sum_1 = (T* const)a[17];
    T* const p_clone_default = (T* const)a[18];
    T* const p_sigmoid = (T* const)a[19];
    T* const p_tanh = (T* const)a[20];
    T* const p_sigmoid_1 = (T* const)a[21];
    T* const p_add_3 = (T* const)a[22];
    T* const p_mm = (T* const)a[23];
    T* const scratch_1 = (T* const)a[24];
    T* const scratch_2 = (T* const)a[25];
    T* const scratch_3 = (T* const)a[26];
    const Long num_computed = (Long)a[27];
    Long& packed = a[28];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[29];
    const Weight weight_0 = {p_params_2, packs ? room_0 : nullptr, true, 18, 6};
    T* const room_1 = (T* const)a[30];
    const Weight weight_1 = {p_params_5, packs ? room_1 : nullptr, true, 1, 6};
    const Index* const owner_of = (Index* const)a[31];
    const Index* const edge_offset = (Index* const)a[32];
    if (must_pack)
#pragma omp parallel if (114 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
        pack(weight_1);
    }
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 40, serial);
        for (last = first + 1; last < steps + count && pays_threads(*last, 40, serial) == pays;) ++last;
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
                    T* const v_kids_score = listed_score;
                    constexpr Long v_kids_score_ld = 1;
                    gather(state_score, edge_rows + first_of_edges, edges, 1, 1, v_kids_score);
                    constexpr Long v_addmm_ld = 18;
                    T* const v_addmm = p_addmm + start * v_addmm_ld;
                    constexpr Long v_exp_ld = 1;
                    T* const v_exp = p_exp + first_of_edges * v_exp_ld;
                    constexpr Long v_expand_1_ld = 1;
                    T* const v_expand_1 = p_expand_1 + first_of_edges * v_expand_1_ld;
                    constexpr Long v_div_ld = 1;
                    T* const v_div = p_div + first_of_edges * v_div_ld;
                    constexpr Long v_message_ld = 6;
                    T* const v_message = p_segment_sum_1 + (start - num_leaves) * v_message_ld;
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
                    constexpr Long v_score_ld = 1;
                    T* const v_score = p_mm + start * v_score_ld;
                    T* const v_segment_max = scratch_1;
                    constexpr Long v_segment_max_ld = 1;
                    T* const v_segment_sum = scratch_2;
                    constexpr Long v_segment_sum_ld = 1;
                    T* const v_addmm_1 = scratch_3;
                    constexpr Long v_addmm_1_ld = 18;
                    const Index* const owner = owner_of + first_of_edges;
                    const Index* const first_edge = edge_offset + (start - num_leaves);
                    const Long without = std::max<Long>(num_leaves - start, 0);  // rows without edges come first
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        const Long from = i < without ? 0 : first_edge[i] - first_edge[without];
                        const Long to = i < without ? 0 : first_edge[i + 1] - first_edge[without];
                        float total1 = float(0.0);
                        for (Long e = from; e < to; ++e) {
                            total1 = (e == from ? v_kids_score[e * v_kids_score_ld + 0] : larger(total1, v_kids_score[e * v_kids_score_ld + 0]));
                        }
                        v_segment_max[i * v_segment_max_ld + 0] = total1;
                    }
                    meeting.wait(team);
                    {
                    Long own = 0, stop = 0;
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < edges; ++i) ++own, stop = i + 1;
                    #pragma omp simd
                    for (Long i = stop - own; i < stop; ++i) {
                        const Long row2 = (owner[i] - start);
                        const float t3 = v_kids_score[i * v_kids_score_ld + 0] - v_segment_max[row2 * v_segment_max_ld + 0];
                        const float t4 = exp_of(t3);
                        v_exp[i * v_exp_ld + 0] = t4;
                    }
                    }
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        const Long from = i < without ? 0 : first_edge[i] - first_edge[without];
                        const Long to = i < without ? 0 : first_edge[i + 1] - first_edge[without];
                        float total5 = float(0.0);
                        for (Long e = from; e < to; ++e) {
                            total5 = total5 + v_exp[e * v_exp_ld + 0];
                        }
                        v_segment_sum[i * v_segment_sum_ld + 0] = total5;
                    }
                    meeting.wait(team);
                    {
                    Long own = 0, stop = 0;
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < edges; ++i) ++own, stop = i + 1;
                    #pragma omp simd
                    for (Long i = stop - own; i < stop; ++i) {
                        const Long row6 = (owner[i] - start);
                        v_expand_1[i * v_expand_1_ld + 0] = v_segment_sum[row6 * v_segment_sum_ld + 0];
                        const float t7 = v_exp[i * v_exp_ld + 0] / v_segment_sum[row6 * v_segment_sum_ld + 0];
                        v_div[i * v_div_ld + 0] = t7;
                    }
                    }
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        const Long from = i < without ? 0 : first_edge[i] - first_edge[without];
                        const Long to = i < without ? 0 : first_edge[i + 1] - first_edge[without];
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            v_message[i * v_message_ld + j0] = float(0.0);
                        }
                        for (Long e = from; e < to; ++e) {
                            #pragma omp simd
                            for (Long j0 = 0; j0 < 6; ++j0) {
                                const float t8 = v_div[e * v_div_ld + 0] * v_kids_h[e * v_kids_h_ld + j0];
                                v_message[i * v_message_ld + j0] = v_message[i * v_message_ld + j0] + t8;
                            }
                        }
                    }
                    meeting.wait(team);
                    product(rows, v_message, v_message_ld, weight_0, p_params_4, v_addmm_1, v_addmm_1_ld);
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            v_clone_default[i * v_clone_default_ld + j0] = v_addmm_1[i * v_addmm_1_ld + j0 + 12];
                            const float t9 = v_addmm[i * v_addmm_ld + j0] + v_addmm_1[i * v_addmm_1_ld + j0];
                            const float t10 = sigmoid(t9);
                            v_sigmoid[i * v_sigmoid_ld + j0] = t10;
                            const float t11 = t10 * v_addmm_1[i * v_addmm_1_ld + j0 + 12];
                            const float t12 = v_addmm[i * v_addmm_ld + j0 + 12] + t11;
                            const float t13 = tanh_of(t12);
                            v_n[i * v_n_ld + j0] = t13;
                            const float t14 = v_addmm[i * v_addmm_ld + j0 + 6] + v_addmm_1[i * v_addmm_1_ld + j0 + 6];
                            const float t15 = sigmoid(t14);
                            v_sigmoid_1[i * v_sigmoid_1_ld + j0] = t15;
                            const float t16 = v_message[i * v_message_ld + j0] - t13;
                            const float t17 = t15 * t16;
                            const float t18 = t13 + t17;
                            v_h[i * v_h_ld + j0] = t18;
                        }
                    }
                    meeting.wait(team);
                    product(rows, v_h, v_h_ld, weight_1, nullptr, v_score, v_score_ld);
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
                    constexpr Long v_score_ld = 1;
                    T* const v_score = p_mm + start * v_score_ld;
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
                    product(rows, v_h, v_h_ld, weight_1, nullptr, v_score, v_score_ld);
                    meeting.wait(team);
                }
            }
            if (team > 1) meeting.ends();
        }
    }
}

extern "C" void grad_eager_inner(Long* a, const Step* steps, Long count) {
    const Product product = (Product)a[0];
    const Outer outer = (Outer)a[1];
    const Pack pack = (Pack)a[2];
    Company* const company = (Company* const)a[3];
    const Long num_leaves = (Long)a[4];
    T* const p_exp = (T* const)a[5];
    T* const p_expand_1 = (T* const)a[6];
    T* const p_div_2 = (T* const)a[7];
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
                constexpr Long v_exp_ld = 1;
                T* const v_exp = p_exp + first_of_edges * v_exp_ld;
                constexpr Long v_expand_1_ld = 1;
                T* const v_expand_1 = p_expand_1 + first_of_edges * v_expand_1_ld;
                constexpr Long v_div_2_ld = 1;
                T* const v_div_2 = p_div_2 + first_of_edges * v_div_2_ld;
                {
                Long own = 0, stop = 0;
                #pragma omp for schedule(static) nowait
                for (Long i = 0; i < edges; ++i) ++own, stop = i + 1;
                #pragma omp simd
                for (Long i = stop - own; i < stop; ++i) {
                    const float t1 = v_exp[i * v_exp_ld + 0] / v_expand_1[i * v_expand_1_ld + 0];
                    const float t2 = t1 / v_expand_1[i * v_expand_1_ld + 0];
                    v_div_2[i * v_div_2_ld + 0] = t2;
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
    T* const p_gather_h_children = (T* const)a[5];
    T* const received_h = (T* const)a[6];
    const Long group_start = (Long)a[7];
    const T* const outside_h = (T* const)a[8];
    const T* const placed_sent_h = (T* const)a[9];
    const Index* const placed_places = (Index* const)a[10];
    const Index* const placed_offset = (Index* const)a[11];
    const T* const listed_sent_h = (T* const)a[12];
    const Index* const listed_places_h = (Index* const)a[13];
    const Index* const listed_offset = (Index* const)a[14];
    T* const received_score = (T* const)a[15];
    const T* const outside_score = (T* const)a[16];
    const T* const placed_sent_score = (T* const)a[17];
    const T* const listed_sent_score = (T* const)a[18];
    const Index* const listed_places_score = (Index* const)a[19];
    T* const p_grad_push_h = (T* const)a[20];
    const Long ld_grad_push_h = (Long)a[21];
    const T* const p_params_2 = (T* const)a[22];
    const T* const p_params_5 = (T* const)a[23];
    T* const p_exp = (T* const)a[24];
    T* const p_expand_1 = (T* const)a[25];
    T* const p_div = (T* const)a[26];
    T* const p_segment_sum_1 = (T* const)a[27];
    T* const p_clone_default = (T* const)a[28];
    T* const p_sigmoid = (T* const)a[29];
    T* const p_tanh = (T* const)a[30];
    T* const p_sigmoid_1 = (T* const)a[31];
    T* const p_div_2 = (T* const)a[32];
    T* const p_sigmoid_backward = (T* const)a[33];
    T* const p_tanh_backward = (T* const)a[34];
    T* const p_sigmoid_backward_1 = (T* const)a[35];
    T* const p_cat = (T* const)a[36];
    float* const send_edges_h = (float* const)a[37];
    float* const send_edges_score = (float* const)a[38];
    T* const scratch_1 = (T* const)a[39];
    T* const scratch_2 = (T* const)a[40];
    T* const scratch_3 = (T* const)a[41];
    T* const scratch_4 = (T* const)a[42];
    T* const scratch_5 = (T* const)a[43];
    T* const scratch_6 = (T* const)a[44];
    const Long num_computed = (Long)a[45];
    Long& packed = a[46];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[47];
    const Weight weight_0 = {p_params_5, packs ? room_0 : nullptr, false, 6, 1};
    T* const room_1 = (T* const)a[48];
    const Weight weight_1 = {p_params_2, packs ? room_1 : nullptr, false, 6, 18};
    const Index* const owner_of = (Index* const)a[49];
    const Index* const edge_offset = (Index* const)a[50];
    T* const scratch_7 = (T* const)a[51];
    if (must_pack)
#pragma omp parallel if (114 > serial) num_threads(threads_in(company))
    {
        pack(weight_0);
        pack(weight_1);
    }
    for (const Step *first = steps, *last; first < steps + count; first = last) {
        const bool pays = pays_threads(*first, 63, serial);
        for (last = first + 1; last < steps + count && pays_threads(*last, 63, serial) == pays;) ++last;
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
                    constexpr Long v_kids_h_ld = 6;
                    T* const v_kids_h = p_gather_h_children + first_of_edges * v_kids_h_ld;
                    T* v_grad_scatter_h = received_h;
                    constexpr Long v_grad_scatter_h_ld = 6;
                    if (placed_sent_h && !placed_offset && !listed_sent_h && !outside_h && read_at >= 0)
                        v_grad_scatter_h = const_cast<T*>(placed_sent_h) + read_at * 6;
                    else receive(Parents<T>{placed_sent_h, placed_places, placed_offset}, Parents<T>{listed_sent_h, listed_places_h, listed_offset}, outside_h, group_start + start, rows, 6, v_grad_scatter_h);
                    T* v_grad_scatter_score = received_score + start * 1;
                    constexpr Long v_grad_scatter_score_ld = 1;
                    receive(Parents<T>{placed_sent_score, placed_places, placed_offset}, Parents<T>{listed_sent_score, listed_places_score, listed_offset}, outside_score, group_start + start, rows, 1, v_grad_scatter_score);
                    const Long v_grad_push_h_ld = ld_grad_push_h;
                    T* const v_grad_push_h = p_grad_push_h + start * v_grad_push_h_ld;
                    constexpr Long v_exp_ld = 1;
                    T* const v_exp = p_exp + first_of_edges * v_exp_ld;
                    constexpr Long v_expand_1_ld = 1;
                    T* const v_expand_1 = p_expand_1 + first_of_edges * v_expand_1_ld;
                    constexpr Long v_div_ld = 1;
                    T* const v_div = p_div + first_of_edges * v_div_ld;
                    constexpr Long v_message_ld = 6;
                    T* const v_message = p_segment_sum_1 + (start - num_leaves) * v_message_ld;
                    constexpr Long v_clone_default_ld = 6;
                    T* const v_clone_default = p_clone_default + start * v_clone_default_ld;
                    constexpr Long v_sigmoid_ld = 6;
                    T* const v_sigmoid = p_sigmoid + start * v_sigmoid_ld;
                    constexpr Long v_n_ld = 6;
                    T* const v_n = p_tanh + start * v_n_ld;
                    constexpr Long v_sigmoid_1_ld = 6;
                    T* const v_sigmoid_1 = p_sigmoid_1 + start * v_sigmoid_1_ld;
                    constexpr Long v_div_2_ld = 1;
                    T* const v_div_2 = p_div_2 + first_of_edges * v_div_2_ld;
                    constexpr Long v_sigmoid_backward_ld = 6;
                    T* const v_sigmoid_backward = p_sigmoid_backward + start * v_sigmoid_backward_ld;
                    constexpr Long v_tanh_backward_ld = 6;
                    T* const v_tanh_backward = p_tanh_backward + start * v_tanh_backward_ld;
                    constexpr Long v_sigmoid_backward_1_ld = 6;
                    T* const v_sigmoid_backward_1 = p_sigmoid_backward_1 + start * v_sigmoid_backward_1_ld;
                    constexpr Long v_cat_ld = 18;
                    T* const v_cat = p_cat + start * v_cat_ld;
                    float* const v_mul_7 = send_edges_h + first_of_edges * 6;
                    constexpr Long v_mul_7_ld = 6;
                    float* const v_mul_10 = send_edges_score + first_of_edges * 1;
                    constexpr Long v_mul_10_ld = 1;
                    T* const v_mm_2 = scratch_1;
                    constexpr Long v_mm_2_ld = 6;
                    T* const v_mm_3 = scratch_2;
                    constexpr Long v_mm_3_ld = 6;
                    T* const v_mul_3 = scratch_3;
                    constexpr Long v_mul_3_ld = 6;
                    T* const v_add_7 = scratch_4;
                    constexpr Long v_add_7_ld = 6;
                    T* const v_segment_sum_2 = scratch_5;
                    constexpr Long v_segment_sum_2_ld = 1;
                    T* const v_div_3 = scratch_6;
                    constexpr Long v_div_3_ld = 1;
                    const Index* const owner = owner_of + first_of_edges;
                    const Index* const first_edge = edge_offset + (start - num_leaves);
                    const Long without = std::max<Long>(num_leaves - start, 0);  // rows without edges come first
                    meeting.wait(team);
                    product(rows, v_grad_scatter_score, v_grad_scatter_score_ld, weight_0, nullptr, v_mm_2, v_mm_2_ld);
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t1 = v_grad_scatter_h[i * v_grad_scatter_h_ld + j0] + v_grad_push_h[i * v_grad_push_h_ld + j0];
                            const float t2 = t1 + v_mm_2[i * v_mm_2_ld + j0];
                            const float t3 = t2 * v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            v_mul_3[i * v_mul_3_ld + j0] = t3;
                            const float t4 = v_message[i * v_message_ld + j0] - v_n[i * v_n_ld + j0];
                            const float t5 = t2 * t4;
                            const float t6 = float(1.0) - v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            const float t7 = t5 * t6;
                            const float t8 = t7 * v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            v_sigmoid_backward[i * v_sigmoid_backward_ld + j0] = t8;
                            const float t9 = -t3;
                            const float t10 = t2 + t9;
                            const float t11 = -v_n[i * v_n_ld + j0];
                            const float t12 = fused(t11, v_n[i * v_n_ld + j0], float(1.0));
                            const float t13 = t10 * t12;
                            v_tanh_backward[i * v_tanh_backward_ld + j0] = t13;
                            const float t14 = t13 * v_clone_default[i * v_clone_default_ld + j0];
                            const float t15 = float(1.0) - v_sigmoid[i * v_sigmoid_ld + j0];
                            const float t16 = t14 * t15;
                            const float t17 = t16 * v_sigmoid[i * v_sigmoid_ld + j0];
                            v_sigmoid_backward_1[i * v_sigmoid_backward_1_ld + j0] = t17;
                            v_cat[i * v_cat_ld + j0] = t17;
                            v_cat[i * v_cat_ld + j0 + 6] = t8;
                            const float t18 = t13 * v_sigmoid[i * v_sigmoid_ld + j0];
                            v_cat[i * v_cat_ld + j0 + 12] = t18;
                        }
                    }
                    meeting.wait(team);
                    product(rows, v_cat, v_cat_ld, weight_1, nullptr, v_mm_3, v_mm_3_ld);
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t19 = v_mul_3[i * v_mul_3_ld + j0] + v_mm_3[i * v_mm_3_ld + j0];
                            v_add_7[i * v_add_7_ld + j0] = t19;
                        }
                    }
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < edges; ++i) {
                        float sum20 = float(0.0);
                        const Long row21 = (owner[i] - start);
                        #pragma omp simd reduction(+:sum20)
                        for (Long r1 = 0; r1 < 6; ++r1) {
                            const float t22 = v_add_7[row21 * v_add_7_ld + r1] * v_kids_h[i * v_kids_h_ld + r1];
                            sum20 = sum20 + t22;
                        }
                        const float t23 = sum20 / v_expand_1[i * v_expand_1_ld + 0];
                        v_div_3[i * v_div_3_ld + 0] = t23;
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t24 = v_add_7[row21 * v_add_7_ld + j0] * v_div[i * v_div_ld + 0];
                            v_mul_7[i * v_mul_7_ld + j0] = t24;
                        }
                    }
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        const Long from = i < without ? 0 : first_edge[i] - first_edge[without];
                        const Long to = i < without ? 0 : first_edge[i + 1] - first_edge[without];
                        float total25 = float(0.0);
                        for (Long e = from; e < to; ++e) {
                            float sum26 = float(0.0);
                            const Long row27 = (owner[e] - start);
                            #pragma omp simd reduction(+:sum26)
                            for (Long r1 = 0; r1 < 6; ++r1) {
                                const float t28 = v_add_7[row27 * v_add_7_ld + r1] * v_kids_h[e * v_kids_h_ld + r1];
                                sum26 = sum26 + t28;
                            }
                            const float t29 = -sum26;
                            const float t30 = t29 * v_div_2[e * v_div_2_ld + 0];
                            total25 = total25 + t30;
                        }
                        v_segment_sum_2[i * v_segment_sum_2_ld + 0] = total25;
                    }
                    meeting.wait(team);
                    {
                    Long own = 0, stop = 0;
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < edges; ++i) ++own, stop = i + 1;
                    #pragma omp simd
                    for (Long i = stop - own; i < stop; ++i) {
                        const Long row31 = (owner[i] - start);
                        const float t32 = v_div_3[i * v_div_3_ld + 0] + v_segment_sum_2[row31 * v_segment_sum_2_ld + 0];
                        const float t33 = t32 * v_exp[i * v_exp_ld + 0];
                        v_mul_10[i * v_mul_10_ld + 0] = t33;
                    }
                    }
                    meeting.wait(team);
                } else {
                    T* v_grad_scatter_h = received_h;
                    constexpr Long v_grad_scatter_h_ld = 6;
                    if (placed_sent_h && !placed_offset && !listed_sent_h && !outside_h && read_at >= 0)
                        v_grad_scatter_h = const_cast<T*>(placed_sent_h) + read_at * 6;
                    else receive(Parents<T>{placed_sent_h, placed_places, placed_offset}, Parents<T>{listed_sent_h, listed_places_h, listed_offset}, outside_h, group_start + start, rows, 6, v_grad_scatter_h);
                    T* v_grad_scatter_score = received_score + start * 1;
                    constexpr Long v_grad_scatter_score_ld = 1;
                    receive(Parents<T>{placed_sent_score, placed_places, placed_offset}, Parents<T>{listed_sent_score, listed_places_score, listed_offset}, outside_score, group_start + start, rows, 1, v_grad_scatter_score);
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
                    T* const v_mm_2 = scratch_7;
                    constexpr Long v_mm_2_ld = 6;
                    meeting.wait(team);
                    product(rows, v_grad_scatter_score, v_grad_scatter_score_ld, weight_0, nullptr, v_mm_2, v_mm_2_ld);
                    meeting.wait(team);
                    #pragma omp for schedule(static) nowait
                    for (Long i = 0; i < rows; ++i) {
                        #pragma omp simd
                        for (Long j0 = 0; j0 < 6; ++j0) {
                            const float t1 = v_grad_scatter_h[i * v_grad_scatter_h_ld + j0] + v_grad_push_h[i * v_grad_push_h_ld + j0];
                            const float t2 = t1 + v_mm_2[i * v_mm_2_ld + j0];
                            const float t3 = float(0.0) - v_n[i * v_n_ld + j0];
                            const float t4 = t2 * t3;
                            const float t5 = float(1.0) - v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            const float t6 = t4 * t5;
                            const float t7 = t6 * v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            v_sigmoid_backward[i * v_sigmoid_backward_ld + j0] = t7;
                            const float t8 = t2 * v_sigmoid_1[i * v_sigmoid_1_ld + j0];
                            const float t9 = -t8;
                            const float t10 = t2 + t9;
                            const float t11 = -v_n[i * v_n_ld + j0];
                            const float t12 = fused(t11, v_n[i * v_n_ld + j0], float(1.0));
                            const float t13 = t10 * t12;
                            v_tanh_backward[i * v_tanh_backward_ld + j0] = t13;
                            const float t14 = t13 * v_clone_default[i * v_clone_default_ld + j0];
                            const float t15 = float(1.0) - v_sigmoid[i * v_sigmoid_ld + j0];
                            const float t16 = t14 * t15;
                            const float t17 = t16 * v_sigmoid[i * v_sigmoid_ld + j0];
                            v_sigmoid_backward_1[i * v_sigmoid_backward_1_ld + j0] = t17;
                            v_cat[i * v_cat_ld + j0] = t17;
                            v_cat[i * v_cat_ld + j0 + 6] = t7;
                            const float t18 = t13 * v_sigmoid[i * v_sigmoid_ld + j0];
                            v_cat[i * v_cat_ld + j0 + 12] = t18;
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
    T* const p_grad_scatter_score = (T* const)a[6];
    const T* const p_params_1 = (T* const)a[7];
    T* const p_add_3 = (T* const)a[8];
    T* const p_sigmoid_backward = (T* const)a[9];
    T* const p_tanh_backward = (T* const)a[10];
    T* const p_sigmoid_backward_1 = (T* const)a[11];
    T* const p_cat = (T* const)a[12];
    T* const p_mm_1 = (T* const)a[13];
    T* const p_mm_5 = (T* const)a[14];
    T* const p_mm_6 = (T* const)a[15];
    T* const p_view_1 = (T* const)a[16];
    T* const p_view = (T* const)a[17];
    T* const scratch_1 = (T* const)a[18];
    const bool adds = (bool)a[19];
    const Long num_computed = (Long)a[20];
    Long& packed = a[21];
    const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;
    packed = packs;
    T* const room_0 = (T* const)a[22];
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
                constexpr Long v_grad_scatter_score_ld = 1;
                T* const v_grad_scatter_score = p_grad_scatter_score + start * v_grad_scatter_score_ld;
                constexpr Long v_h_ld = 6;
                T* const v_h = p_add_3 + start * v_h_ld;
                constexpr Long v_sigmoid_backward_ld = 6;
                T* const v_sigmoid_backward = p_sigmoid_backward + start * v_sigmoid_backward_ld;
                constexpr Long v_tanh_backward_ld = 6;
                T* const v_tanh_backward = p_tanh_backward + start * v_tanh_backward_ld;
                constexpr Long v_sigmoid_backward_1_ld = 6;
                T* const v_sigmoid_backward_1 = p_sigmoid_backward_1 + start * v_sigmoid_backward_1_ld;
                constexpr Long v_cat_ld = 18;
                T* const v_cat = p_cat + start * v_cat_ld;
                constexpr Long v_mm_5_ld = 6;
                T* const v_mm_5 = p_mm_5 + start * v_mm_5_ld;
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
                product(rows, v_cat_1, v_cat_1_ld, weight_0, nullptr, v_mm_5, v_mm_5_ld);
                outer(rows, v_grad_scatter_score, v_grad_scatter_score_ld, 1, v_h, v_h_ld, 6, p_mm_1, adds);
                outer(rows, v_cat_1, v_cat_1_ld, 18, v_pull_x, v_pull_x_ld, 6, p_mm_6, adds);
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
    T* const p_segment_sum_1 = (T* const)a[5];
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
                constexpr Long v_message_ld = 6;
                T* const v_message = p_segment_sum_1 + (start - num_leaves) * v_message_ld;
                constexpr Long v_cat_ld = 18;
                T* const v_cat = p_cat + start * v_cat_ld;
                outer(rows, v_cat, v_cat_ld, 18, v_message, v_message_ld, 6, p_mm_4, adds);
                meeting.wait(team);
            }
            if (team > 1) meeting.ends();
        }
    }
}
