// LAMMPS's arrays -> the plain arrays of an AtomGraph. No PyTorch.

#ifndef RAREAL_LAMMPS_SYSTEM_H
#define RAREAL_LAMMPS_SYSTEM_H

#include "atom_graph.h"
#include "pointers.h"

#include <vector>

namespace LAMMPS_NS {
class NeighList;
}

namespace rareal {

/** Turns a full neighbour list into the graph that a model needs, and keeps the memory between steps. */
class LammpsSystem : protected LAMMPS_NS::Pointers {
 public:
  explicit LammpsSystem(LAMMPS_NS::LAMMPS *lmp) : Pointers(lmp) {}

  /** type_species [ntypes+1]: the model's element of every atom type, -1 for types it does not know. */
  void configure(double cutoff, int layers, std::vector<int> type_species);

  /** Locals of the list first, then the ghosts that up to `layers` messages can reach. */
  const AtomGraph &update(const LAMMPS_NS::NeighList &list);

  const AtomGraph &graph() const { return graph_; }
  double memory_usage() const;

 private:
  std::int64_t node_of(int atom);

  double cutoff_ = 0.0;
  int layers_ = 1;
  std::vector<int> type_species_;
  std::vector<std::int64_t> nodes_;    // [nlocal + nghost] node of each LAMMPS atom, -1 where it has none
  AtomGraph graph_;
};

}    // namespace rareal

#endif
