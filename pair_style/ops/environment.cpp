#include "environment.h"

#include "clones.h"

using rareal::Descriptor;
using rareal::Environment;

namespace {

constexpr double pi = 3.14159265358979323846;

// Rows of what is known of neighbours, near neighbours, and triples. FACTOR_A: dfc_a fc_b, FACTOR_B: fc_a dfc_b.
enum NeighbourRow { R, UX, UY, UZ, FC, DFC, NEIGHBOUR_ROWS };
enum TripleRow { RA, AX, AY, AZ, RB, BX, BY, BZ, COSINE, PRODUCT, FACTOR_A, FACTOR_B, TRIPLE_ROWS };
enum ResultRow { GAX, GAY, GAZ, GBX, GBY, GBZ, RESULT_ROWS };

// Everything that the loops below take, as plain pointers; rows lie `stride` apart.
template <typename T> struct RadialLoop {
  T *neighbours, *values, *slopes;
  const T *shifts;
  int64_t count, stride, n;
  T eta, cutoff;
};

template <typename T> struct AngularLoop {
  T *triples, *f1, *df1, *f2, *df2;
  const T *cos_sections, *sin_sections, *shifts;
  int64_t count, stride, n1, n2;
  T eta, zeta;
};

template <typename T> struct ContractLoop {
  const T *weights, *triples, *f1, *df1, *f2, *df2;
  T *results;
  int64_t count, stride, result_stride, n1, n2;
};

// On entry UX, UY, UZ hold the edge vector; on exit its direction.
template <typename T> RAREAL_INLINE void radial_loop(const RadialLoop<T> &l)
{
  T *r = l.neighbours + R * l.stride, *x = l.neighbours + UX * l.stride, *y = l.neighbours + UY * l.stride;
  T *z = l.neighbours + UZ * l.stride, *fc = l.neighbours + FC * l.stride, *dfc = l.neighbours + DFC * l.stride;
  const T frequency = static_cast<T>(pi) / l.cutoff;
#pragma GCC ivdep
  for (int64_t t = 0; t < l.count; ++t) {
    r[t] = std::sqrt(x[t] * x[t] + y[t] * y[t] + z[t] * z[t]);
    const T inverse = T(1) / r[t];
    x[t] *= inverse;
    y[t] *= inverse;
    z[t] *= inverse;
  }
#pragma GCC ivdep
  for (int64_t t = 0; t < l.count; ++t) fc[t] = T(0.125) * rareal::simd::cosine(frequency * r[t]) + T(0.125);
#pragma GCC ivdep
  for (int64_t t = 0; t < l.count; ++t) dfc[t] = T(-0.125) * frequency * rareal::simd::sine(frequency * r[t]);
  for (int64_t k = 0; k < l.n; ++k) {
    T *value = l.values + k * l.stride, *slope = l.slopes + k * l.stride;
    const T shift = l.shifts[k], eta = l.eta;
#pragma GCC ivdep
    for (int64_t t = 0; t < l.count; ++t) {
      const T offset = r[t] - shift;
      const T gauss = rareal::simd::exponential(-eta * offset * offset);
      value[t] = gauss * fc[t];
      slope[t] = gauss * (dfc[t] - T(2) * eta * offset * fc[t]);
    }
  }
}

template <typename T> RAREAL_INLINE void cutoff_loop(T *near, int64_t stride, int64_t count, T cutoff)
{
  const T *r = near + R * stride;
  T *fc = near + FC * stride, *dfc = near + DFC * stride;
  const T frequency = static_cast<T>(pi) / cutoff;
#pragma GCC ivdep
  for (int64_t t = 0; t < count; ++t) fc[t] = T(0.5) * rareal::simd::cosine(frequency * r[t]) + T(0.5);
#pragma GCC ivdep
  for (int64_t t = 0; t < count; ++t) dfc[t] = T(-0.5) * frequency * rareal::simd::sine(frequency * r[t]);
}

// f1 (sections), f2 (shifts), and their derivatives by the cosine and by one of the two distances.
template <typename T> RAREAL_INLINE void angular_loop(const AngularLoop<T> &l)
{
  const int64_t s = l.stride;
  const T *ra = l.triples + RA * s, *ax = l.triples + AX * s, *ay = l.triples + AY * s, *az = l.triples + AZ * s;
  const T *rb = l.triples + RB * s, *bx = l.triples + BX * s, *by = l.triples + BY * s, *bz = l.triples + BZ * s;
  T *cosine = l.triples + COSINE * s;
#pragma GCC ivdep
  for (int64_t t = 0; t < l.count; ++t) cosine[t] = ax[t] * bx[t] + ay[t] * by[t] + az[t] * bz[t];
  for (int64_t z = 0; z < l.n1; ++z) {
    T *f = l.f1 + z * s, *df = l.df1 + z * s;
    const T cz = l.cos_sections[z], sz = l.sin_sections[z], zeta = l.zeta;
#pragma GCC ivdep
    for (int64_t t = 0; t < l.count; ++t) {
      const T c = T(0.95) * cosine[t];
      const T sine = std::sqrt(T(1) - c * c);
      const T base = T(0.5) * (T(1) + c * cz + sine * sz);
      // base >= 0 by construction; rounding may take it just below, where the power vanishes anyway.
      const T safe = base < T(1e-12) ? T(1e-12) : base;
      const T lower = rareal::simd::exponential((zeta - T(1)) * rareal::simd::logarithm(safe));    // base^(zeta - 1)
      f[t] = T(2) * lower * safe;
      df[t] = T(0.95) * zeta * lower * (cz - c / sine * sz);
    }
  }
  for (int64_t k = 0; k < l.n2; ++k) {
    T *f = l.f2 + k * s, *df = l.df2 + k * s;
    const T shift = l.shifts[k], eta = l.eta;
#pragma GCC ivdep
    for (int64_t t = 0; t < l.count; ++t) {
      const T offset = T(0.5) * (ra[t] + rb[t]) - shift;
      f[t] = rareal::simd::exponential(-eta * offset * offset);
      df[t] = -eta * offset * f[t];
    }
  }
}

// Adds the AEV's columns of one group: sum over triples of f2[k] f1[z] fc_a fc_b.
template <int bytes, typename T>
RAREAL_INLINE void angular_sum(const T *product, const T *f1, const T *f2, int64_t count, int64_t stride, int64_t n1,
                               int64_t n2, T *columns)
{
  typedef T Lanes __attribute__((vector_size(bytes)));
  constexpr int64_t lanes = bytes / sizeof(T);
  for (int64_t k = 0; k < n2; ++k)
    for (int64_t z = 0; z < n1; ++z) {
      Lanes sum = {};
      for (int64_t t = 0; t < count; t += lanes) {
        Lanes a, b, p;
        std::memcpy(&a, f1 + z * stride + t, sizeof(a));
        std::memcpy(&b, f2 + k * stride + t, sizeof(b));
        std::memcpy(&p, product + t, sizeof(p));
        sum += a * b * p;
      }
      T total = 0;
      for (int64_t l = 0; l < lanes; ++l) total += sum[l];
      *columns++ += total;
    }
}

// weights [n2, n1] of one member -> that member's gradient by the vectors of a and b, for every triple of a group.
template <int bytes, typename T>
RAREAL_INLINE void contract_loop(const ContractLoop<T> &l, int64_t n1, int64_t n2)
{
  typedef T Lanes __attribute__((vector_size(bytes)));
  constexpr int64_t lanes = bytes / sizeof(T);
  const int64_t s = l.stride;
  for (int64_t t = 0; t < l.count; t += lanes) {
    Lanes value = {}, by_distance = {}, by_cosine = {};
    for (int64_t k = 0; k < n2; ++k) {
      Lanes sum = {}, dsum = {}, f, df;
      for (int64_t z = 0; z < n1; ++z) {
        const T w = l.weights[k * n1 + z];
        std::memcpy(&f, l.f1 + z * s + t, sizeof(f));
        std::memcpy(&df, l.df1 + z * s + t, sizeof(df));
        sum += w * f;
        dsum += w * df;
      }
      std::memcpy(&f, l.f2 + k * s + t, sizeof(f));
      std::memcpy(&df, l.df2 + k * s + t, sizeof(df));
      value += f * sum;
      by_cosine += f * dsum;
      by_distance += df * sum;
    }
    Lanes row[TRIPLE_ROWS];
    for (int64_t k = 0; k < TRIPLE_ROWS; ++k) std::memcpy(&row[k], l.triples + k * s + t, sizeof(Lanes));
    const Lanes along = by_distance * row[PRODUCT], turn = by_cosine * row[PRODUCT];
    const Lanes ca = turn / row[RA], cb = turn / row[RB];
    const Lanes pa = value * row[FACTOR_A] + along - ca * row[COSINE];
    const Lanes pb = value * row[FACTOR_B] + along - cb * row[COSINE];
    for (int64_t k = 0; k < 3; ++k) {
      const Lanes ga = pa * row[AX + k] + ca * row[BX + k], gb = pb * row[BX + k] + cb * row[AX + k];
      std::memcpy(l.results + (GAX + k) * l.result_stride + t, &ga, sizeof(ga));
      std::memcpy(l.results + (GBX + k) * l.result_stride + t, &gb, sizeof(gb));
    }
  }
}

// gradients[3, neighbours] of one member and the neighbours [first, last) of one element.
template <typename T>
RAREAL_INLINE void radial_contract(const T *weights, const T *slopes, const T *neighbours, int64_t n, int64_t stride,
                                   int64_t first, int64_t last, T *gradients)
{
#pragma GCC ivdep
  for (int64_t t = first; t < last; ++t) gradients[t] = weights[0] * slopes[t];
  for (int64_t k = 1; k < n; ++k) {
    const T w = weights[k], *slope = slopes + k * stride;
#pragma GCC ivdep
    for (int64_t t = first; t < last; ++t) gradients[t] += w * slope[t];
  }
#pragma GCC ivdep
  for (int64_t t = first; t < last; ++t) {
    const T sum = gradients[t];
    gradients[t] = sum * neighbours[UX * stride + t];
    gradients[stride + t] = sum * neighbours[UY * stride + t];
    gradients[2 * stride + t] = sum * neighbours[UZ * stride + t];
  }
}

// Clones per instruction set must be plain functions. ANI's own numbers of sections and shifts are known to the compiler.
#define RAREAL_INSTANTIATE(T) \
  RAREAL_CLONES void run(const RadialLoop<T> &l) { radial_loop(l); } \
  RAREAL_CLONES void run_cutoff(T *near, int64_t stride, int64_t count, T cutoff) \
  { \
    cutoff_loop(near, stride, count, cutoff); \
  } \
  RAREAL_CLONES void run(const AngularLoop<T> &l) { angular_loop(l); } \
  RAREAL_WIDTHS(void run_sum(const T *product, const T *f1, const T *f2, int64_t count, int64_t stride, int64_t n1, \
                             int64_t n2, T *columns), \
                angular_sum<bytes>(product, f1, f2, count, stride, n1, n2, columns);) \
  RAREAL_WIDTHS(void run_contract(const ContractLoop<T> &l), \
                if (l.n1 == 4 && l.n2 == 8) contract_loop<bytes>(l, 4, 8); \
                else contract_loop<bytes>(l, l.n1, l.n2);) \
  RAREAL_CLONES void run_radial(const T *weights, const T *slopes, const T *neighbours, int64_t n, int64_t stride, \
                                int64_t first, int64_t last, T *gradients) \
  { \
    radial_contract(weights, slopes, neighbours, n, stride, first, last, gradients); \
  }
RAREAL_INSTANTIATE(float)
RAREAL_INSTANTIATE(double)

}    // namespace

