// What a model sees of a configuration: plain arrays, neither LAMMPS nor PyTorch.

#ifndef RAREAL_ATOM_GRAPH_H
#define RAREAL_ATOM_GRAPH_H

#include <cstddef>
#include <cstdint>
#include <vector>

namespace rareal {

/** Atoms as nodes, neighbours within the cutoff as directed edges grouped by ascending central node.
 *
 * The first n_local nodes are the atoms whose energies this process owns; ghost atoms follow as they are met.
 */
struct AtomGraph {
  std::int64_t n_local = 0;
  std::vector<std::int64_t> species;      // [N] index into the model's elements
  std::vector<std::int64_t> centers;      // [P] node i
  std::vector<std::int64_t> neighbors;    // [P] node j
  std::vector<double> vectors;            // [P*3] r_j - r_i in Angstrom
  std::vector<int> atoms;                 // [N] the caller's index of each node

  std::size_t n_nodes() const { return species.size(); }
  std::size_t n_edges() const { return centers.size(); }
};

}    // namespace rareal

#endif
