// A committee of ANI models in one operator: descriptors, networks of all members, gradients by the edge vectors.
//
// Local atoms are taken in blocks of one element, so that everything that is made for a block stays in the cache and
// the memory needed does not grow with the system: descriptors are evaluated once, with what their derivatives need.
//
// CPU only; elsewhere the model file's script calls aev, the networks' products, and aev_vjp one after another.

#include "committee_network.h"
#include "descriptor.h"

#include <torch/library.h>
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <tuple>

namespace {

using at::Tensor;
using rareal::CentredEdges;
using rareal::CommitteeNetwork;
using rareal::Environment;
using rareal::panel_width;
using rareal::panelled;
using Numbers = std::vector<double>;

constexpr int64_t block_rows = 56;    // four times the rows of a tile, see committee_network.cpp

/** [M, in, out] -> [M, panels, in, 32], zeros in columns that there are not. */
Tensor in_panels(const Tensor &weight)
{
  const int64_t columns = weight.size(2), width = panelled(columns);
  const Tensor filled = at::constant_pad_nd(weight, {0, width - columns});
  return filled.view({weight.size(0), weight.size(1), width / panel_width, panel_width}).transpose(1, 2).contiguous();
}

/** Weights [M, in, out] and biases [M, 1, out] of each layer -> weights, transposes and biases of each hidden layer,
 * then weights [M, panelled(in)] and biases [M] of the output. */
std::vector<Tensor> ani_pack(const std::vector<Tensor> &weights, const std::vector<Tensor> &biases)
{
  TORCH_CHECK(weights.size() == biases.size() && weights.size() > 1 && weights.back().size(2) == 1,
              "ani_pack: weights and biases of at least one hidden layer and of one output");
  std::vector<Tensor> packed;
  for (std::size_t k = 0; k + 1 < weights.size(); ++k) {
    const int64_t columns = weights[k].size(2);
    packed.push_back(in_panels(weights[k].detach()));
    packed.push_back(in_panels(weights[k].detach().transpose(1, 2).contiguous()));
    packed.push_back(at::constant_pad_nd(biases[k].detach().squeeze(1), {0, panelled(columns) - columns}).contiguous());
  }
  const Tensor output = weights.back().detach().squeeze(2);
  packed.push_back(at::constant_pad_nd(output, {0, panelled(output.size(1)) - output.size(1)}).contiguous());
  packed.push_back(biases.back().detach().reshape({-1}).contiguous());
  return packed;
}

template <typename T>
CommitteeNetwork<T> make_network(const std::vector<Tensor> &packed, int64_t first, int64_t last, int64_t inputs)
{
  TORCH_CHECK(last - first >= 5 && (last - first) % 3 == 2 && last <= static_cast<int64_t>(packed.size()),
              "ani: networks as ani_pack makes them");
  for (int64_t k = first; k < last; ++k)
    TORCH_CHECK(packed[k].dim() > 0 && packed[k].size(0) == packed[0].size(0) && packed[k].is_contiguous(),
                "ani: all layers must have the same members, and be contiguous");
  CommitteeNetwork<T> network;
  for (int64_t k = first; k + 2 < last; k += 3) {
    const Tensor &weights = packed[k], &transposed = packed[k + 1], &biases = packed[k + 2];
    TORCH_CHECK(weights.dim() == 4 && transposed.dim() == 4 && biases.dim() == 2 && weights.size(3) == panel_width &&
                    transposed.size(3) == panel_width && weights.size(2) == inputs &&
                    transposed.size(1) * panel_width == panelled(inputs) &&
                    weights.size(1) * panel_width == panelled(transposed.size(2)) &&
                    biases.size(1) == panelled(transposed.size(2)),
                "ani: sizes of the networks' layers do not match");
    inputs = transposed.size(2);
    network.hidden.push_back({weights.size(2), inputs, weights.const_data_ptr<T>(), transposed.const_data_ptr<T>(),
                              biases.const_data_ptr<T>()});
  }
  TORCH_CHECK(packed[last - 2].dim() == 2 && packed[last - 2].size(1) == panelled(inputs),
              "ani: sizes of the networks' outputs do not match");
  network.members = packed[first].size(0);
  network.output_weights = packed[last - 2].const_data_ptr<T>();
  network.output_biases = packed[last - 1].const_data_ptr<T>();
  return network;
}

// Double precision is left to PyTorch's error function.
void gelu_with_slope(double *values, double *slopes, int64_t count)
{
  Tensor z = at::from_blob(values, {count}, at::kDouble), slope = at::from_blob(slopes, {count}, at::kDouble);
  at::mul_out(slope, z, at::scalar_tensor(std::sqrt(0.5), at::kDouble));
  slope.erf_().add_(1.0).mul_(0.5);
  constexpr double normalisation = 0.39894228040143267794;
  const Tensor density = (z * z).mul_(-0.5).exp_().mul_(normalisation).mul_(z);
  z.mul_(slope);
  slope.add_(density);
}

rareal::Activation<float> activation(float) { return &rareal::gelu_with_slope; }
rareal::Activation<double> activation(double) { return &gelu_with_slope; }

/** Rows of one block of atoms and what is kept between steps. */
template <typename T> struct Workspace {
  std::vector<Environment<T>> environments;
  rareal::simd::Rows<T> descriptors;
  rareal::NetworkEvaluation<T> networks;
};

template <typename T> struct Evaluation {
  const CentredEdges &edges;
  const rareal::Descriptor<T> &descriptor;
  T *energies, *gradients;    // [M, n_local], [M, edges, 3]

  void block(const CommitteeNetwork<T> &network, const int64_t *atoms, int64_t rows) const
  {
    thread_local Workspace<T> work;
    if (static_cast<int64_t>(work.environments.size()) < rows) work.environments.resize(rows);
    work.descriptors.shape(rows, panelled(descriptor.dimension()));
    const int64_t stride = work.descriptors.stride();
    std::fill_n(work.descriptors[0], rows * stride, T(0));
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t i = atoms[r];
      work.environments[r].read(descriptor, edges.species.const_data_ptr<int64_t>(),
                                edges.other.const_data_ptr<int64_t>(), edges.vectors.const_data_ptr<T>(),
                                edges.first[i], edges.first[i + 1]);
      work.environments[r].add_values(work.descriptors[r]);
    }
    work.networks.evaluate(network, activation(T()), work.descriptors[0], stride, rows);
    for (int64_t m = 0; m < network.members; ++m)
      for (int64_t r = 0; r < rows; ++r) energies[m * edges.n_local + atoms[r]] = work.networks.energies(m)[r];
    for (int64_t r = 0; r < rows; ++r)
      work.environments[r].add_gradients(work.networks.gradients() + r * stride, rows * stride, network.members,
                                         gradients, 3 * edges.vectors.size(0));
  }
};

