// Entry point of the plugin: LAMMPS looks up lammpsplugin_init() and hands it a function that registers styles.

#include "lammps.h"
#include "pair_mlensemble.h"

namespace {

// LAMMPS's plugin interface (its lammpsplugin.h, which binary packages leave out), reproduced field by field.
extern "C" {
struct PluginStyle {
  const char *version;
  const char *style;
  const char *name;
  const char *info;
  const char *author;
  LAMMPS_NS::Pair *(*creator)(LAMMPS_NS::LAMMPS *);
  void *handle;
};
using RegisterStyle = void (*)(PluginStyle *, void *);
}

LAMMPS_NS::Pair *create_pair(LAMMPS_NS::LAMMPS *lmp) { return new LAMMPS_NS::PairMLEnsemble(lmp); }

}    // namespace

extern "C" void lammpsplugin_init(void *lmp, void *handle, void *register_style)
{
  // LAMMPS copies the struct; the version is the running one's, because the headers carry none to compare with.
  PluginStyle plugin{static_cast<LAMMPS_NS::LAMMPS *>(lmp)->version,
                     "pair",
                     "mlensemble",
                     "pair style mlensemble: committee of machine-learning potentials",
                     "the rareal developers",
                     &create_pair,
                     handle};
  reinterpret_cast<RegisterStyle>(register_style)(&plugin, lmp);
}
