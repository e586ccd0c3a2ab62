#include "ensemble_model.h"

#include "nlohmann/json.hpp"    // the copy among LAMMPS's headers; PyTorch's wheel has none

#include <ATen/Parallel.h>
#include <caffe2/serialize/inline_container.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/script.h>

#include <algorithm>
#include <fstream>

using rareal::EnsembleModel;
using rareal::Evaluation;
using rareal::ModelError;
using rareal::ModelMetadata;
using json = nlohmann_lmp::json;

namespace {

constexpr int supported_format = 1;

std::string read_metadata_text(const std::string &path)
{
  if (!std::ifstream(path)) throw ModelError("Cannot open model file '" + path + "'");
  try {
    caffe2::serialize::PyTorchStreamReader reader(path);
    const std::string record = "extra/rareal.json";
    if (!reader.hasRecord(record))
      throw ModelError("Model file '" + path + "' carries no rareal metadata: write it with rareal's export");
    auto [data, size] = reader.getRecord(record);
    return std::string(static_cast<const char *>(data.get()), size);
  } catch (const c10::Error &) {
    throw ModelError("File '" + path + "' is no TorchScript file, or is damaged");
  }
}

void check_value(const std::string &path, const char *name, const std::string &found, const std::string &wanted)
{
  if (found != wanted)
    throw ModelError("Model file '" + path + "' has " + name + " '" + found + "', pair style mlensemble needs '" +
                     wanted + "'");
}

ModelMetadata parse_metadata(const std::string &path)
{
  const std::string text = read_metadata_text(path);
  try {
    const json data = json::parse(text);
    // The format comes first: of a newer file nothing else may be assumed.
    const int format = data.at("format").get<int>();
    if (format != supported_format)
      throw ModelError("Model file '" + path + "' has format " + std::to_string(format) +
                       ", this pair style mlensemble reads format " + std::to_string(supported_format) +
                       ": use the rareal version that wrote it (" + data.value("rareal_version", "unknown") + ")");
    check_value(path, "energy unit", data.at("units").at("energy").get<std::string>(), "eV");
    check_value(path, "length unit", data.at("units").at("length").get<std::string>(), "angstrom");
    const auto dtype = data.at("dtype").get<std::string>();
    if (dtype != "float64") check_value(path, "dtype", dtype, "float32");

    ModelMetadata metadata;
    metadata.architecture = data.at("architecture").get<std::string>();
    metadata.elements = data.at("elements").get<std::vector<std::string>>();
    metadata.self_energies = data.at("self_energies").get<std::vector<double>>();
    metadata.cutoff = data.at("cutoff").get<double>();
    metadata.layers = data.at("layers").get<int>();
    metadata.members = data.at("members").get<int>();
    metadata.double_precision = dtype == "float64";
    if (metadata.elements.empty() || metadata.self_energies.size() != metadata.elements.size())
      throw ModelError("Model file '" + path + "' has " + std::to_string(metadata.elements.size()) +
                       " elements and " + std::to_string(metadata.self_energies.size()) + " self-energies");
    if (metadata.members < 1 || metadata.layers < 0 || !(metadata.cutoff > 0.0))
      throw ModelError("Model file '" + path + "' has impossible metadata: members " +
                       std::to_string(metadata.members) + ", layers " + std::to_string(metadata.layers) +
                       ", cutoff " + std::to_string(metadata.cutoff));
    return metadata;
  } catch (const json::exception &error) {
    throw ModelError("Metadata of model file '" + path + "' cannot be read: " + error.what());
  }
}

torch::jit::Module load_script(const std::string &path)
{
  try {
    auto module = torch::jit::load(path, torch::kCPU);
    module.eval();
    // Models may differentiate with respect to edge vectors; nobody asks for derivatives of the weights here.
    for (auto parameter : module.parameters()) parameter.set_requires_grad(false);
    return module;
  } catch (const c10::Error &error) {
    throw ModelError("Cannot load model file '" + path + "': " + error.what_without_backtrace());
  }
}

}    // namespace

struct EnsembleModel::Script {
  explicit Script(torch::jit::Module module) : module(std::move(module)), forward(this->module.get_method("forward")) {}

  torch::jit::Module module;
  torch::jit::Method forward;
  std::vector<std::int64_t> edge_index;    // [2*P], kept between steps like the graph's own arrays
  torch::Tensor energies, gradients;       // results, kept alive for the caller
};

EnsembleModel::EnsembleModel(const std::string &path) : path_(path), metadata_(parse_metadata(path))
{
  auto module = load_script(path);
  if (!module.find_method("forward")) throw ModelError("Model file '" + path + "' has no method 'forward'");
  script_ = std::make_unique<Script>(std::move(module));
}

EnsembleModel::~EnsembleModel() = default;

void EnsembleModel::set_threads(int threads)
{
  at::set_num_threads(threads);
}

Evaluation EnsembleModel::evaluate(const AtomGraph &graph)
{
  const auto edges = static_cast<std::int64_t>(graph.n_edges());
  auto &index = script_->edge_index;
  index.assign(graph.centers.begin(), graph.centers.end());
  index.insert(index.end(), graph.neighbors.begin(), graph.neighbors.end());

  const auto dtype = metadata_.double_precision ? torch::kFloat64 : torch::kFloat32;
  const auto view = [](const auto &values, at::IntArrayRef shape, c10::ScalarType type) {
    return torch::from_blob(const_cast<void *>(static_cast<const void *>(values.data())), shape, type);
  };
  try {
    // Every step has other shapes: specialising the graph to them costs more than it gains.
    torch::jit::GraphOptimizerEnabledGuard interpret_as_written(false);
    const auto output = script_->forward(
        {view(graph.species, {static_cast<std::int64_t>(graph.n_nodes())}, torch::kInt64),
         view(index, {2, edges}, torch::kInt64), view(graph.vectors, {edges, 3}, torch::kFloat64).to(dtype),
         graph.n_local});
    const auto results = output.toTuple();
    script_->energies = results->elements().at(0).toTensor().detach().to(torch::kFloat64).contiguous();
    script_->gradients = results->elements().at(1).toTensor().detach().to(torch::kFloat64).contiguous();
  } catch (const c10::Error &error) {
    throw ModelError("Evaluation of model file '" + path_ + "' failed: " + error.what_without_backtrace());
  } catch (const std::exception &error) {    // what the script itself raises
    throw ModelError("Evaluation of model file '" + path_ + "' failed: " + error.what());
  }
  if (script_->energies.sizes() != at::IntArrayRef({metadata_.members, graph.n_local}) ||
      script_->gradients.sizes() != at::IntArrayRef({metadata_.members, edges, 3}))
    throw ModelError("Model file '" + path_ + "' returned arrays of other shapes than its metadata promise");
  return {script_->energies.const_data_ptr<double>(), script_->gradients.const_data_ptr<double>()};
}
