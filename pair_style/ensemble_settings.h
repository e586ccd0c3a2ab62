// What the keywords of the pair_style command say. Energies and forces in LAMMPS's units.

#ifndef RAREAL_ENSEMBLE_SETTINGS_H
#define RAREAL_ENSEMBLE_SETTINGS_H

#include "resource_policy.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>

namespace LAMMPS_NS {
class LAMMPS;
}

namespace rareal {

/** The file of deviations; the names of keywords and columns are those of DeePMD-kit. */
struct OutputSettings {
  std::string file = "model_devi.out";
  std::int64_t every = 0;    // steps; 0: nothing is written
  bool append = false;
  bool atomic = false;              // a column per atom
  bool energy = false;              // columns of energies at the end
  double relative = -1.0;           // level of relative force deviations, < 0: absolute ones
  double relative_virial = -1.0;    // the same for the virial

  bool operator==(const OutputSettings &) const = default;
};

/** Energy that depends on the variance of the committee's energies, after which uncertain places are sought.
 *
 * Kulichenko et al., Nat. Comput. Sci. 3, 230 (2023), in the forms of equations 18 and 19 of their review.
 */
struct BiasSettings {
  enum Form { NONE, LINEAR, GAUSSIAN };
  Form form = NONE;
  double strength = 0.0;    // A: 1/energy (linear), energy (Gaussian)
  double width = 1.0;       // B: energy

  double energy(double variance) const;
  double slope(double variance) const;    // of the energy, by the variance
};

/** Standard deviations above which the run ends. */
struct HaltSettings {
  double energy = std::numeric_limits<double>::infinity();
  double force = std::numeric_limits<double>::infinity();
  int patience = 1;    // steps in a row
  std::string file;    // of the last good frame; empty: none is kept

  bool active() const { return std::min(energy, force) < std::numeric_limits<double>::infinity(); }
};

struct EnsembleSettings {
  DeviceChoice device = DeviceChoice::CPU;
  int driver = 0;    // 0: the mean drives the dynamics; k: member k
  int ddof = 0;      // variances are divided by members - ddof
  double scale = 1.0;
  OutputSettings output;
  BiasSettings bias;
  HaltSettings halt;
};

/** All processes together; a mistake is a LAMMPS error that names the keyword. */
EnsembleSettings parse_settings(int narg, char **arg, LAMMPS_NS::LAMMPS *lmp);

}    // namespace rareal

#endif