template <typename T>
void Environment<T>::read(const Descriptor<T> &descriptor, const int64_t *species, const int64_t *other,
                          const T *vectors, int64_t first, int64_t last)
{
  d_ = &descriptor;
  find_neighbours(species, other, vectors, first, last);
  find_triples();
}

template <typename T>
void Environment<T>::find_neighbours(const int64_t *species, const int64_t *other, const T *vectors, int64_t first,
                                     int64_t last)
{
  const T cutoff = d_->cutoff_r, limit = cutoff * cutoff;
  found_.clear();
  kinds_.clear();
  counts_.assign(d_->elements, 0);
  for (int64_t e = first; e < last; ++e) {
    const T *v = vectors + 3 * e;
    if (v[0] * v[0] + v[1] * v[1] + v[2] * v[2] >= limit) continue;
    const int64_t kind = species[other[e]];
    found_.push_back(e);
    kinds_.push_back(kind);
    ++counts_[kind];
  }

  starts_.assign(1, 0);
  for (const int64_t count : counts_) starts_.push_back(starts_.back() + simd::padded<T>(count));
  const int64_t total = starts_.back();
  neighbours_.shape(NEIGHBOUR_ROWS, total);
  radial_.shape(d_->n_radial(), total);
  radial_slopes_.shape(d_->n_radial(), total);
  edges_.assign(total, -1);
  std::fill_n(neighbours_[UX], total, cutoff);
  std::fill_n(neighbours_[UY], total, T(0));
  std::fill_n(neighbours_[UZ], total, T(0));
  std::copy(starts_.begin(), starts_.end() - 1, counts_.begin());    // from here on: the next free place
  for (std::size_t n = 0; n < found_.size(); ++n) {
    const int64_t place = counts_[kinds_[n]]++;
    edges_[place] = found_[n];
    for (int64_t k = 0; k < 3; ++k) neighbours_[UX + k][place] = vectors[3 * found_[n] + k];
  }
  run(RadialLoop<T>{neighbours_[0], radial_[0], radial_slopes_[0], d_->shifts_r.data(), total, neighbours_.stride(),
                    d_->n_radial(), d_->eta_r, cutoff});
  for (int64_t place = 0; place < total; ++place)
    if (edges_[place] < 0)
      for (int64_t k = 0; k < d_->n_radial(); ++k) radial_[k][place] = radial_slopes_[k][place] = T(0);
}

