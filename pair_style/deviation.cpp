#include "deviation.h"

#include "committee_statistics.h"

#include <cmath>
#include <limits>

using rareal::Deviation;
using rareal::DeviationTally;

double Deviation::virial_rms() const
{
  double sum = 0.0;
  for (int k = 0; k < 6; ++k) sum += (k < 3 ? 1.0 : 2.0) * virial[k] * virial[k];
  return std::sqrt(sum / 9.0);
}

void DeviationTally::start(const std::vector<double> &energies, const std::vector<double> &virials, double self_energy)
{
  members_ = energies.size();
  sums_ = energies;
  sums_.insert(sums_.end(), virials.begin(), virials.end());
  sums_.insert(sums_.end(), {self_energy, 0.0, 0.0, 0.0});
  extremes_.fill(-std::numeric_limits<double>::infinity());
  worst_ = std::numeric_limits<std::int64_t>::max();
}

void DeviationTally::add_atom(double force, double relative, std::int64_t id)
{
  double *sums = &sums_[7 * members_ + 1];
  sums[0] += force;
  sums[1] += relative;
  sums[2] += 1.0;
  // Not comparisons alone: NaN must come through to whoever decides by the largest.
  if (std::isnan(force) || force > extremes_[0] || (force == extremes_[0] && id < worst_)) {
    extremes_[0] = std::isnan(force) ? std::numeric_limits<double>::infinity() : force;
    worst_ = id;
  }
  extremes_[1] = std::fmax(extremes_[1], -force);
  extremes_[2] = std::fmax(extremes_[2], relative);
  extremes_[3] = std::fmax(extremes_[3], -relative);
}

Deviation DeviationTally::reduce(double factor, MPI_Comm world)
{
  const double own_largest = extremes_[0];
  MPI_Allreduce(MPI_IN_PLACE, sums_.data(), static_cast<int>(sums_.size()), MPI_DOUBLE, MPI_SUM, world);
  MPI_Allreduce(MPI_IN_PLACE, extremes_.data(), 4, MPI_DOUBLE, MPI_MAX, world);
  std::int64_t candidate = own_largest == extremes_[0] ? worst_ : std::numeric_limits<std::int64_t>::max();
  std::int64_t worst = candidate;
  MPI_Reduce(&candidate, &worst, 1, MPI_INT64_T, MPI_MIN, 0, world);

  Deviation all;
  const double *sums = &sums_[7 * members_];
  all.atoms = sums[3];
  const Spread energy = spread(sums_.data(), members_);
  all.energy = factor * std::sqrt(energy.variance);
  all.mean_energy = energy.mean + sums[0];
  for (std::size_t k = 0; k < 6; ++k) {
    const Spread virial = spread(&sums_[members_ + k], members_, 6);
    all.virial[k] = factor * std::sqrt(virial.variance);
    all.mean_virial[k] = virial.mean;
  }
  if (all.atoms > 0.0) {
    all.force = {extremes_[0], sums[1] / all.atoms, -extremes_[1]};
    all.relative = {extremes_[2], sums[2] / all.atoms, -extremes_[3]};
    all.worst = worst;
  }
  return all;
}
