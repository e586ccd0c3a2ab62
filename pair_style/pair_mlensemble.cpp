// LAMMPS adapter: settings, coefficients, communication and tallies. What is computed is the model's business.

#include "pair_mlensemble.h"

#include "committee_statistics.h"
#include "deviation_file.h"
#include "ensemble_model.h"
#include "halt.h"
#include "lammps_system.h"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "update.h"
#include "utils.h"

#include <algorithm>
#include <cmath>

using namespace LAMMPS_NS;
using rareal::AtomGraph;
using rareal::Evaluation;

namespace {

// Doubles per atom in one reverse communication. Fixed, because pair style hybrid sizes its buffers before the
// number of members is known; larger committees take several rounds.
constexpr int comm_width = 24;

std::string join(const std::vector<std::string> &words)
{
  std::string text;
  for (const auto &word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

}    // namespace

/* ---- set-up ------------------------------------------------------------------------------------------------- */

PairMLEnsemble::PairMLEnsemble(LAMMPS *lmp) :
    Pair(lmp), system_(std::make_unique<rareal::LammpsSystem>(lmp)), extra_{}
{
  single_enable = 0;
  restartinfo = 0;
  one_coeff = 1;
  manybody_flag = 1;
  centroidstressflag = CENTROID_NOTAVAIL;
  unit_convert_flag = utils::get_supported_conversions(utils::ENERGY);
  no_virial_fdotr_compute = 1;    // forces go to owned atoms only, so their virial is not the sum of f dot r
  ghostneigh = 1;                 // hybrid asks before the model, and with it the truth, is known
  comm_reverse = comm_reverse_off = comm_width;
  nextra = static_cast<int>(extra_.size());
  pvector = extra_.data();
}

PairMLEnsemble::~PairMLEnsemble()
{
  if (copymode || !allocated) return;
  memory->destroy(setflag);
  memory->destroy(cutsq);
  memory->destroy(cutghost);
}

void PairMLEnsemble::allocate()
{
  const int n = atom->ntypes + 1;
  memory->create(setflag, n, n, "pair:setflag");
  memory->create(cutsq, n, n, "pair:cutsq");
  memory->create(cutghost, n, n, "pair:cutghost");
  map = new int[n];
  for (int i = 0; i < n; ++i) std::fill_n(setflag[i], n, 0);
  allocated = 1;
}

void PairMLEnsemble::settings(int narg, char **arg)
{
  const auto before = settings_.output;
  settings_ = rareal::parse_settings(narg, arg, lmp);
  halt_.reset();
  // The same command again goes on in the same file.
  if (settings_.output != before) {
    file_.reset();
    file_open_ = false;
    written_step_ = -1;
  }
}

void PairMLEnsemble::coeff(int narg, char **arg)
{
  if (!allocated) allocate();
  if (narg < 3) error->all(FLERR, "pair_coeff for mlensemble is: * * <model file> <element of each atom type>");
  load_model(arg[2]);
  map_types(narg, arg);
}

void PairMLEnsemble::load_model(const std::string &file)
{
  evaluated_ = false;
  halt_.reset();    // it knows the elements of the atom types
  std::string path = utils::get_potential_file_path(file), message;
  if (path.empty()) path = file;
  try {
    model_ = std::make_unique<rareal::EnsembleModel>(path);
  } catch (const rareal::ModelError &failure) {
    message = failure.what();
  }

  // A file system may fail on some processes only: all stop together, with the message of the first that failed.
  int failed = message.empty() ? comm->nprocs : comm->me, first = 0;
  MPI_Allreduce(&failed, &first, 1, MPI_INT, MPI_MIN, world);
  if (first < comm->nprocs) {
    int length = static_cast<int>(message.size());
    MPI_Bcast(&length, 1, MPI_INT, first, world);
    message.resize(length);
    MPI_Bcast(message.data(), length, MPI_CHAR, first, world);
    error->all(FLERR, "{}", message);
  }

  model_file_ = path;
  members_ = model_->metadata().members;
  if (members_ == 1 && comm->me == 0)
    error->warning(FLERR, "'{}' has one member: its standard deviations are zero and mean nothing", path);
}

void PairMLEnsemble::map_types(int narg, char **arg)
{
  const auto &metadata = model_->metadata();
  const int given = narg - 3;
  if (given != atom->ntypes)
    error->all(FLERR, "pair_coeff for mlensemble names {} elements, but there are {} atom types: name one per type, "
               "or NULL for types that other styles of pair_style hybrid treat", given, atom->ntypes);

  std::vector<int> species(atom->ntypes + 1, -1);
  self_energies_.assign(atom->ntypes + 1, 0.0);
  type_names_.assign(atom->ntypes + 1, "X");
  for (int type = 1; type <= atom->ntypes; ++type) {
    const std::string name = arg[2 + type];
    if (name == "NULL") continue;
    const auto element = std::find(metadata.elements.begin(), metadata.elements.end(), name);
    if (element == metadata.elements.end())
      error->all(FLERR, "Element '{}' of atom type {} is not in model file '{}', which knows: {}", name, type, arg[2],
                 join(metadata.elements));
    type_names_[type] = name;
    species[type] = static_cast<int>(element - metadata.elements.begin());
    self_energies_[type] = metadata.self_energies[species[type]];
  }
  map_element2type(given, arg + 3);    // sets setflag, which hybrid reads
  system_->configure(metadata.cutoff, metadata.layers, species);
}

void PairMLEnsemble::init_style()
{
  check_members();
  check_units();
  check_neighbors();
  check_bias();
  open_output();
  std_factor_ = settings_.scale * std::sqrt(static_cast<double>(members_) / (members_ - settings_.ddof));
  if (settings_.halt.active() && !halt_)
    halt_ = std::make_unique<rareal::Halt>(lmp, settings_.halt, type_names_);
  rareal::EnsembleModel::set_threads(comm->nthreads);
  if (model_->metadata().layers > 1) {
    reach_ghosts();
    neighbor->add_request(this, NeighConst::REQ_FULL | NeighConst::REQ_GHOST);
  } else {
    neighbor->add_request(this, NeighConst::REQ_FULL);
  }
}

/** pair_style may come again without pair_coeff, so this is not for load_model(). */
void PairMLEnsemble::check_members()
{
  if (settings_.driver > members_)
    error->all(FLERR, "pair_style mlensemble drive is {}, but '{}' has {} members", settings_.driver, model_file_,
               members_);
  if (settings_.ddof >= members_)
    error->all(FLERR, "pair_style mlensemble ddof is {}, but '{}' has {} member", settings_.ddof, model_file_,
               members_);
}

void PairMLEnsemble::check_units()
{
  const std::string units = update->unit_style;
  if (units == "metal")
    energy_scale_ = 1.0;
  else if (units == "real")
    energy_scale_ = utils::get_conversion_factor(utils::ENERGY, utils::METAL2REAL);
  else
    error->all(FLERR, "pair_style mlensemble works in units metal or real, but this input has units {}", units);
}

void PairMLEnsemble::check_neighbors()
{
  if (atom->molecular != Atom::ATOMIC && atom->nbonds > 0)
    for (int k = 1; k < 4; ++k)
      if (force->special_lj[k] != 1.0)
        error->all(FLERR, "pair_style mlensemble needs all pairs, but special_bonds scales 1-{} neighbors by {}: "
                   "use special_bonds lj/coul 1 1 1, or delete the bonds", k + 1, force->special_lj[k]);
  // Not neighbor->exclude, which the neighbour lists set after the styles.
  if (neighbor->nex_type + neighbor->nex_group + neighbor->nex_mol > 0 && comm->me == 0)
    error->warning(FLERR, "neigh_modify exclude hides pairs from pair_style mlensemble and changes its energy");
}

/** Message passing: energies of owned atoms depend on ghosts up to layers * cutoff away, the list ends at cutoff. */
void PairMLEnsemble::reach_ghosts()
{
  if (comm->mode != Comm::SINGLE)
    error->all(FLERR, "pair_style mlensemble with a message-passing model needs comm_modify mode single");
  const auto &metadata = model_->metadata();
  comm->cutghostuser = std::max(comm->cutghostuser, metadata.layers * metadata.cutoff + neighbor->skin);
}

void PairMLEnsemble::check_bias()
{
  bias_weights_.clear();
  bias_energy_ = 0.0;
  if (settings_.bias.form == rareal::BiasSettings::NONE) return;
  if (update->whichflag == 2)
    error->all(FLERR, "pair_style mlensemble bias is for dynamics: a minimizer does not see the energy of the bias");
  bias_weights_.assign(members_, 0.0);
}

/** Before the first step, so that a file that cannot be written costs no run. */
void PairMLEnsemble::open_output()
{
  if (!atom->tag_enable && (settings_.output.atomic || !settings_.halt.file.empty()))
    error->all(FLERR, "pair_style mlensemble keywords atomic and halt_file need atoms with ids");
  if (settings_.output.every == 0 || file_open_) return;
  int failed = 0;
  if (comm->me == 0) {
    file_ = std::make_unique<rareal::DeviationFile>(settings_, update->unit_style);
    failed = !file_->is_open();
  }
  MPI_Bcast(&failed, 1, MPI_INT, 0, world);
  if (failed)
    error->all(FLERR, "Cannot write out_file '{}' of pair_style mlensemble: {}", settings_.output.file,
               utils::getsyserror());
  file_open_ = true;
}

double PairMLEnsemble::init_one(int i, int j)
{
  if (setflag[i][j] == 0) error->all(FLERR, "All pair coeffs are not set");
  cutghost[i][j] = cutghost[j][i] = model_->metadata().cutoff;
  return model_->metadata().cutoff;
}

/* ---- every step --------------------------------------------------------------------------------------------- */

void PairMLEnsemble::compute(int eflag, int vflag)
{
  ev_init(eflag, vflag);
  const AtomGraph &graph = system_->update(*list);

  // A process without atoms has nothing to evaluate, but takes part in all communication.
  Evaluation result;
  if (graph.n_local > 0) {
    try {
      result = model_->evaluate(graph);
    } catch (const rareal::ModelError &failure) {
      error->one(FLERR, "{}", failure.what());
    }
  }
  atomic_ = result.energies;
  evaluated_ = true;

  // compute pair, the reader of the deviation, sees to it that energies are tallied whenever it is used.
  const bool reports = eflag_global || halt_ || writes_now();
  collect_energies(graph, result);
  if (!bias_weights_.empty()) weigh_members();
  collect_forces(graph, result);
  if (vflag_either) tally_virial(graph, result);
  if (reports) collect_virials(graph);
  sum_over_ghosts(forces_.data(), 3 * members_);
  apply_forces(graph);
  if (reports) report(graph);
}

/** The value of the potential without bias: the mean of the members', or one member's. */
double PairMLEnsemble::mean(const double *members, std::size_t stride) const
{
  const int driver = settings_.driver;
  return driver ? members[(driver - 1) * stride] : rareal::spread(members, members_, stride).mean;
}

/** The value that drives the dynamics, with the bias. Only for what is linear in the members' forces. */
double PairMLEnsemble::driving(const double *members, std::size_t stride) const
{
  double value = mean(members, stride);
  for (std::size_t m = 0; m < bias_weights_.size(); ++m) value += bias_weights_[m] * members[m * stride];
  return value;
}

void PairMLEnsemble::collect_energies(const AtomGraph &graph, const Evaluation &result)
{
  energies_.assign(members_, 0.0);
  for (int m = 0; m < members_; ++m)
    for (std::int64_t n = 0; n < graph.n_local; ++n) energies_[m] += result.energies[m * graph.n_local + n];
  for (auto &energy : energies_) energy *= energy_scale_;

  if (!eflag_either) return;
  self_energy_ = 0.0;
  for (std::int64_t n = 0; n < graph.n_local; ++n) {
    const int i = graph.atoms[n];
    const double self_energy = energy_scale_ * self_energies_[atom->type[i]];
    self_energy_ += self_energy;
    if (eflag_atom) eatom[i] += energy_scale_ * mean(result.energies + n, graph.n_local) + self_energy;
  }
  if (eflag_global) eng_vdwl += mean(energies_.data(), 1) + self_energy_;
}

/** Bias E(v), v = s^2/(M - ddof) sum_m (E_m - mean)^2: its force is sum_m w_m F_m, w_m = E'(v) dv/dE_m.
 *
 * The mean's own derivative drops out of dv/dE_m, so members' energies and forces are all it takes.
 */
void PairMLEnsemble::weigh_members()
{
  totals_ = energies_;
  MPI_Allreduce(MPI_IN_PLACE, totals_.data(), members_, MPI_DOUBLE, MPI_SUM, world);
  const auto energy = rareal::spread(totals_.data(), members_);
  const double factor = std_factor_ * std_factor_, variance = factor * energy.variance;
  bias_energy_ = settings_.bias.energy(variance);
  const double slope = settings_.bias.slope(variance) * factor * 2.0 / members_;
  for (int m = 0; m < members_; ++m) bias_weights_[m] = slope * (totals_[m] - energy.mean);
}

void PairMLEnsemble::collect_forces(const AtomGraph &graph, const Evaluation &result)
{
  forces_.assign(static_cast<std::size_t>(atom->nlocal + atom->nghost) * members_ * 3, 0.0);
  const double *g = result.gradients;
  for (int m = 0; m < members_; ++m) {
    for (std::size_t p = 0; p < graph.n_edges(); ++p, g += 3) {
      double *fi = &forces_[(static_cast<std::size_t>(graph.atoms[graph.centers[p]]) * members_ + m) * 3];
      double *fj = &forces_[(static_cast<std::size_t>(graph.atoms[graph.neighbors[p]]) * members_ + m) * 3];
      for (int a = 0; a < 3; ++a) {
        fi[a] += energy_scale_ * g[a];
        fj[a] -= energy_scale_ * g[a];
      }
    }
  }
}

/** Every member's virial, from the forces before ghosts give theirs away: sum over nodes of r_a f_b. */
void PairMLEnsemble::collect_virials(const AtomGraph &graph)
{
  virials_.assign(6 * members_, 0.0);
  for (const int i : graph.atoms) {
    const double *r = atom->x[i];
    const double *f = member_forces(i);
    for (int m = 0; m < members_; ++m, f += 3) {
      const double w[6] = {r[0] * f[0], r[1] * f[1], r[2] * f[2], r[0] * f[1], r[0] * f[2], r[1] * f[2]};
      for (int k = 0; k < 6; ++k) virials_[6 * m + k] += w[k];
    }
  }
}

/** W_ab = -sum over edges of r_a dE/dr_b; per atom, an edge belongs to its central atom. */
void PairMLEnsemble::tally_virial(const AtomGraph &graph, const Evaluation &result)
{
  // In message-passing models ghosts are centres of edges, too. Their share is brought home here, because LAMMPS does
  // so with newton on only.
  const bool ghost_centers = vflag_atom && model_->metadata().layers > 1;
  const auto clear_ghosts = [this] {
    if (atom->nghost) std::fill_n(vatom[atom->nlocal], 6 * atom->nghost, 0.0);
  };
  if (ghost_centers) clear_ghosts();

  const std::size_t edges = graph.n_edges();
  for (std::size_t p = 0; p < edges; ++p) {
    const double *r = &graph.vectors[3 * p];
    double g[3];
    for (int a = 0; a < 3; ++a) g[a] = -energy_scale_ * driving(result.gradients + 3 * p + a, 3 * edges);
    const double w[6] = {r[0] * g[0], r[1] * g[1], r[2] * g[2], r[0] * g[1], r[0] * g[2], r[1] * g[2]};
    if (vflag_global)
      for (int k = 0; k < 6; ++k) virial[k] += w[k];
    if (vflag_atom)
      for (int k = 0; k < 6; ++k) vatom[graph.atoms[graph.centers[p]]][k] += w[k];
  }
  if (!ghost_centers) return;
  sum_over_ghosts(atom->nmax ? vatom[0] : nullptr, 6);
  clear_ghosts();
}

/** Adds what ghosts collected to the atoms that they are images of. */
void PairMLEnsemble::sum_over_ghosts(double *data, int stride)
{
  for (int first = 0; first < stride; first += comm_width) {
    columns_ = {data, stride, first, std::min(comm_width, stride - first)};
    comm->reverse_comm(this, columns_.width);
  }
}

int PairMLEnsemble::pack_reverse_comm(int n, int first, double *buf)
{
  const double *row = columns_.data + static_cast<std::size_t>(first) * columns_.stride + columns_.first;
  for (int i = 0; i < n; ++i, row += columns_.stride) buf = std::copy_n(row, columns_.width, buf);
  return n * columns_.width;
}

void PairMLEnsemble::unpack_reverse_comm(int n, int *atoms, double *buf)
{
  for (int i = 0; i < n; ++i) {
    double *row = columns_.data + static_cast<std::size_t>(atoms[i]) * columns_.stride + columns_.first;
    for (int k = 0; k < columns_.width; ++k) row[k] += *buf++;
  }
}

void PairMLEnsemble::apply_forces(const AtomGraph &graph)
{
  for (std::int64_t n = 0; n < graph.n_local; ++n) {
    const int i = graph.atoms[n];
    for (int a = 0; a < 3; ++a) atom->f[i][a] += driving(member_forces(i) + a, 3);
  }
}

double PairMLEnsemble::memory_usage()
{
  return Pair::memory_usage() + system_->memory_usage() + static_cast<double>(sizeof(double) * forces_.capacity());
}
