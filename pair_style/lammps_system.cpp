#include "lammps_system.h"

#include "atom.h"
#include "neigh_list.h"
#include "neighbor.h"

#include <algorithm>

using namespace LAMMPS_NS;
using rareal::AtomGraph;
using rareal::LammpsSystem;

void LammpsSystem::configure(double cutoff, int layers, std::vector<int> type_species)
{
  cutoff_ = cutoff;
  layers_ = std::max(1, layers);
  type_species_ = std::move(type_species);
  forget();
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
  if (layers_ > 1) {
    follow_messages(list);
    return graph_;
  }
  const Build build{&list, neighbor->ncalls, list.inum, atom->nlocal, atom->nghost};
  if (neighbor->ago == 0 || build != built_) {
    find_candidates(list);
    built_ = build;
  }
  read_species();
  measure_candidates();
  return graph_;
}

void LammpsSystem::number_locals(const NeighList &list)
{
  graph_.species.clear();
  graph_.atoms.clear();
  nodes_.assign(atom->nlocal + atom->nghost, -1);
  for (int ii = 0; ii < list.inum; ++ii) node_of(list.ilist[ii]);
  graph_.n_local = list.inum;
}

void LammpsSystem::find_candidates(const NeighList &list)
{
  number_locals(list);
  candidates_.clear();
  starts_.assign(1, 0);
  for (int ii = 0; ii < list.inum; ++ii) {
    const int i = list.ilist[ii];
    for (int jj = 0; jj < list.numneigh[i]; ++jj) candidates_.push_back(node_of(list.firstneigh[i][jj] & NEIGHMASK));
    starts_.push_back(candidates_.size());
  }
}

// Fixes and programs that drive LAMMPS may change types where no list is rebuilt.
void LammpsSystem::read_species()
{
  for (std::size_t n = 0; n < graph_.n_nodes(); ++n) graph_.species[n] = type_species_[atom->type[graph_.atoms[n]]];
}

void LammpsSystem::measure_candidates()
{
  // Room for all, then what there is: an edge is written first and kept if it is short enough, without a branch.
  const std::size_t most = candidates_.size() + 1;
  graph_.centers.resize(most);
  graph_.neighbors.resize(most);
  graph_.vectors.resize(3 * most);
  std::int64_t *centers = graph_.centers.data(), *neighbors = graph_.neighbors.data();
  double *vector = graph_.vectors.data();

  const double cutoff_sq = cutoff_ * cutoff_;
  const double *const *x = atom->x;
  std::size_t edges = 0;
  for (std::int64_t center = 0; center < graph_.n_local; ++center) {
    const double *xi = x[graph_.atoms[center]];
    for (std::size_t k = starts_[center]; k < starts_[center + 1]; ++k) {
      const double *xj = x[graph_.atoms[candidates_[k]]];
      const double d[3] = {xj[0] - xi[0], xj[1] - xi[1], xj[2] - xi[2]};
      centers[edges] = center;
      neighbors[edges] = candidates_[k];
      for (int a = 0; a < 3; ++a) vector[3 * edges + a] = d[a];
      // what is no number is an edge, too, so that it will be noticed
      edges += !(d[0] * d[0] + d[1] * d[1] + d[2] * d[2] >= cutoff_sq);
    }
  }
  graph_.centers.resize(edges);
  graph_.neighbors.resize(edges);
  graph_.vectors.resize(3 * edges);
}

void LammpsSystem::follow_messages(const NeighList &list)
{
  graph_.centers.clear();
  graph_.neighbors.clear();
  graph_.vectors.clear();
  number_locals(list);

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
}

double LammpsSystem::memory_usage() const
{
  return static_cast<double>(sizeof(std::int64_t)) *
      (nodes_.capacity() + starts_.capacity() + candidates_.capacity() + graph_.species.capacity() +
       graph_.centers.capacity() + graph_.neighbors.capacity()) +
      static_cast<double>(sizeof(double) * graph_.vectors.capacity() + sizeof(int) * graph_.atoms.capacity());
}
