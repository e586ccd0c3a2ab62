#include "halt.h"

#include "gather.h"

#include "atom.h"
#include "comm.h"
#include "domain.h"
#include "error.h"
#include "timer.h"
#include "update.h"
#include "utils.h"

#include <cmath>
#include <cstdio>
#include <memory>

using namespace LAMMPS_NS;
using rareal::Halt;

void Halt::check(double energy_std, double force_std)
{
  if (update->ntimestep == last_step_) return;
  last_step_ = update->ntimestep;

  // Written so that a value which is not a number is above a threshold. One process decides for all.
  const bool energy = std::isfinite(settings_.energy) && !(energy_std <= settings_.energy);
  const bool force = std::isfinite(settings_.force) && !(force_std <= settings_.force);
  int above = energy || force;
  MPI_Bcast(&above, 1, MPI_INT, 0, world);
  if (!above) {
    streak_ = 0;
    good_step_ = last_step_;
    if (!settings_.file.empty()) keep_frame();
    return;
  }
  if (++streak_ < settings_.patience) return;

  const std::string frame = write_frame();
  if (comm->me == 0)
    utils::logmesg(lmp,
                   "pair_style mlensemble halts the run at step {}: {} standard deviation {:.8g} is above {:.8g}{}{}\n",
                   last_step_, energy ? "energy" : "force", energy ? energy_std : force_std,
                   energy ? settings_.energy : settings_.force,
                   streak_ > 1 ? fmt::format(" for {} steps", streak_) : "", frame);
  streak_ = 0;
  timer->force_timeout();    // the integrator ends after this step
}

void Halt::keep_frame()
{
  atoms_.clear();
  for (int i = 0; i < atom->nlocal; ++i) {
    double place[3];
    domain->unmap(atom->x[i], atom->image[i], place);
    atoms_.insert(atoms_.end(), {static_cast<double>(atom->tag[i]), static_cast<double>(atom->type[i])});
    atoms_.insert(atoms_.end(), place, place + 3);
  }
  const bool tilted = domain->triclinic;
  const double *low = tilted ? domain->boxlo_bound : domain->boxlo;
  const double *high = tilted ? domain->boxhi_bound : domain->boxhi;
  const double tilts[3] = {domain->xy, domain->xz, domain->yz};
  for (int a = 0; a < 3; ++a) box_[a] = {low[a], high[a], tilts[a]};
}

std::string Halt::box_text() const
{
  char boundary[9];
  domain->boundary_string(boundary);
  std::string text = fmt::format("ITEM: BOX BOUNDS {}{}\n", domain->triclinic ? "xy xz yz " : "", boundary);
  for (const auto &[low, high, tilt] : box_)
    text += fmt::format("{:.16e} {:.16e}{}\n", low, high, domain->triclinic ? fmt::format(" {:.16e}", tilt) : "");
  return text;
}

/** Says where the frame is, in words that end the message. */
std::string Halt::write_frame()
{
  if (settings_.file.empty()) return "";
  if (good_step_ < 0) return "; there was no good frame to keep";
  constexpr int width = 5;
  const auto rows = gather_rows(atoms_, width, world);
  if (comm->me != 0) return "";

  const auto close = [](std::FILE *file) { std::fclose(file); };
  const std::unique_ptr<std::FILE, decltype(close)> file(std::fopen(settings_.file.c_str(), "w"), close);
  if (!file) {
    error->warning(FLERR, "Cannot write halt_file '{}' of pair_style mlensemble: {}", settings_.file,
                   utils::getsyserror());
    return "";
  }
  utils::print(file.get(), "ITEM: TIMESTEP\n{}\nITEM: NUMBER OF ATOMS\n{}\n{}ITEM: ATOMS id type element xu yu zu\n",
               good_step_, rows.size() / width, box_text());
  for (std::size_t k = 0; k < rows.size(); k += width)
    utils::print(file.get(), "{:.0f} {:.0f} {} {:.16g} {:.16g} {:.16g}\n", rows[k], rows[k + 1],
                 elements_[static_cast<std::size_t>(rows[k + 1])], rows[k + 2], rows[k + 3], rows[k + 4]);
  return fmt::format("; the last good frame, of step {}, is in '{}'", good_step_, settings_.file);
}
