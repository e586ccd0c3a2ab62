// LAMMPS adapter, every step: communication and tallies. What is computed is the model's business.

#include "pair_mlensemble.h"

#include "committee_statistics.h"
#include "deviation_file.h"
#include "ensemble_model.h"
#include "halt.h"
#include "lammps_system.h"

#include "atom.h"
#include "comm.h"
#include "error.h"

#include <algorithm>

using namespace LAMMPS_NS;
using rareal::AtomGraph;
using rareal::Evaluation;

void PairMLEnsemble::compute(int eflag, int vflag)
{
  ev_init(eflag, vflag);
  const AtomGraph &graph = system_->update(*list);

  // A process without atoms has nothing to evaluate, but takes part in all communication.
  Evaluation result;
  if (graph.n_local > 0) {
    try {
      result = model_->evaluate(graph);
    } catch (const rareal::ModelError &failure) {
      error->one(FLERR, "{}", failure.what());
    }
  }
  atomic_ = result.energies;
  evaluated_ = true;

  // compute pair, the reader of the deviation, sees to it that energies are tallied whenever it is used.
  const bool reports = eflag_global || halt_ || writes_now();
  collect_energies(graph, result);
  if (!bias_weights_.empty()) weigh_members();
  collect_forces(graph, result);
  if (reports || vflag_global) collect_virials(graph);
  if (vflag_global)
    for (int k = 0; k < 6; ++k) virial[k] += driving(&virials_[k], 6);
  if (vflag_atom) tally_atomic_virial(graph, result);
  sum_over_ghosts(forces_.data(), 3 * members_);
  apply_forces(graph);
  if (reports) report(graph);
}

/** The value of the potential without bias: the mean of the members', or one member's. */
double PairMLEnsemble::mean(const double *members, std::size_t stride) const
{
  const int driver = settings_.driver;
  return driver ? members[(driver - 1) * stride] : rareal::spread(members, members_, stride).mean;
}

/** The value that drives the dynamics, with the bias. Only for what is linear in the members' forces. */
double PairMLEnsemble::driving(const double *members, std::size_t stride) const
{
  double value = mean(members, stride);
  for (std::size_t m = 0; m < bias_weights_.size(); ++m) value += bias_weights_[m] * members[m * stride];
  return value;
}

void PairMLEnsemble::collect_energies(const AtomGraph &graph, const Evaluation &result)
{
  energies_.assign(members_, 0.0);
  for (int m = 0; m < members_; ++m)
    for (std::int64_t n = 0; n < graph.n_local; ++n) energies_[m] += result.energies[m * graph.n_local + n];
  for (auto &energy : energies_) energy *= energy_scale_;

  if (!eflag_either) return;
  self_energy_ = 0.0;
  for (std::int64_t n = 0; n < graph.n_local; ++n) {
    const int i = graph.atoms[n];
    const double self_energy = energy_scale_ * self_energies_[atom->type[i]];
    self_energy_ += self_energy;
    if (eflag_atom) eatom[i] += energy_scale_ * mean(result.energies + n, graph.n_local) + self_energy;
  }
  if (eflag_global) eng_vdwl += mean(energies_.data(), 1) + self_energy_;
}

/** Bias E(v), v = s^2/(M - ddof) sum_m (E_m - mean)^2: its force is sum_m w_m F_m, w_m = E'(v) dv/dE_m.
 *
 * The mean's own derivative drops out of dv/dE_m, so members' energies and forces are all it takes.
 */
void PairMLEnsemble::weigh_members()
{
  totals_ = energies_;
  MPI_Allreduce(MPI_IN_PLACE, totals_.data(), members_, MPI_DOUBLE, MPI_SUM, world);
  const auto energy = rareal::spread(totals_.data(), members_);
  const double factor = std_factor_ * std_factor_, variance = factor * energy.variance;
  bias_energy_ = settings_.bias.energy(variance);
  const double slope = settings_.bias.slope(variance) * factor * 2.0 / members_;
  for (int m = 0; m < members_; ++m) bias_weights_[m] = slope * (totals_[m] - energy.mean);
}

