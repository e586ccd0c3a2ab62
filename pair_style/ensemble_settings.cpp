#include "ensemble_settings.h"

#include "error.h"
#include "pointers.h"
#include "utils.h"

#include <algorithm>
#include <cmath>
#include <vector>

using namespace LAMMPS_NS;
using rareal::BiasSettings;
using rareal::DeviceChoice;
using rareal::EnsembleSettings;

double BiasSettings::energy(double variance) const
{
  if (form == LINEAR) return -strength * variance;
  if (form == GAUSSIAN) return strength * std::exp(-variance / (width * width));
  return 0.0;
}

double BiasSettings::slope(double variance) const
{
  if (form == LINEAR) return -strength;
  if (form == GAUSSIAN) return -energy(variance) / (width * width);
  return 0.0;
}

namespace {

/** Hands out the words of the command one by one. */
class Words : protected Pointers {
 public:
  Words(int narg, char **arg, LAMMPS *lmp) : Pointers(lmp), words_(arg, arg + narg) {}

  bool left() const { return next_ < words_.size(); }

  const std::string &keyword() { return keyword_ = words_[next_++]; }

  const std::string &value()
  {
    if (!left()) error->all(FLERR, "pair_style mlensemble keyword '{}' needs a value", keyword_);
    return words_[next_++];
  }

  double number(double lowest, const char *wanted)
  {
    const std::string &word = value();
    if (!utils::is_double(word)) refuse(wanted, word);
    const double given = utils::numeric(FLERR, word, false, lmp);
    if (!(given >= lowest)) refuse(wanted, word);
    return given;
  }

  double positive(const char *wanted) { return number(std::numeric_limits<double>::min(), wanted); }

  int integer(int lowest, const char *wanted)
  {
    const std::string &word = value();
    if (!utils::is_integer(word)) refuse(wanted, word);
    const int given = utils::inumeric(FLERR, word, false, lmp);
    if (given < lowest) refuse(wanted, word);
    return given;
  }

  bool yes_or_no()
  {
    const std::string &word = value();
    if (word != "yes" && word != "no") refuse("'yes' or 'no'", word);
    return word == "yes";
  }

  [[noreturn]] void refuse(const std::string &wanted, const std::string &word)
  {
    error->all(FLERR, "pair_style mlensemble {} is {}, not '{}'", keyword_, wanted, word);
  }

  [[noreturn]] void unknown(const std::string &known)
  {
    error->all(FLERR, "Unknown pair_style mlensemble keyword '{}'; known: {}", keyword_, known);
  }

 private:
  std::vector<std::string> words_;
  std::string keyword_;
  std::size_t next_ = 0;
};

void parse_drive(Words &words, EnsembleSettings &settings)
{
  const std::string &word = words.value();
  const bool number = !word.empty() && word.size() < 9 &&
      std::all_of(word.begin(), word.end(), [](unsigned char c) { return c >= '0' && c <= '9'; });
  settings.driver = number ? std::stoi(word) : 0;
  if (word != "mean" && settings.driver < 1) words.refuse("'mean' or the number of a member (1, 2, ...)", word);
}

void parse_device(Words &words, EnsembleSettings &settings)
{
  const std::string &word = words.value();
  if (word == "cpu")
    settings.device = DeviceChoice::CPU;
  else if (word == "cuda")
    settings.device = DeviceChoice::CUDA;
  else if (word == "auto")
    settings.device = DeviceChoice::AUTO;
  else
    words.refuse("'cpu', 'cuda' or 'auto'", word);
}

void parse_bias(Words &words, EnsembleSettings &settings)
{
  auto &bias = settings.bias;
  const std::string form = words.value();
  if (form == "none") {
    bias = {};
  } else if (form == "linear") {
    bias.form = BiasSettings::LINEAR;
    bias.strength = words.positive("'linear A' with a number A > 0");
  } else if (form == "gaussian") {
    bias.form = BiasSettings::GAUSSIAN;
    bias.strength = words.positive("'gaussian A B' with a number A > 0");
    bias.width = words.positive("'gaussian A B' with a number B > 0");
  } else {
    words.refuse("'none', 'linear A' or 'gaussian A B'", form);
  }
}

void parse_halt(Words &words, EnsembleSettings &settings)
{
  const std::string quantity = words.value();
  const char *wanted = "'energy' or 'force' and a number > 0";
  if (quantity == "energy")
    settings.halt.energy = words.positive(wanted);
  else if (quantity == "force")
    settings.halt.force = words.positive(wanted);
  else
    words.refuse(wanted, quantity);
}

struct Keyword {
  const char *name;
  void (*parse)(Words &, EnsembleSettings &);
  bool output;    // one that asks for the file of deviations
};

const Keyword keywords[] = {
    {"drive", parse_drive, false},
    {"device", parse_device, false},
    {"ddof",
     [](Words &w, EnsembleSettings &s) {
       if ((s.ddof = w.integer(0, "0 or 1")) > 1) w.refuse("0 or 1", std::to_string(s.ddof));
     },
     false},
    {"scale", [](Words &w, EnsembleSettings &s) { s.scale = w.positive("a number > 0"); }, false},
    {"bias", parse_bias, false},
    {"halt", parse_halt, false},
    {"patience", [](Words &w, EnsembleSettings &s) { s.halt.patience = w.integer(1, "a number of steps"); }, false},
    {"halt_file", [](Words &w, EnsembleSettings &s) { s.halt.file = w.value(); }, false},
    {"out_file", [](Words &w, EnsembleSettings &s) { s.output.file = w.value(); }, true},
    {"out_freq", [](Words &w, EnsembleSettings &s) { s.output.every = w.integer(0, "a number of steps"); }, true},
    {"out_append", [](Words &w, EnsembleSettings &s) { s.output.append = w.yes_or_no(); }, true},
    {"out_energy", [](Words &w, EnsembleSettings &s) { s.output.energy = w.yes_or_no(); }, true},
    {"atomic", [](Words &, EnsembleSettings &s) { s.output.atomic = true; }, true},
    {"relative", [](Words &w, EnsembleSettings &s) { s.output.relative = w.number(0.0, "a force >= 0"); }, true},
    {"relative_v", [](Words &w, EnsembleSettings &s) { s.output.relative_virial = w.number(0.0, "an energy >= 0"); },
     true},
};

}    // namespace

EnsembleSettings rareal::parse_settings(int narg, char **arg, LAMMPS *lmp)
{
  constexpr std::int64_t default_every = 100;    // DeePMD-kit's
  EnsembleSettings settings;
  settings.output.every = -1;
  bool output = false, patience = false;
  Words words(narg, arg, lmp);
  while (words.left()) {
    const std::string &word = words.keyword();
    const auto keyword = std::find_if(std::begin(keywords), std::end(keywords),
                                      [&word](const Keyword &known) { return word == known.name; });
    if (keyword == std::end(keywords)) {
      std::string names;
      for (const auto &known : keywords) names.append(names.empty() ? "" : " ").append(known.name);
      words.unknown(names);
    }
    keyword->parse(words, settings);
    output |= keyword->output;
    patience |= word == "patience" || word == "halt_file";
  }
  if (patience && !settings.halt.active())
    lmp->error->all(FLERR, "pair_style mlensemble keywords 'patience' and 'halt_file' need the keyword 'halt'");
  if (settings.output.every < 0) settings.output.every = output ? default_every : 0;
  return settings;
}