template <typename T> void Environment<T>::find_triples()
{
  near_slots_.clear();
  near_starts_.assign(1, 0);
  for (int64_t kind = 0; kind < d_->elements; ++kind) {
    for (int64_t place = starts_[kind]; place < starts_[kind + 1]; ++place)
      if (edges_[place] >= 0 && !(neighbours_[R][place] >= d_->cutoff_a)) near_slots_.push_back(place);
    near_starts_.push_back(static_cast<int64_t>(near_slots_.size()));
  }
  const auto count = static_cast<int64_t>(near_slots_.size());
  near_.shape(NEIGHBOUR_ROWS, count);
  for (int64_t k = R; k <= UZ; ++k) {
    for (int64_t n = 0; n < count; ++n) near_[k][n] = neighbours_[k][near_slots_[n]];
    std::fill(near_[k] + count, near_[k] + near_.stride(), T(1));
  }
  run_cutoff(near_[0], near_.stride(), near_.stride(), d_->cutoff_a);

  groups_.clear();
  int64_t total = 0;
  for (int64_t a = 0; a < d_->elements; ++a)
    for (int64_t b = a; b < d_->elements; ++b) {
      const int64_t na = near_starts_[a + 1] - near_starts_[a], nb = near_starts_[b + 1] - near_starts_[b];
      const int64_t number = a == b ? na * (na - 1) / 2 : na * nb;
      if (number == 0) continue;
      groups_.push_back({d_->pair_offset(a, b), total, number, near_starts_[a], near_starts_[a + 1], near_starts_[b],
                         near_starts_[b + 1], a == b});
      total += simd::padded<T>(number);
    }
  const int64_t n1 = d_->n_sections(), n2 = d_->n_shifts();
  triples_.shape(TRIPLE_ROWS + 2 * (n1 + n2), total);
  for (const Group &group : groups_) fill_triples(group);
  T *terms = triples_[TRIPLE_ROWS];
  const int64_t stride = triples_.stride();
  run(AngularLoop<T>{triples_[0], terms, terms + n1 * stride, terms + 2 * n1 * stride, terms + (2 * n1 + n2) * stride,
                     d_->cos_sections.data(), d_->sin_sections.data(), d_->shifts_a.data(), total, stride, n1, n2,
                     d_->eta_a, d_->zeta});
}