void PairMLEnsemble::collect_forces(const AtomGraph &graph, const Evaluation &result)
{
  const std::size_t width = 3 * static_cast<std::size_t>(members_), edges = graph.n_edges();
  forces_.assign(static_cast<std::size_t>(atom->nlocal + atom->nghost) * width, 0.0);
  for (std::size_t p = 0; p < edges; ++p) {
    double *fi = &forces_[graph.atoms[graph.centers[p]] * width];
    double *fj = &forces_[graph.atoms[graph.neighbors[p]] * width];
    const double *g = result.gradients + 3 * p;
    for (int m = 0; m < members_; ++m, fi += 3, fj += 3, g += 3 * edges) {
      for (int a = 0; a < 3; ++a) {
        const double force = energy_scale_ * g[a];
        fi[a] += force;
        fj[a] -= force;
      }
    }
  }
}

/** Every member's virial, from the forces before ghosts give theirs away: sum over nodes of r_a f_b. */
void PairMLEnsemble::collect_virials(const AtomGraph &graph)
{
  virials_.assign(6 * members_, 0.0);
  for (const int i : graph.atoms) {
    const double *r = atom->x[i];
    const double *f = member_forces(i);
    for (int m = 0; m < members_; ++m, f += 3) {
      const double w[6] = {r[0] * f[0], r[1] * f[1], r[2] * f[2], r[0] * f[1], r[0] * f[2], r[1] * f[2]};
      for (int k = 0; k < 6; ++k) virials_[6 * m + k] += w[k];
    }
  }
}

/** W_ab = -sum over edges of r_a dE/dr_b; an edge belongs to its central atom. */
void PairMLEnsemble::tally_atomic_virial(const AtomGraph &graph, const Evaluation &result)
{
  // In message-passing models ghosts are centres of edges, too. Their share is brought home here, because LAMMPS does
  // so with newton on only.
  const bool ghost_centers = model_->metadata().layers > 1;
  const auto clear_ghosts = [this] {
    if (atom->nghost) std::fill_n(vatom[atom->nlocal], 6 * atom->nghost, 0.0);
  };
  if (ghost_centers) clear_ghosts();

  const std::size_t edges = graph.n_edges();
  for (std::size_t p = 0; p < edges; ++p) {
    const double *r = &graph.vectors[3 * p];
    double g[3];
    for (int a = 0; a < 3; ++a) g[a] = -energy_scale_ * driving(result.gradients + 3 * p + a, 3 * edges);
    const double w[6] = {r[0] * g[0], r[1] * g[1], r[2] * g[2], r[0] * g[1], r[0] * g[2], r[1] * g[2]};
    for (int k = 0; k < 6; ++k) vatom[graph.atoms[graph.centers[p]]][k] += w[k];
  }
  if (!ghost_centers) return;
  sum_over_ghosts(atom->nmax ? vatom[0] : nullptr, 6);
  clear_ghosts();
}

/** Adds what ghosts collected to the atoms that they are images of. */
void PairMLEnsemble::sum_over_ghosts(double *data, int stride)
{
  for (int first = 0; first < stride; first += comm_width) {
    columns_ = {data, stride, first, std::min(comm_width, stride - first)};
    comm->reverse_comm(this, columns_.width);
  }
}

int PairMLEnsemble::pack_reverse_comm(int n, int first, double *buf)
{
  const double *row = columns_.data + static_cast<std::size_t>(first) * columns_.stride + columns_.first;
  for (int i = 0; i < n; ++i, row += columns_.stride) buf = std::copy_n(row, columns_.width, buf);
  return n * columns_.width;
}

void PairMLEnsemble::unpack_reverse_comm(int n, int *atoms, double *buf)
{
  for (int i = 0; i < n; ++i) {
    double *row = columns_.data + static_cast<std::size_t>(atoms[i]) * columns_.stride + columns_.first;
    for (int k = 0; k < columns_.width; ++k) row[k] += *buf++;
  }
}

void PairMLEnsemble::apply_forces(const AtomGraph &graph)
{
  for (std::int64_t n = 0; n < graph.n_local; ++n) {
    const int i = graph.atoms[n];
    for (int a = 0; a < 3; ++a) atom->f[i][a] += driving(member_forces(i) + a, 3);
  }
}

double PairMLEnsemble::memory_usage()
{
  return Pair::memory_usage() + system_->memory_usage() + static_cast<double>(sizeof(double) * forces_.capacity());
}
