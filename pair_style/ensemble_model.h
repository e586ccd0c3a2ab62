// A committee of potentials in one model file: loads it, checks it, evaluates it. Knows nothing of LAMMPS.

#ifndef RAREAL_ENSEMBLE_MODEL_H
#define RAREAL_ENSEMBLE_MODEL_H

#include "atom_graph.h"
#include "model_error.h"
#include "model_metadata.h"
#include "resource_policy.h"

#include <memory>
#include <string>

namespace rareal {

/** What the committee says of a graph. Valid until the next evaluation. */
struct Evaluation {
  const double *energies = nullptr;     // [M, n_local] per-atom energies without self-energies
  const double *gradients = nullptr;    // [M, P, 3] dE_m / d(edge vector)
};

class EnsembleModel {
 public:
  /** Raises ModelError where the file is no committee that this version understands, or no such device is there.
   *
   * The committee is evaluated once here, on a few atoms of all its elements, so that a file whose weights are no
   * numbers, or which is not what its metadata promise, is refused before a run.
   */
  EnsembleModel(const std::string &path, DeviceChoice choice, int rank_on_node);
  ~EnsembleModel();

  const ModelMetadata &metadata() const { return metadata_; }
  Evaluation evaluate(const AtomGraph &graph);

  /** For the log: "TorchScript on cpu". */
  std::string description() const;

  /** PyTorch has threads of its own, whose number is one per process. */
  static void set_threads(int threads);

 private:
  struct State;
  void try_out();

  std::string path_;
  ModelMetadata metadata_;
  std::unique_ptr<State> state_;
};

}    // namespace rareal

#endif