// Calls visit(a, first b, last b, first triple) for every neighbour a: its triples lie side by side.
template <typename T>
template <typename Visit>
void Environment<T>::each_run(const Group &group, Visit &&visit) const
{
  int64_t t = group.first;
  for (int64_t a = group.a_first; a < group.a_last; ++a) {
    const int64_t first = group.same ? a + 1 : group.b_first;
    if (first < group.b_last) visit(a, first, group.b_last, t);
    t += group.b_last - first;
  }
}

template <typename T> void Environment<T>::fill_triples(const Group &group)
{
  each_run(group, [this](int64_t a, int64_t first, int64_t last, int64_t t) {
    const int64_t count = last - first;
    for (int64_t k = R; k <= UZ; ++k) {
      std::fill_n(triples_[RA + k] + t, count, near_[k][a]);
      std::copy_n(near_[k] + first, count, triples_[RB + k] + t);
    }
    const T fc = near_[FC][a], dfc = near_[DFC][a];
    const T *fb = near_[FC] + first, *dfb = near_[DFC] + first;
    T *product = triples_[PRODUCT] + t, *factor_a = triples_[FACTOR_A] + t, *factor_b = triples_[FACTOR_B] + t;
    for (int64_t n = 0; n < count; ++n) {
      product[n] = fc * fb[n];
      factor_a[n] = dfc * fb[n];
      factor_b[n] = fc * dfb[n];
    }
  });
  // Padding: finite numbers everywhere, and factors of zero.
  const int64_t end = group.first + group.count, padding = simd::padded<T>(group.count) - group.count;
  for (int64_t k = 0; k < TRIPLE_ROWS; ++k) std::fill_n(triples_[k] + end, padding, k < COSINE ? T(0.5) : T(0));
}

