// LAMMPS adapter, reports: how far the members are apart, for compute pair, fix pair, the file and the halt.

#include "pair_mlensemble.h"

#include "committee_statistics.h"
#include "deviation_file.h"
#include "ensemble_model.h"
#include "gather.h"
#include "halt.h"
#include "lammps_system.h"

#include "atom.h"
#include "comm.h"
#include "update.h"

#include <algorithm>
#include <cmath>
#include <cstring>

using namespace LAMMPS_NS;
using rareal::AtomGraph;
using rareal::Deviation;

namespace {

enum Extra { ENERGY_STD, FORCE_STD_MAX, FORCE_STD_MEAN, FORCE_STD_MIN, WORST_ATOM, VIRIAL_STD, BIAS_ENERGY };

enum Field { FORCE_STD, FORCE_STD_VECTOR, ATOM_ENERGY_STD };

struct PerAtomField {
  const char *name, *trigger;
  int columns;    // 0: a vector, as fix pair has it
};
constexpr PerAtomField fields[] = {{"fstd", "fstd_flag", 0}, {"fstd3", "fstd3_flag", 3}, {"estd", "estd_flag", 0}};

}    // namespace

const double *PairMLEnsemble::member_forces(int atom_index) const
{
  return &forces_[static_cast<std::size_t>(atom_index) * members_ * 3];
}

double PairMLEnsemble::force_std(int atom_index) const
{
  double variance = 0.0;
  for (int a = 0; a < 3; ++a) variance += rareal::spread(member_forces(atom_index) + a, members_, 3).variance;
  return std_factor_ * std::sqrt(variance);
}

/** As with a dump, a step is written once: runs that follow each other share a step. */
bool PairMLEnsemble::writes_now() const
{
  const auto every = settings_.output.every;
  return every > 0 && update->ntimestep % every == 0 && update->ntimestep != written_step_;
}

void PairMLEnsemble::report(const AtomGraph &graph)
{
  const bool writes = writes_now();
  const double level = writes ? settings_.output.relative : -1.0;
  if (!eflag_either) {    // otherwise it has been summed
    self_energy_ = 0.0;
    for (std::int64_t n = 0; n < graph.n_local; ++n)
      self_energy_ += energy_scale_ * self_energies_[atom->type[graph.atoms[n]]];
  }
  tally_.start(energies_, virials_, self_energy_);
  for (std::int64_t n = 0; n < graph.n_local; ++n) {
    const int i = graph.atoms[n];
    const double std = force_std(i);
    tally_.add_atom(std, level >= 0.0 ? relative_std(i, std) : 0.0, atom->tag_enable ? atom->tag[i] : 0);
  }
  const Deviation deviation = tally_.reduce(std_factor_, world);

  // compute pair adds up all processes' values.
  extra_.fill(0.0);
  if (comm->me == 0) {
    extra_[ENERGY_STD] = deviation.energy;
    extra_[FORCE_STD_MAX] = deviation.force.largest;
    extra_[FORCE_STD_MEAN] = deviation.force.mean;
    extra_[FORCE_STD_MIN] = deviation.force.smallest;
    extra_[WORST_ATOM] = static_cast<double>(deviation.worst);
    extra_[VIRIAL_STD] = deviation.virial_rms();
    extra_[BIAS_ENERGY] = bias_energy_;
  }
  if (writes) write_deviation(graph, deviation);
  if (halt_) halt_->check(deviation.energy, deviation.force.largest);
}

/** DeePMD-kit's: of the force of the mean. */
double PairMLEnsemble::relative_std(int atom_index, double std) const
{
  double square = 0.0;
  for (int a = 0; a < 3; ++a) {
    const double force = rareal::spread(member_forces(atom_index) + a, members_, 3).mean;
    square += force * force;
  }
  return std / (std::sqrt(square) + settings_.output.relative);
}

void PairMLEnsemble::write_deviation(const AtomGraph &graph, const Deviation &deviation)
{
  std::vector<double> rows;
  if (settings_.output.atomic) {
    for (std::int64_t n = 0; n < graph.n_local; ++n) {
      const int i = graph.atoms[n];
      const double std = force_std(i);
      rows.push_back(static_cast<double>(atom->tag[i]));
      rows.push_back(settings_.output.relative >= 0.0 ? relative_std(i, std) : std);
    }
    rows = rareal::gather_rows(rows, 2, world);
  }
  if (file_) file_->write(update->ntimestep, deviation, rows, bias_energy_);
  written_step_ = update->ntimestep;
}

/** fix pair wants a flag that it can raise to have a field computed. Here fields are computed when they are read. */
void *PairMLEnsemble::extract(const char *name, int &dim)
{
  dim = 0;
  for (const auto &field : fields)
    if (std::strcmp(name, field.trigger) == 0) return &peratom_trigger_;
  return nullptr;
}

void *PairMLEnsemble::extract_peratom(const char *name, int &columns)
{
  for (int k = 0; k < static_cast<int>(std::size(fields)); ++k) {
    if (std::strcmp(name, fields[k].name) != 0) continue;
    columns = fields[k].columns;
    if (!evaluated_) return nullptr;    // fix pair asks for the number of columns before the first step
    fill_peratom(system_->graph(), k);
    return columns ? static_cast<void *>(peratom_[k].rows.data()) : static_cast<void *>(peratom_[k].values.data());
  }
  return nullptr;
}

/** Atoms that this style does not treat have zero. */
void PairMLEnsemble::fill_peratom(const AtomGraph &graph, int field)
{
  auto &values = peratom_[field].values;
  const int width = std::max(1, fields[field].columns);
  values.assign(static_cast<std::size_t>(std::max(1, atom->nlocal)) * width, 0.0);
  for (std::int64_t n = 0; n < graph.n_local; ++n) {
    const int i = graph.atoms[n];
    if (i >= atom->nlocal) continue;    // atoms were deleted, and nobody reads this before the next step
    double *value = &values[static_cast<std::size_t>(i) * width];
    if (field == FORCE_STD)
      *value = force_std(i);
    else if (field == FORCE_STD_VECTOR)
      for (int a = 0; a < 3; ++a)
        value[a] = std_factor_ * std::sqrt(rareal::spread(member_forces(i) + a, members_, 3).variance);
    else
      *value = std_factor_ * energy_scale_ * std::sqrt(rareal::spread(atomic_ + n, members_, graph.n_local).variance);
  }
  auto &rows = peratom_[field].rows;
  rows.resize(std::max(1, atom->nlocal));
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = &values[i * width];
}