template <typename T>
void evaluate(const CentredEdges &edges, const rareal::Descriptor<T> &descriptor, const std::vector<Tensor> &packed,
              const std::vector<int64_t> &counts, Tensor &energies, Tensor &gradients)
{
  const Evaluation<T> evaluation{edges, descriptor, energies.mutable_data_ptr<T>(), gradients.mutable_data_ptr<T>()};
  const int64_t *species = edges.species.const_data_ptr<int64_t>();
  std::vector<int64_t> atoms;
  int64_t first = 0;
  for (int64_t element = 0; element < descriptor.elements; first += counts[element++]) {
    atoms.clear();
    for (int64_t i = 0; i < edges.n_local; ++i)
      if (species[i] == element) atoms.push_back(i);
    if (atoms.empty()) continue;
    const auto network = make_network<T>(packed, first, first + counts[element], descriptor.dimension());
    const auto total = static_cast<int64_t>(atoms.size());
    const int64_t most = std::min(block_rows, (total + at::get_num_threads() - 1) / at::get_num_threads());
    const int64_t blocks = (total + most - 1) / most;
    at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        const int64_t start = total * b / blocks;
        evaluation.block(network, atoms.data() + start, total * (b + 1) / blocks - start);
      }
    });
  }
}

/** Energies [M, n_local] and gradients [M, edges, 3]; `networks` of all elements from ani_pack, `counts` of each. */
std::tuple<Tensor, Tensor> ani(const Tensor &species, const Tensor &edge_index, const Tensor &edge_vec, int64_t n_local,
                               int64_t elements, Numbers radial, Numbers shifts_r, Numbers angular, Numbers shifts_a,
                               Numbers sections, std::vector<Tensor> networks, std::vector<int64_t> counts)
{
  TORCH_CHECK(static_cast<int64_t>(counts.size()) == elements && elements > 0, "ani: one network per element");
  for (const Tensor &tensor : networks)
    TORCH_CHECK(tensor.scalar_type() == edge_vec.scalar_type(), "ani: networks and edge vectors differ in precision");
  const CentredEdges edges(species, edge_index, edge_vec, n_local, elements);
  const int64_t members = networks.at(0).size(0);
  Tensor energies = at::zeros({members, n_local}, edge_vec.options());
  Tensor gradients = at::zeros({members, edge_vec.size(0), 3}, edge_vec.options());
  AT_DISPATCH_FLOATING_TYPES(edge_vec.scalar_type(), "ani", [&] {
    const auto descriptor = rareal::make_descriptor<scalar_t>(elements, radial, shifts_r, angular, shifts_a, sections);
    evaluate<scalar_t>(edges, descriptor, networks, counts, energies, gradients);
  });
  return {energies, gradients};
}

}    // namespace

TORCH_LIBRARY_FRAGMENT(rareal, library)
{
  library.def("ani_pack(Tensor[] weights, Tensor[] biases) -> Tensor[]");
  library.def("ani(Tensor species, Tensor edge_index, Tensor edge_vec, " RAREAL_AEV_PARAMETERS
              ", Tensor[] networks, int[] counts) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(rareal, CPU, library)
{
  library.impl("ani_pack", &ani_pack);
  library.impl("ani", &ani);
}
