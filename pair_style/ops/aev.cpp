// ANI's descriptor from an edge list, and its derivatives, as PyTorch operators; see environment.h.
//
// Edges are grouped by ascending central atom, both directions present. Two derivatives are offered:
//   aev_vjp       contracts d(AEV)/d(edge vector) with the cotangents of all committee members in one pass;
//   aev_jacobian  returns it whole, for training, where a frame is visited hundreds of times.

#include "descriptor.h"

#include <torch/library.h>
#include <ATen/ATen.h>

namespace {

using at::Tensor;
using rareal::CentredEdges;
using rareal::Environment;
using Numbers = std::vector<double>;

/** Calls body(environment, centre) for every local atom that has edges. */
template <typename T, typename Visit>
void each(const CentredEdges &edges, const rareal::Descriptor<T> &descriptor, Visit &&body)
{
  Environment<T> environment;
  for (int64_t i = 0; i < edges.n_local; ++i) {
    if (edges.first[i] == edges.first[i + 1]) continue;
    environment.read(descriptor, edges.species.const_data_ptr<int64_t>(), edges.other.const_data_ptr<int64_t>(),
                     edges.vectors.const_data_ptr<T>(), edges.first[i], edges.first[i + 1]);
    body(environment, i);
  }
}

Tensor aev(const Tensor &species, const Tensor &edge_index, const Tensor &edge_vec, int64_t n_local, int64_t elements,
           Numbers radial, Numbers shifts_r, Numbers angular, Numbers shifts_a, Numbers sections)
{
  const CentredEdges edges(species, edge_index, edge_vec, n_local, elements);
  Tensor out;
  AT_DISPATCH_FLOATING_TYPES(edge_vec.scalar_type(), "aev", [&] {
    const auto descriptor = rareal::make_descriptor<scalar_t>(elements, radial, shifts_r, angular, shifts_a, sections);
    out = at::zeros({n_local, descriptor.dimension()}, edge_vec.options());
    scalar_t *data = out.data_ptr<scalar_t>();
    each(edges, descriptor, [&](auto &centre, int64_t i) { centre.add_values(data + i * descriptor.dimension()); });
  });
  return out;
}

Tensor aev_vjp(const Tensor &cotangents, const Tensor &species, const Tensor &edge_index, const Tensor &edge_vec,
               int64_t n_local, int64_t elements, Numbers radial, Numbers shifts_r, Numbers angular, Numbers shifts_a,
               Numbers sections)
{
  const CentredEdges edges(species, edge_index, edge_vec, n_local, elements);
  const Tensor w = cotangents.contiguous();
  const int64_t members = w.size(0);
  Tensor out = at::zeros({members, edge_vec.size(0), 3}, edge_vec.options());
  AT_DISPATCH_FLOATING_TYPES(edge_vec.scalar_type(), "aev_vjp", [&] {
    const auto descriptor = rareal::make_descriptor<scalar_t>(elements, radial, shifts_r, angular, shifts_a, sections);
    const int64_t dimension = descriptor.dimension();
    TORCH_CHECK(w.dim() == 3 && w.size(1) == n_local && w.size(2) == dimension,
                "aev_vjp: cotangents must have shape [members, local atoms, ", dimension, "]");
    const scalar_t *rows = w.data_ptr<scalar_t>();
    scalar_t *data = out.data_ptr<scalar_t>();
    each(edges, descriptor, [&](auto &centre, int64_t i) {
      centre.add_gradients(rows + i * dimension, n_local * dimension, members, data, 3 * edge_vec.size(0));
    });
  });
  return out;
}

Tensor aev_jacobian(const Tensor &species, const Tensor &edge_index, const Tensor &edge_vec, int64_t n_local,
                    int64_t elements, Numbers radial, Numbers shifts_r, Numbers angular, Numbers shifts_a,
                    Numbers sections)
{
  const CentredEdges edges(species, edge_index, edge_vec, n_local, elements);
  Tensor out;
  AT_DISPATCH_FLOATING_TYPES(edge_vec.scalar_type(), "aev_jacobian", [&] {
    const auto descriptor = rareal::make_descriptor<scalar_t>(elements, radial, shifts_r, angular, shifts_a, sections);
    out = at::zeros({edge_vec.size(0), descriptor.dimension(), 3}, edge_vec.options());
    scalar_t *data = out.data_ptr<scalar_t>();
    each(edges, descriptor, [&](auto &centre, int64_t) { centre.add_jacobian(data); });
  });
  return out;
}

}    // namespace

TORCH_LIBRARY(rareal, library)
{
  library.def("aev(Tensor species, Tensor edge_index, Tensor edge_vec, " RAREAL_AEV_PARAMETERS ") -> Tensor");
  library.def("aev_vjp(Tensor cotangents, Tensor species, Tensor edge_index, Tensor edge_vec, " RAREAL_AEV_PARAMETERS
              ") -> Tensor");
  library.def("aev_jacobian(Tensor species, Tensor edge_index, Tensor edge_vec, " RAREAL_AEV_PARAMETERS ") -> Tensor");
}

// For other devices see portable.cpp.
TORCH_LIBRARY_IMPL(rareal, CPU, library)
{
  library.impl("aev", &aev);
  library.impl("aev_vjp", &aev_vjp);
  library.impl("aev_jacobian", &aev_jacobian);
}
