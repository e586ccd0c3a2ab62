// LAMMPS pair style for a committee of machine-learning potentials.

#ifndef LMP_PAIR_MLENSEMBLE_H
#define LMP_PAIR_MLENSEMBLE_H

#include "deviation.h"
#include "ensemble_settings.h"
#include "pair.h"

#include <array>
#include <memory>
#include <string>
#include <vector>

namespace rareal {
class DeviationFile;
class EnsembleModel;
class Halt;
class LammpsSystem;
struct AtomGraph;
struct Evaluation;
struct Node;
}    // namespace rareal

namespace LAMMPS_NS {

class PairMLEnsemble : public Pair {
 public:
  explicit PairMLEnsemble(class LAMMPS *);
  ~PairMLEnsemble() override;

  void settings(int, char **) override;
  void coeff(int, char **) override;
  void init_style() override;
  double init_one(int, int) override;
  void compute(int, int) override;
  void *extract(const char *, int &) override;
  void *extract_peratom(const char *, int &) override;

  int pack_reverse_comm(int, int, double *) override;
  void unpack_reverse_comm(int, int *, double *) override;
  double memory_usage() override;

 private:
  void allocate();
  void load_model(const std::string &path);
  rareal::Node use_threads();
  void log_resources(const rareal::Node &node);
  void map_types(int narg, char **arg);
  void check_members();
  void check_units();
  void check_neighbors();
  void reach_ghosts();
  void check_bias();
  void open_output();

  // The steps of compute(). Units of all that they keep and tally: LAMMPS's.
  double mean(const double *members, std::size_t stride) const;
  double driving(const double *members, std::size_t stride) const;
  void collect_energies(const rareal::AtomGraph &graph, const rareal::Evaluation &result);
  void weigh_members();
  void collect_forces(const rareal::AtomGraph &graph, const rareal::Evaluation &result);
  void collect_virials(const rareal::AtomGraph &graph);
  void tally_atomic_virial(const rareal::AtomGraph &graph, const rareal::Evaluation &result);
  void sum_over_ghosts(double *data, int stride);
  void apply_forces(const rareal::AtomGraph &graph);

  // Reports of the deviation, pair_mlensemble_report.cpp.
  bool writes_now() const;
  const double *member_forces(int atom_index) const;
  double force_std(int atom_index) const;
  double relative_std(int atom_index, double std) const;
  void report(const rareal::AtomGraph &graph);
  void write_deviation(const rareal::AtomGraph &graph, const rareal::Deviation &deviation);
  void fill_peratom(const rareal::AtomGraph &graph, int field);

  rareal::EnsembleSettings settings_;
  std::unique_ptr<rareal::EnsembleModel> model_;
  std::unique_ptr<rareal::LammpsSystem> system_;
  std::unique_ptr<rareal::Halt> halt_;
  std::unique_ptr<rareal::DeviationFile> file_;    // of the first process
  bool file_open_ = false;
  bigint written_step_ = -1;
  std::string model_file_;
  rareal::DeviceChoice model_device_ = rareal::DeviceChoice::CPU;    // what it was loaded for
  std::string resources_;                                            // as the log has them
  int members_ = 0;
  double energy_scale_ = 1.0;              // eV in LAMMPS's energy unit
  double std_factor_ = 1.0;                // from a population's standard deviation to the reported one
  std::vector<double> self_energies_;      // [ntypes+1]
  std::vector<std::string> type_names_;    // [ntypes+1] elements of the atom types

  std::vector<double> energies_;        // [M] this process's share of every member's energy, self-energies left out
  double self_energy_ = 0.0;            // of the atoms of this process
  const double *atomic_ = nullptr;      // [M, n_local] the model's energies of atoms, eV
  std::vector<double> forces_;          // [nlocal + nghost, M, 3]
  std::vector<double> virials_;         // [M, 6] of this process
  std::vector<double> bias_weights_;    // [M] share of every member's force in the bias; empty: no bias
  std::vector<double> totals_;          // [M] energies of the whole system
  double bias_energy_ = 0.0;
  rareal::DeviationTally tally_;
  std::array<double, 7> extra_;    // pvector

  // What fix pair reads, computed when it asks.
  struct PerAtom {
    std::vector<double> values;
    std::vector<double *> rows;
  };
  std::array<PerAtom, 3> peratom_;
  bool evaluated_ = false;     // there is something to read
  int peratom_trigger_ = 0;    // there for fix pair to set; nothing depends on it

  // Doubles per atom in one reverse communication. Fixed, because pair style hybrid sizes its buffers before the
  // number of members is known; larger committees take several rounds.
  static constexpr int comm_width = 24;

  // What the reverse communication in progress sends: columns [first, first + width) of rows of `stride`.
  struct Columns {
    double *data;
    int stride, first, width;
  } columns_{};
};

}    // namespace LAMMPS_NS

#endif
