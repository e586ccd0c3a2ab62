#include "deviation_file.h"

#include <algorithm>
#include <cmath>
#include <limits>

using rareal::DeviationFile;
using rareal::OutputSettings;

namespace {

/** DeePMD-kit's: per atom, over the nine components, the mean as root mean square. */
rareal::Range virial_range(const rareal::Deviation &deviation, double level)
{
  double largest = 0.0, smallest = std::numeric_limits<double>::infinity(), squares = 0.0;
  for (int k = 0; k < 6; ++k) {
    double value = deviation.virial[k] / deviation.atoms;
    if (level >= 0.0) value /= std::abs(deviation.mean_virial[k]) / deviation.atoms + level;
    largest = std::max(largest, value);
    smallest = std::min(smallest, value);
    squares += (k < 3 ? 1.0 : 2.0) * value * value;
  }
  return {largest, std::sqrt(squares / 9.0), smallest};
}

bool has_content(const std::string &path)
{
  std::FILE *file = std::fopen(path.c_str(), "r");
  if (!file) return false;
  const bool content = std::fgetc(file) != EOF;
  std::fclose(file);
  return content;
}

}    // namespace

DeviationFile::DeviationFile(const EnsembleSettings &settings, const std::string &units) :
    output_(settings.output), biased_(settings.bias.form != BiasSettings::NONE)
{
  const bool again = output_.append && has_content(output_.file);
  file_.reset(std::fopen(output_.file.c_str(), output_.append ? "a" : "w"));
  if (file_ && !again) write_header(settings, units);
}

void DeviationFile::write_header(const EnsembleSettings &settings, const std::string &units)
{
  std::FILE *file = file_.get();
  std::fprintf(file, "#%11s", "step");
  for (const char *name : {"max_devi_v", "min_devi_v", "avg_devi_v", "max_devi_f", "min_devi_f", "avg_devi_f"})
    std::fprintf(file, "%19s", name);
  if (output_.atomic) std::fprintf(file, "%19s", "atm_devi_f(N)");
  if (output_.energy) {
    std::fprintf(file, "%19s%24s", "devi_e", "avg_e");
    if (biased_) std::fprintf(file, "%24s", "bias_e");
  }
  std::fputc('\n', file);

  // Readers of DeePMD-kit's files expect one line; a second one tells what DeePMD-kit would not have done.
  std::string notes;
  if (settings.ddof) notes += " ddof " + std::to_string(settings.ddof);
  char text[64];
  if (settings.scale != 1.0) {
    std::snprintf(text, sizeof(text), " scale %.15g", settings.scale);
    notes += text;
  }
  if (output_.relative >= 0.0) {
    std::snprintf(text, sizeof(text), " relative %.15g", output_.relative);
    notes += text;
  }
  if (output_.relative_virial >= 0.0) {
    std::snprintf(text, sizeof(text), " relative_v %.15g", output_.relative_virial);
    notes += text;
  }
  if (units != "metal") notes += " units " + units;
  if (!notes.empty()) std::fprintf(file, "# pair_style mlensemble:%s\n", notes.c_str());
  std::fflush(file);
}

void DeviationFile::write(std::int64_t step, const Deviation &deviation, const std::vector<double> &rows,
                          double bias_energy)
{
  std::FILE *file = file_.get();
  const Range virial = virial_range(deviation, output_.relative_virial);
  const Range &force = output_.relative >= 0.0 ? deviation.relative : deviation.force;
  std::fprintf(file, "%12lld", static_cast<long long>(step));
  for (const double value : {virial.largest, virial.smallest, virial.mean, force.largest, force.smallest, force.mean})
    std::fprintf(file, " %18.6e", value);
  for (std::size_t k = 1; k < rows.size(); k += 2) std::fprintf(file, " %18.6e", rows[k]);
  if (output_.energy) {
    std::fprintf(file, " %18.6e %23.15g", deviation.energy / deviation.atoms, deviation.mean_energy);
    if (biased_) std::fprintf(file, " %23.15g", bias_energy);
  }
  std::fputc('\n', file);
  std::fflush(file);
}
