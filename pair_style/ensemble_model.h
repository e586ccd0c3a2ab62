// A committee of potentials in one model file: loads it, checks its metadata, evaluates it. Knows nothing of LAMMPS.

#ifndef RAREAL_ENSEMBLE_MODEL_H
#define RAREAL_ENSEMBLE_MODEL_H

#include "atom_graph.h"

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace rareal {

/** A model file that cannot be used, or a model that fails; the message names the file. */
class ModelError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

/** The JSON that a model file carries; energies in eV, lengths in Angstrom. */
struct ModelMetadata {
  std::string architecture;
  std::vector<std::string> elements;
  std::vector<double> self_energies;
  double cutoff = 0.0;
  int layers = 0;    // message-passing layers; 0 and 1 need no neighbours of ghosts
  int members = 0;
  bool double_precision = false;
};

/** What the committee says of a graph. Valid until the next evaluation. */
struct Evaluation {
  const double *energies = nullptr;     // [M, n_local] per-atom energies without self-energies
  const double *gradients = nullptr;    // [M, P, 3] dE_m / d(edge vector)
};

class EnsembleModel {
 public:
  /** Raises ModelError where the file is no committee that this version understands. */
  explicit EnsembleModel(const std::string &path);
  ~EnsembleModel();

  const ModelMetadata &metadata() const { return metadata_; }
  Evaluation evaluate(const AtomGraph &graph);

  /** PyTorch has threads of its own, whose number is one per process. */
  static void set_threads(int threads);

 private:
  struct Script;
  std::string path_;
  ModelMetadata metadata_;
  std::unique_ptr<Script> script_;
};

}    // namespace rareal

#endif
