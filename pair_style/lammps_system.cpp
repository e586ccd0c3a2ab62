#include "lammps_system.h"

#include "atom.h"
#include "neigh_list.h"

#include <algorithm>

using namespace LAMMPS_NS;
using rareal::AtomGraph;
using rareal::LammpsSystem;

void LammpsSystem::configure(double cutoff, int layers, std::vector<int> type_species)
{
  cutoff_ = cutoff;
  layers_ = std::max(1, layers);
  type_species_ = std::move(type_species);
}

// Ghosts get their nodes in the order in which edges reach them, that is, by their distance in messages.
std::int64_t LammpsSystem::node_of(int atom_index)
{
  auto &node = nodes_[atom_index];
  if (node < 0) {
    node = static_cast<std::int64_t>(graph_.species.size());
    graph_.species.push_back(type_species_[atom->type[atom_index]]);
    graph_.atoms.push_back(atom_index);
  }
  return node;
}

const AtomGraph &LammpsSystem::update(const NeighList &list)
{
  graph_.species.clear();
  graph_.atoms.clear();
  graph_.centers.clear();
  graph_.neighbors.clear();
  graph_.vectors.clear();
  nodes_.assign(atom->nlocal + atom->nghost, -1);

  for (int ii = 0; ii < list.inum; ++ii) node_of(list.ilist[ii]);
  graph_.n_local = list.inum;

  const double cutoff_sq = cutoff_ * cutoff_;
  double **x = atom->x;
  std::size_t center = 0, layer_end = graph_.n_nodes();
  for (int layer = 0; layer < layers_; ++layer, layer_end = graph_.n_nodes()) {
    for (; center < layer_end; ++center) {
      const int i = graph_.atoms[center];
      const int *neighbors = list.firstneigh[i];
      for (int jj = 0; jj < list.numneigh[i]; ++jj) {
        const int j = neighbors[jj] & NEIGHMASK;
        const double d[3] = {x[j][0] - x[i][0], x[j][1] - x[i][1], x[j][2] - x[i][2]};
        if (d[0] * d[0] + d[1] * d[1] + d[2] * d[2] >= cutoff_sq) continue;
        graph_.centers.push_back(static_cast<std::int64_t>(center));
        graph_.neighbors.push_back(node_of(j));
        graph_.vectors.insert(graph_.vectors.end(), d, d + 3);
      }
    }
  }
  return graph_;
}

double LammpsSystem::memory_usage() const
{
  return static_cast<double>(sizeof(std::int64_t)) *
      (nodes_.capacity() + graph_.species.capacity() + graph_.centers.capacity() + graph_.neighbors.capacity()) +
      static_cast<double>(sizeof(double) * graph_.vectors.capacity() + sizeof(int) * graph_.atoms.capacity());
}
