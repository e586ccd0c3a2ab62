#include "model_metadata.h"

#include "archive.h"
#include "model_error.h"
#include "nlohmann/json.hpp"    // the copy among LAMMPS's headers; PyTorch's wheel has none

#include <cmath>

using rareal::ModelError;
using rareal::ModelMetadata;
using json = nlohmann_lmp::json;

namespace {

constexpr int supported_format = 1;

void check_value(const std::string &path, const char *name, const std::string &found, const std::string &wanted)
{
  if (found != wanted)
    throw ModelError("Model file '" + path + "' has " + name + " '" + found + "', pair style mlensemble needs '" +
                     wanted + "'");
}

void check_sense(const std::string &path, const ModelMetadata &metadata)
{
  if (metadata.elements.empty() || metadata.self_energies.size() != metadata.elements.size())
    throw ModelError("Model file '" + path + "' has " + std::to_string(metadata.elements.size()) + " elements and " +
                     std::to_string(metadata.self_energies.size()) + " self-energies");
  for (std::size_t k = 0; k < metadata.elements.size(); ++k)
    if (!std::isfinite(metadata.self_energies[k]))
      throw ModelError("Model file '" + path + "' has a self-energy of " + metadata.elements[k] + " that is no number");
  if (metadata.members < 1 || metadata.layers < 0 || !(metadata.cutoff > 0.0) || !std::isfinite(metadata.cutoff))
    throw ModelError("Model file '" + path + "' has impossible metadata: members " + std::to_string(metadata.members) +
                     ", layers " + std::to_string(metadata.layers) + ", cutoff " + std::to_string(metadata.cutoff));
}

}    // namespace

ModelMetadata rareal::read_metadata(const std::string &path, const Archive &archive)
{
  const std::string record = "extra/rareal.json";
  if (!archive.has(record))
    throw ModelError("Model file '" + path + "' carries no rareal metadata: write it with rareal's export");
  try {
    const json data = json::parse(archive.text(record));
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
    if (data.contains("compiled") && !data.at("compiled").is_null()) {
      const auto &compiled = data.at("compiled");
      metadata.compiled = CompiledFor{compiled.at("device").get<std::string>(), compiled.at("torch").get<std::string>(),
                                      compiled.at("instructions").get<std::string>()};
    }
    check_sense(path, metadata);
    return metadata;
  } catch (const json::exception &error) {
    throw ModelError("Metadata of model file '" + path + "' cannot be read: " + error.what());
  }
}
