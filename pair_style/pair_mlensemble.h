// LAMMPS pair style for a committee of machine-learning potentials.

#ifndef LMP_PAIR_MLENSEMBLE_H
#define LMP_PAIR_MLENSEMBLE_H

#include "pair.h"

#include <array>
#include <memory>
#include <string>
#include <vector>

namespace rareal {
class EnsembleModel;
class LammpsSystem;
struct AtomGraph;
struct Evaluation;
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

  int pack_reverse_comm(int, int, double *) override;
  void unpack_reverse_comm(int, int *, double *) override;
  double memory_usage() override;

 private:
  void parse_drive(const std::string &value);

  void allocate();
  void load_model(const std::string &file);
  void map_types(int narg, char **arg);
  void check_units();
  void check_neighbors();
  void reach_ghosts();

  // The steps of compute(). Units of all that they keep and tally: LAMMPS's.
  double driving_mean(const double *members, std::size_t stride) const;
  void collect_energies(const rareal::AtomGraph &graph, const rareal::Evaluation &result);
  void collect_forces(const rareal::AtomGraph &graph, const rareal::Evaluation &result);
  void tally_virial(const rareal::AtomGraph &graph, const rareal::Evaluation &result);
  void sum_over_ghosts(double *data, int stride);
  void apply_forces(const rareal::AtomGraph &graph);
  void tally_spread(const rareal::AtomGraph &graph);

  std::unique_ptr<rareal::EnsembleModel> model_;
  std::unique_ptr<rareal::LammpsSystem> system_;
  int driver_ = 0;    // 0: the mean drives the dynamics; k: member k
  int members_ = 0;
  double energy_scale_ = 1.0;             // eV in LAMMPS's energy unit
  std::vector<double> self_energies_;     // [ntypes+1]

  std::vector<double> energies_;    // [M] this process's share of every member's energy, self-energies left out
  std::vector<double> forces_;      // [nlocal + nghost, M, 3]
  std::vector<double> sums_;        // what is summed over processes, in one call
  std::array<double, 3> extra_;     // pvector: energy std, largest force std, mean force std

  // What the reverse communication in progress sends: columns [first, first + width) of rows of `stride`.
  struct Columns {
    double *data;
    int stride, first, width;
  } columns_{};
};

}    // namespace LAMMPS_NS

#endif
