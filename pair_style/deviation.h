// How far the members of a committee are apart, over all atoms and processes. Knows MPI, but not LAMMPS.

#ifndef RAREAL_DEVIATION_H
#define RAREAL_DEVIATION_H

#include <mpi.h>

#include <array>
#include <cstdint>
#include <vector>

namespace rareal {

/** Over atoms. */
struct Range {
  double largest = 0.0, mean = 0.0, smallest = 0.0;
};

/** Of the whole system: standard deviations over the members. */
struct Deviation {
  double atoms = 0.0;
  double energy = 0.0;         // of the total energy
  double mean_energy = 0.0;    // with self-energies
  Range force;                 // of the force on an atom
  Range relative;              // the same, each divided by the caller's measure
  std::int64_t worst = 0;      // id of the atom with the largest force deviation, the lowest of equals; first process
  std::array<double, 6> virial{}, mean_virial{};    // of the total virial: xx yy zz xy xz yz

  /** Root mean square over the nine components. */
  double virial_rms() const;
};

/** Collects the share of one process, then sums over all. */
class DeviationTally {
 public:
  /** energies [M] without self-energies, virials [M*6], self-energies, all of the atoms of this process. */
  void start(const std::vector<double> &energies, const std::vector<double> &virials, double self_energy);
  void add_atom(double force, double relative, std::int64_t id);

  /** All processes together; standard deviations of energy and virial are multiplied by `factor`. */
  Deviation reduce(double factor, MPI_Comm world);

 private:
  std::size_t members_ = 0;
  std::vector<double> sums_;            // [M energies, M*6 virials, self-energy, force, relative, atoms]
  std::array<double, 4> extremes_{};    // largest force, minus the smallest; the same for relative ones
  std::int64_t worst_ = 0;
};

}    // namespace rareal

#endif
