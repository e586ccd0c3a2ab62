// LAMMPS's arrays -> the plain arrays of an AtomGraph. No PyTorch.

#ifndef RAREAL_LAMMPS_SYSTEM_H
#define RAREAL_LAMMPS_SYSTEM_H

#include "atom_graph.h"
#include "pointers.h"

#include <cstddef>
#include <vector>

namespace LAMMPS_NS {
class NeighList;
}

namespace rareal {

/** Turns a full neighbour list into the graph that a model needs.
 *
 * Which atoms can be neighbours changes when LAMMPS rebuilds its list, so nodes and candidates for edges are kept until
 * then; every step only measures distances. With messages the nodes themselves depend on the distances.
 */
class LammpsSystem : protected LAMMPS_NS::Pointers {
 public:
  explicit LammpsSystem(LAMMPS_NS::LAMMPS *lmp) : Pointers(lmp) {}

  /** type_species [ntypes+1]: the model's element of every atom type, -1 for types it does not know. */
  void configure(double cutoff, int layers, std::vector<int> type_species);

  /** Begin anew: atoms may have changed without a rebuild that this object has seen. To be called before every run. */
  void forget() { built_ = {}; }

  /** Locals of the list first, then the ghosts that up to `layers` messages can reach. */
  const AtomGraph &update(const LAMMPS_NS::NeighList &list);

  const AtomGraph &graph() const { return graph_; }
  double memory_usage() const;

 private:
  // The state of LAMMPS that the candidates were taken from.
  struct Build {
    const LAMMPS_NS::NeighList *list = nullptr;
    LAMMPS_NS::bigint number = -1;
    int inum = 0, nlocal = 0, nghost = 0;
    bool operator==(const Build &) const = default;
  };

  std::int64_t node_of(int atom);
  void number_locals(const LAMMPS_NS::NeighList &list);
  void find_candidates(const LAMMPS_NS::NeighList &list);
  void read_species();
  void measure_candidates();
  void follow_messages(const LAMMPS_NS::NeighList &list);

  double cutoff_ = 0.0;
  int layers_ = 1;
  std::vector<int> type_species_;
  std::vector<std::int64_t> nodes_;    // [nlocal + nghost] node of each LAMMPS atom, -1 where it has none
  Build built_;
  std::vector<std::size_t> starts_;         // [n_local + 1] where the candidates of each centre begin
  std::vector<std::int64_t> candidates_;    // node of each candidate
  AtomGraph graph_;
};

}    // namespace rareal

#endif