template <typename T> void Environment<T>::add_values(T *row) const
{
  for (int64_t kind = 0; kind < d_->elements; ++kind)
    for (int64_t k = 0; k < d_->n_radial(); ++k, ++row) {
      T sum = 0;
      for (int64_t place = starts_[kind]; place < starts_[kind + 1]; ++place) sum += radial_[k][place];
      *row += sum;
    }
  row -= d_->elements * d_->n_radial();
  const int64_t n1 = d_->n_sections(), n2 = d_->n_shifts();
  for (const Group &g : groups_)
    run_sum(triples_[PRODUCT] + g.first, triples_[TRIPLE_ROWS] + g.first, triples_[TRIPLE_ROWS + 2 * n1] + g.first,
            simd::padded<T>(g.count), triples_.stride(), n1, n2, row + g.column);
}

template <typename T>
void Environment<T>::add_gradients(const T *cotangents, int64_t stride, int64_t members, T *out, int64_t out_stride)
{
  const int64_t places = neighbours_.stride(), nears = near_.stride();
  gradients_.shape(3, places);
  near_gradients_.shape(3, nears);
  for (int64_t m = 0; m < members; ++m, cotangents += stride, out += out_stride) {
    for (int64_t kind = 0; kind < d_->elements; ++kind)
      run_radial(cotangents + kind * d_->n_radial(), radial_slopes_[0], neighbours_[0], d_->n_radial(), places,
                 starts_[kind], starts_[kind + 1], gradients_[0]);
    std::fill_n(near_gradients_[0], 3 * nears, T(0));
    for (const Group &group : groups_) add_triples(group, cotangents + group.column);
    for (int64_t k = 0; k < 3; ++k)
      for (std::size_t n = 0; n < near_slots_.size(); ++n) gradients_[k][near_slots_[n]] += near_gradients_[k][n];
    for (std::size_t place = 0; place < edges_.size(); ++place) {
      if (edges_[place] < 0) continue;
      T *g = out + 3 * edges_[place];
      for (int64_t k = 0; k < 3; ++k) g[k] += gradients_[k][place];
    }
  }
}

