// Models that AOTInductor has compiled ahead of time (.pt2).

#include "model_backend.h"
#include "model_error.h"

#include <ATen/ATen.h>
#include <ATen/Version.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/version.h>

#include <algorithm>
#include <array>

using rareal::ModelBackend;
using rareal::ModelError;
using rareal::ModelMetadata;

namespace {

// Compiled code may take every size to be at least this: PyTorch treats arrays of one row, or none, as special.
constexpr std::int64_t fewest = 2;

class PackageBackend : public ModelBackend {
 public:
  PackageBackend(const std::string &path, double cutoff, c10::Device device) :
      loader_(path, "model", false, 1, device.has_index() ? device.index() : -1), outside_(2.0 * cutoff)
  {
  }

  std::pair<at::Tensor, at::Tensor> forward(const at::Tensor &species, const at::Tensor &edges,
                                            const at::Tensor &vectors, std::int64_t n_local) override
  {
    const auto n_edges = vectors.size(0);
    if (n_local >= fewest && n_edges >= fewest) return run(species, edges, vectors, n_local);

    // Atoms that nobody sees, after the local ones, and edges that are too long to count, after all others.
    const auto atoms = std::max<std::int64_t>(0, fewest - n_local);
    const auto more = std::max<std::int64_t>(0, fewest - n_edges);
    const auto nodes =
        at::cat({species.slice(0, 0, n_local), at::zeros({atoms}, species.options()), species.slice(0, n_local)});
    const auto last =
        at::stack({at::full({more}, nodes.size(0) - 1, edges.options()), at::zeros({more}, edges.options())});
    const auto index = at::cat({edges + (edges >= n_local).to(edges.dtype()) * atoms, last}, 1);
    const auto far = at::cat({vectors, at::full({more, 3}, outside_, vectors.options())});
    const auto [energies, gradients] = run(nodes, index, far, n_local + atoms);
    return {energies.slice(1, 0, n_local), gradients.slice(1, 0, n_edges)};
  }

 private:
  torch::inductor::AOTIModelPackageLoader loader_;
  double outside_;    // Angstrom

  // Only the length of the last argument counts: the program takes arrays and no numbers.
  std::pair<at::Tensor, at::Tensor> run(const at::Tensor &species, const at::Tensor &edges, const at::Tensor &vectors,
                                        std::int64_t n_local)
  {
    const auto results = loader_.run({species, edges, vectors, at::zeros({n_local}, species.options())});
    if (results.size() != 2) throw ModelError("the package returns " + std::to_string(results.size()) + " arrays");
    return {results[0], results[1]};
  }
};

/** Whether this processor has the instructions that a package was compiled for; each set has all before it. */
bool runs(const std::string &instructions, const std::string &here)
{
  const std::array<std::string, 3> known{"DEFAULT", "AVX2", "AVX512"};
  const auto place = [&known](const std::string &name) { return std::find(known.begin(), known.end(), name); };
  return instructions == here || (place(here) != known.end() && place(instructions) <= place(here));
}

}    // namespace

std::unique_ptr<ModelBackend> rareal::load_package(const std::string &path, const ModelMetadata &metadata,
                                                   c10::Device device)
{
  const std::string name = "Model file '" + path + "' was compiled for ";
  if (!metadata.compiled)
    throw ModelError("Model file '" + path +
                     "' is an AOTInductor package, but its metadata do not say what it was "
                     "compiled for");
  const auto &compiled = *metadata.compiled;
  if (compiled.torch != TORCH_VERSION)
    throw ModelError(name + "PyTorch " + compiled.torch + ", this pair style uses " + TORCH_VERSION +
                     ": compile it again with 'rareal export'");
  const std::string wanted = device.is_cuda() ? "cuda" : "cpu";
  if (compiled.device != wanted)
    throw ModelError(name + "device " + compiled.device + ", but pair_style mlensemble uses device " + wanted);
  const std::string here = at::get_cpu_capability();
  if (!device.is_cuda() && !runs(compiled.instructions, here))
    throw ModelError(name + "processors with " + compiled.instructions + ", this one has " + here +
                     ": compile it again with 'rareal export' here");
  return std::make_unique<PackageBackend>(path, metadata.cutoff, device);
}
