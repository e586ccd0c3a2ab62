// LAMMPS adapter, set-up: settings, coefficients, checks. Steps are in pair_mlensemble_compute.cpp.

#include "pair_mlensemble.h"

#include "committee_statistics.h"
#include "deviation_file.h"
#include "ensemble_model.h"
#include "halt.h"
#include "lammps_system.h"
#include "node.h"

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

namespace {

std::string join(const std::vector<std::string> &words)
{
  std::string text;
  for (const auto &word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

}    // namespace

PairMLEnsemble::PairMLEnsemble(LAMMPS *lmp) : Pair(lmp), system_(std::make_unique<rareal::LammpsSystem>(lmp)), extra_{}
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
  // Should this fail in a program that goes on, the model and the types of before must not be taken together.
  for (int i = 1; i <= atom->ntypes; ++i) std::fill_n(setflag[i], atom->ntypes + 1, 0);
  const std::string path = utils::get_potential_file_path(arg[2]);
  load_model(path.empty() ? arg[2] : path);
  map_types(narg, arg);
}

void PairMLEnsemble::load_model(const std::string &path)
{
  evaluated_ = false;
  halt_.reset();                                  // it knows the elements of the atom types
  const int rank_on_node = use_threads().rank;    // before PyTorch makes as many as there are cores
  std::string message;
  try {
    model_ = std::make_unique<rareal::EnsembleModel>(path, settings_.device, rank_on_node);
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
  model_device_ = settings_.device;
  members_ = model_->metadata().members;
  if (members_ == 1 && comm->me == 0)
    error->warning(FLERR, "'{}' has one member: its standard deviations are zero and mean nothing", path);
}

void PairMLEnsemble::map_types(int narg, char **arg)
{
  const auto &metadata = model_->metadata();
  const int given = narg - 3;
  if (given != atom->ntypes)
    error->all(FLERR,
               "pair_coeff for mlensemble names {} elements, but there are {} atom types: name one per type, "
               "or NULL for types that other styles of pair_style hybrid treat",
               given, atom->ntypes);

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
  system_->forget();
  std_factor_ = settings_.scale * std::sqrt(static_cast<double>(members_) / (members_ - settings_.ddof));
  if (settings_.halt.active() && !halt_) halt_ = std::make_unique<rareal::Halt>(lmp, settings_.halt, type_names_);
  if (settings_.device != model_device_) load_model(model_file_);    // pair_style came again without pair_coeff
  log_resources(use_threads());
  if (model_->metadata().layers > 1) {
    reach_ghosts();
    neighbor->add_request(this, NeighConst::REQ_FULL | NeighConst::REQ_GHOST);
  } else {
    neighbor->add_request(this, NeighConst::REQ_FULL);
  }
}

/** PyTorch gets LAMMPS's number of threads, but not more than the processes of a node have cores. */
rareal::Node PairMLEnsemble::use_threads()
{
  const auto node = rareal::find_node(world);
  rareal::EnsembleModel::set_threads(rareal::threads_of(comm->nthreads, node.own_cores));
  return node;
}

/** What is used, once on the first process and again when it changes. */
void PairMLEnsemble::log_resources(const rareal::Node &node)
{
  const int wanted = comm->nthreads, threads = rareal::threads_of(wanted, node.own_cores);
  const auto many = [](const char *ending, int count) { return count > 1 ? ending : ""; };
  auto text = fmt::format("pair_style mlensemble: {}, {} thread{} per process", model_->description(), threads,
                          many("s", threads));
  if (threads < wanted)
    text += fmt::format(" instead of {}: {} process{} on {} core{}", wanted, node.processes, many("es", node.processes),
                        node.cores, many("s", node.cores));
  if (comm->me == 0 && text != resources_) utils::logmesg(lmp, "{}\n", text);
  resources_ = text;
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
        error->all(FLERR,
                   "pair_style mlensemble needs all pairs, but special_bonds scales 1-{} neighbors by {}: "
                   "use special_bonds lj/coul 1 1 1, or delete the bonds",
                   k + 1, force->special_lj[k]);
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