template <typename T> void Environment<T>::add_triples(const Group &group, const T *weights)
{
  const int64_t n1 = d_->n_sections(), n2 = d_->n_shifts(), first = group.first;
  results_.shape(RESULT_ROWS, simd::padded<T>(group.count));
  run_contract(ContractLoop<T>{weights, triples_[0] + first, triples_[TRIPLE_ROWS] + first,
                               triples_[TRIPLE_ROWS + n1] + first, triples_[TRIPLE_ROWS + 2 * n1] + first,
                               triples_[TRIPLE_ROWS + 2 * n1 + n2] + first, results_[0], simd::padded<T>(group.count),
                               triples_.stride(), results_.stride(), n1, n2});
  each_run(group, [&](int64_t a, int64_t b_first, int64_t b_last, int64_t t) {
    const int64_t count = b_last - b_first;
    T sums[3] = {};
    for (int64_t n = 0; n < count; ++n)
      for (int64_t k = 0; k < 3; ++k) sums[k] += results_[GAX + k][t - first + n];
    for (int64_t k = 0; k < 3; ++k) {
      near_gradients_[k][a] += sums[k];
      const T *from = results_[GBX + k] + t - first;
      T *to = near_gradients_[k] + b_first;
      for (int64_t n = 0; n < count; ++n) to[n] += from[n];
    }
  });
}

template <typename T> void Environment<T>::add_jacobian(T *out) const
{
  const int64_t dimension = d_->dimension();
  for (int64_t kind = 0; kind < d_->elements; ++kind)
    for (int64_t place = starts_[kind]; place < starts_[kind + 1]; ++place) {
      if (edges_[place] < 0) continue;
      T *g = out + 3 * (edges_[place] * dimension + kind * d_->n_radial());
      for (int64_t k = 0; k < d_->n_radial(); ++k)
        for (int64_t c = 0; c < 3; ++c) *g++ += radial_slopes_[k][place] * neighbours_[UX + c][place];
    }
  const int64_t n1 = d_->n_sections(), n2 = d_->n_shifts();
  const auto row = [this](int64_t k, int64_t t) { return triples_[k][t]; };
  for (const Group &group : groups_)
    each_run(group, [&](int64_t a, int64_t b_first, int64_t b_last, int64_t t) {
      T *ga_begin = out + 3 * (edges_[near_slots_[a]] * dimension + group.column);
      for (int64_t b = b_first; b < b_last; ++b, ++t) {
        T *ga = ga_begin, *gb = out + 3 * (edges_[near_slots_[b]] * dimension + group.column);
        const T ca = row(PRODUCT, t) / row(RA, t), cb = row(PRODUCT, t) / row(RB, t);
        for (int64_t k = 0; k < n2; ++k)
          for (int64_t z = 0; z < n1; ++z, ga += 3, gb += 3) {
            const T f1 = row(TRIPLE_ROWS + z, t), df1 = row(TRIPLE_ROWS + n1 + z, t);
            const T f2 = row(TRIPLE_ROWS + 2 * n1 + k, t), df2 = row(TRIPLE_ROWS + 2 * n1 + n2 + k, t);
            const T value = f2 * f1, slope = df2 * f1 * row(PRODUCT, t), turn = f2 * df1;
            const T pa = value * row(FACTOR_A, t) + slope - turn * ca * row(COSINE, t);
            const T pb = value * row(FACTOR_B, t) + slope - turn * cb * row(COSINE, t);
            for (int64_t c = 0; c < 3; ++c) {
              ga[c] += pa * row(AX + c, t) + turn * ca * row(BX + c, t);
              gb[c] += pb * row(BX + c, t) + turn * cb * row(AX + c, t);
            }
          }
      }
    });
}

template class rareal::Environment<float>;
template class rareal::Environment<double>;
