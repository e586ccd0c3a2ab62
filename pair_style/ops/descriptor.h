// What the operators of ANI share: their arguments, checked and in the form the native code wants.

#ifndef RAREAL_DESCRIPTOR_H
#define RAREAL_DESCRIPTOR_H

#include "environment.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <vector>

// SymInt: the number of atoms may be a symbol where a model is compiled ahead of time.
#define RAREAL_AEV_PARAMETERS \
  "SymInt n_local, int elements, float[] radial, float[] shifts_r, float[] angular, float[] shifts_a, float[] sections"

namespace rareal {

template <typename T>
Descriptor<T> make_descriptor(int64_t elements, const std::vector<double> &radial, const std::vector<double> &shifts_r,
                              const std::vector<double> &angular, const std::vector<double> &shifts_a,
                              const std::vector<double> &sections)
{
  TORCH_CHECK(radial.size() == 2, "aev: radial parameters are (eta, cutoff)");
  TORCH_CHECK(angular.size() == 3, "aev: angular parameters are (eta, zeta, cutoff)");
  Descriptor<T> d;
  d.elements = elements;
  d.eta_r = static_cast<T>(radial[0]);
  d.cutoff_r = static_cast<T>(radial[1]);
  d.eta_a = static_cast<T>(angular[0]);
  d.zeta = static_cast<T>(angular[1]);
  d.cutoff_a = static_cast<T>(angular[2]);
  d.shifts_r.assign(shifts_r.begin(), shifts_r.end());
  d.shifts_a.assign(shifts_a.begin(), shifts_a.end());
  for (const double section : sections) {
    d.cos_sections.push_back(static_cast<T>(std::cos(section)));
    d.sin_sections.push_back(static_cast<T>(std::sin(section)));
  }
  return d;
}

/** An edge list, checked once; the edges of local atom i are [first[i], first[i + 1]). */
struct CentredEdges {
  at::Tensor species, other, vectors;
  std::vector<int64_t> first;
  int64_t n_local;

  CentredEdges(const at::Tensor &species_, const at::Tensor &edge_index, const at::Tensor &edge_vec, int64_t n_local_,
               int64_t elements) :
      species(species_.contiguous()), vectors(edge_vec.contiguous()), n_local(n_local_)
  {
    TORCH_CHECK(edge_index.dim() == 2 && edge_index.size(0) == 2, "aev: edge_index must have shape [2, edges]");
    TORCH_CHECK(vectors.dim() == 2 && vectors.size(0) == edge_index.size(1) && vectors.size(1) == 3,
                "aev: edge_vec must have shape [edges, 3]");
    const at::Tensor index = edge_index.contiguous();
    other = index.select(0, 1);
    TORCH_CHECK(n_local >= 0 && n_local <= species.numel(), "aev: ", n_local, " local atoms of ", species.numel());
    TORCH_CHECK(below(species, elements), "aev: species must be 0, ..., ", elements - 1);
    TORCH_CHECK(below(other, species.numel()), "aev: edges lead to atoms that there are not");
    const int64_t *centre = index.const_data_ptr<int64_t>(), count = index.size(1);
    first.assign(n_local + 1, count);
    int64_t next = 0;    // the first atom whose edges have not begun
    for (int64_t e = 0; e < count; ++e) {
      TORCH_CHECK(e == 0 || centre[e] >= centre[e - 1], "aev: edges must be grouped by ascending central atom");
      while (next <= n_local && next <= centre[e]) first[next++] = e;
      if (next > n_local) break;
    }
  }

 private:
  static bool below(const at::Tensor &numbers, int64_t end)
  {
    const int64_t *begin = numbers.const_data_ptr<int64_t>();
    return std::all_of(begin, begin + numbers.numel(), [end](int64_t number) { return number >= 0 && number < end; });
  }
};

}    // namespace rareal

#endif
