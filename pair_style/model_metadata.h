// The JSON that a model file carries, see rareal/export/modelfile.py; energies in eV, lengths in Angstrom.

#ifndef RAREAL_MODEL_METADATA_H
#define RAREAL_MODEL_METADATA_H

#include <optional>
#include <string>
#include <vector>

namespace rareal {

class Archive;

/** What a model that was compiled ahead of time can run on. */
struct CompiledFor {
  std::string device;          // cpu or cuda
  std::string torch;           // version
  std::string instructions;    // of the processor, as PyTorch names them
};

struct ModelMetadata {
  std::string architecture;
  std::vector<std::string> elements;
  std::vector<double> self_energies;
  double cutoff = 0.0;
  int layers = 0;    // message-passing layers; 0 and 1 need no neighbours of ghosts
  int members = 0;
  bool double_precision = false;
  std::optional<CompiledFor> compiled;    // AOTInductor packages only
};

/** Raises ModelError where the metadata are missing or not what this version understands. */
ModelMetadata read_metadata(const std::string &path, const Archive &archive);

}    // namespace rareal

#endif
