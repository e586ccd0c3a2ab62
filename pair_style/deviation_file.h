// The file of deviations, in the columns of DeePMD-kit's model_devi.out. Written by one process.

#ifndef RAREAL_DEVIATION_FILE_H
#define RAREAL_DEVIATION_FILE_H

#include "deviation.h"
#include "ensemble_settings.h"

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

namespace rareal {

class DeviationFile {
 public:
  /** The header goes to the file at once, unless rows are appended to earlier ones. Check is_open(). */
  DeviationFile(const EnsembleSettings &settings, const std::string &units);

  bool is_open() const { return file_ != nullptr; }

  /** rows: id and force deviation of every atom, in the order of the columns. */
  void write(std::int64_t step, const Deviation &deviation, const std::vector<double> &rows, double bias_energy);

 private:
  void write_header(const EnsembleSettings &settings, const std::string &units);

  struct Close {
    void operator()(std::FILE *file) const { std::fclose(file); }
  };
  OutputSettings output_;
  bool biased_;
  std::unique_ptr<std::FILE, Close> file_;
};

}    // namespace rareal

#endif
