// Ends a run whose committee disagrees, and keeps the last frame that could be trusted.

#ifndef RAREAL_HALT_H
#define RAREAL_HALT_H

#include "ensemble_settings.h"
#include "pointers.h"

#include <array>
#include <string>
#include <vector>

namespace rareal {

class Halt : protected LAMMPS_NS::Pointers {
 public:
  /** elements [ntypes+1]: what the atom types are called in the file. */
  Halt(LAMMPS_NS::LAMMPS *lmp, const HaltSettings &settings, std::vector<std::string> elements) :
      Pointers(lmp), settings_(settings), elements_(std::move(elements))
  {
  }

  /** Once per step, by all processes, with the same values. Several evaluations within one step count as the first. */
  void check(double energy_std, double force_std);

 private:
  void keep_frame();
  std::string write_frame();
  std::string box_text() const;

  HaltSettings settings_;
  std::vector<std::string> elements_;
  LAMMPS_NS::bigint last_step_ = -1, good_step_ = -1;
  int streak_ = 0;    // steps in a row that were above a threshold

  std::vector<double> atoms_;    // of the last good step: id, type, unwrapped position of this process's atoms
  std::array<std::array<double, 3>, 3> box_{};    // low, high, tilt (xy, xz, yz) of the same step, as dumps have them
};

}    // namespace rareal

#endif
