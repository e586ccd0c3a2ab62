// The ANI atomic environment vector (AEV) of one atom, with its analytic derivatives.
//
// Smith, Isayev, Roitberg, Chem. Sci. 2017, 8, 3192, equations 3 and 4, in the form TorchANI gives them: a factor
// 0.25 before the radial terms, and cos(theta) scaled by 0.95, which also keeps the derivative finite for collinear
// neighbours. cos(theta - theta_s) is expanded, so that no arc cosine is evaluated. No PyTorch.

#ifndef RAREAL_ENVIRONMENT_H
#define RAREAL_ENVIRONMENT_H

#include "simd.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace rareal {

/** Parameters of the descriptor in the precision to compute in; lengths in Angstrom. */
template <typename T> struct Descriptor {
  int64_t elements = 0;
  T eta_r = 0, cutoff_r = 0, eta_a = 0, zeta = 0, cutoff_a = 0;
  std::vector<T> shifts_r, shifts_a, cos_sections, sin_sections;

  int64_t n_radial() const { return static_cast<int64_t>(shifts_r.size()); }
  int64_t n_sections() const { return static_cast<int64_t>(cos_sections.size()); }
  int64_t n_shifts() const { return static_cast<int64_t>(shifts_a.size()); }
  int64_t n_angular() const { return n_sections() * n_shifts(); }
  int64_t dimension() const { return elements * n_radial() + elements * (elements + 1) / 2 * n_angular(); }
  /** First column of an unordered element pair, a <= b, as TorchANI counts them. */
  int64_t pair_offset(int64_t a, int64_t b) const
  {
    return elements * n_radial() + (a * elements - a * (a - 1) / 2 + (b - a)) * n_angular();
  }
};

/** Neighbours of one central atom and every radial and angular term of theirs, evaluated once for values and gradients.
 *
 * Neighbours are sorted by element and lie side by side in vectors, filled up with neighbours that contribute nothing;
 * so do the triples (pairs of neighbours within the angular cutoff) of every pair of elements.
 */
template <typename T> class Environment {
 public:
  /** Reads edges [first, last) of the centre; those beyond the cutoff are ignored. The descriptor must stay. */
  void read(const Descriptor<T> &descriptor, const int64_t *species, const int64_t *other, const T *vectors,
            int64_t first, int64_t last);

  /** Adds the AEV to row [dimension]. */
  void add_values(T *row) const;

  /** Adds, for every member, the gradient by the edge vectors: cotangents [members, stride] to out [members, edges*3]. */
  void add_gradients(const T *cotangents, int64_t stride, int64_t members, T *out, int64_t out_stride);

  /** Adds d(AEV[d])/d(edge vector) to out [edges, dimension, 3]. */
  void add_jacobian(T *out) const;

 private:
  // Triples of neighbours a in [a_first, a_last) and b in [b_first, b_last); of one element: b > a.
  struct Group {
    int64_t column, first, count, a_first, a_last, b_first, b_last;
    bool same;
  };

  void find_neighbours(const int64_t *species, const int64_t *other, const T *vectors, int64_t first, int64_t last);
  void find_triples();
  void fill_triples(const Group &group);
  void add_triples(const Group &group, const T *weights);
  template <typename Visit> void each_run(const Group &group, Visit &&visit) const;

  const Descriptor<T> *d_ = nullptr;

  std::vector<int64_t> found_, kinds_, counts_;    // edges within the cutoff, their elements; neighbours per element
  std::vector<int64_t> starts_;                    // [elements + 1] where each element's neighbours begin, padded
  std::vector<int64_t> edges_;                     // [neighbours] edge, -1 for padding
  simd::Rows<T> neighbours_;                       // rows: see environment.cpp
  simd::Rows<T> radial_, radial_slopes_;           // [n_radial, neighbours]

  std::vector<int64_t> near_slots_, near_starts_;    // neighbours within the angular cutoff; per element
  simd::Rows<T> near_;
  std::vector<Group> groups_;
  simd::Rows<T> triples_, results_;
  simd::Rows<T> gradients_, near_gradients_;    // of one member: [3, neighbours]
};

extern template class Environment<float>;
extern template class Environment<double>;

}    // namespace rareal

#endif
