#include "ensemble_model.h"

#include "archive.h"
#include "devices.h"
#include "model_backend.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/DeviceGuard.h>

#include <algorithm>
#include <cmath>
#include <sstream>

using rareal::AtomGraph;
using rareal::EnsembleModel;
using rareal::Evaluation;
using rareal::ModelBackend;
using rareal::ModelError;
using rareal::ModelMetadata;

namespace {

/** The first line of what PyTorch says; the rest is of its inside. */
std::string reason(const std::exception &error)
{
  const auto *torch_error = dynamic_cast<const c10::Error *>(&error);
  std::istringstream text(torch_error ? torch_error->what_without_backtrace() : error.what());
  std::string line;
  while (line.empty() && std::getline(text, line)) {}
  return line;
}

/** A zigzag chain of all elements in turn, neighbours well within the cutoff. */
AtomGraph chain(const ModelMetadata &metadata)
{
  const auto elements = static_cast<std::int64_t>(metadata.elements.size());
  AtomGraph graph;
  graph.n_local = std::max<std::int64_t>(3, elements);
  const double along = 0.25 * metadata.cutoff, across = 0.15 * metadata.cutoff;
  for (std::int64_t i = 0; i < graph.n_local; ++i) {
    graph.species.push_back(i % elements);
    for (const std::int64_t j : {i - 1, i + 1}) {
      if (j < 0 || j == graph.n_local) continue;
      graph.centers.push_back(i);
      graph.neighbors.push_back(j);
      const double side = i % 2 ? -1.0 : 1.0;
      graph.vectors.insert(graph.vectors.end(), {(j - i) * along, side * across, 0.1 * side * across});
    }
  }
  return graph;
}

}    // namespace

struct EnsembleModel::State {
  c10::Device device{c10::kCPU};
  std::unique_ptr<ModelBackend> backend;
  std::vector<std::int64_t> edge_index;    // [2*P], kept between steps like the graph's own arrays
  at::Tensor energies, gradients;          // results, kept alive for the caller
};

EnsembleModel::EnsembleModel(const std::string &path, DeviceChoice choice, int rank_on_node) :
    path_(path), state_(std::make_unique<State>())
{
  const Archive archive(path);
  metadata_ = read_metadata(path, archive);
  // A package knows its device.
  if (choice == DeviceChoice::AUTO && metadata_.compiled && metadata_.compiled->device == "cpu")
    choice = DeviceChoice::CPU;
  state_->device = find_device(choice, rank_on_node);
  try {
    const c10::DeviceGuard guard(state_->device);
    state_->backend = archive.has_folder("data/aotinductor") ? load_package(path, metadata_, state_->device)
                                                             : load_script(path, state_->device);
  } catch (const ModelError &) {
    throw;
  } catch (const std::exception &error) {
    throw ModelError("Cannot load model file '" + path + "': " + reason(error));
  }
  try_out();
}

EnsembleModel::~EnsembleModel() = default;

void EnsembleModel::try_out()
{
  const AtomGraph graph = chain(metadata_);
  const auto result = evaluate(graph);
  const auto finite = [](const double *values, std::size_t count) {
    return std::all_of(values, values + count, [](double value) { return std::isfinite(value); });
  };
  if (!finite(result.energies, metadata_.members * graph.n_local) ||
      !finite(result.gradients, metadata_.members * graph.n_edges() * 3))
    throw ModelError("Model file '" + path_ + "' predicts energies or forces that are no numbers");
}

std::string EnsembleModel::description() const
{
  return std::string(metadata_.compiled ? "AOTInductor" : "TorchScript") + " on " + state_->device.str();
}

void EnsembleModel::set_threads(int threads) { at::set_num_threads(threads); }

Evaluation EnsembleModel::evaluate(const AtomGraph &graph)
{
  const auto edges = static_cast<std::int64_t>(graph.n_edges());
  auto &index = state_->edge_index;
  index.assign(graph.centers.begin(), graph.centers.end());
  index.insert(index.end(), graph.neighbors.begin(), graph.neighbors.end());

  const auto dtype = metadata_.double_precision ? at::kDouble : at::kFloat;
  const auto view = [](const auto &values, at::IntArrayRef shape, c10::ScalarType type) {
    return at::from_blob(const_cast<void *>(static_cast<const void *>(values.data())), shape, type);
  };
  const auto home = [](const at::Tensor &result) { return result.to(at::kCPU, at::kDouble).contiguous(); };
  try {
    const c10::DeviceGuard guard(state_->device);
    const auto [energies, gradients] = state_->backend->forward(
        view(graph.species, {static_cast<std::int64_t>(graph.n_nodes())}, at::kLong).to(state_->device),
        view(index, {2, edges}, at::kLong).to(state_->device),
        view(graph.vectors, {edges, 3}, at::kDouble).to(state_->device, dtype), graph.n_local);
    if (energies.scalar_type() != dtype || gradients.scalar_type() != dtype)
      throw ModelError(std::string("its metadata promise ") + (metadata_.double_precision ? "float64" : "float32") +
                       ", but it computes in another precision");
    state_->energies = home(energies);
    state_->gradients = home(gradients);
  } catch (const std::exception &error) {
    throw ModelError("Evaluation of model file '" + path_ + "' failed: " + reason(error));
  }
  if (state_->energies.sizes() != at::IntArrayRef({metadata_.members, graph.n_local}) ||
      state_->gradients.sizes() != at::IntArrayRef({metadata_.members, edges, 3}))
    throw ModelError("Model file '" + path_ + "' returned arrays of other shapes than its metadata promise");
  return {state_->energies.const_data_ptr<double>(), state_->gradients.const_data_ptr<double>()};
}
