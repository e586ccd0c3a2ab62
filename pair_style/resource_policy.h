// Who gets which GPU and how many threads: rules without MPI, PyTorch or LAMMPS, so that they can be tested anywhere.

#ifndef RAREAL_RESOURCE_POLICY_H
#define RAREAL_RESOURCE_POLICY_H

#include <algorithm>
#include <vector>

namespace rareal {

enum class DeviceChoice { CPU, CUDA, AUTO };

/** GPUs are dealt out in turn to the processes of a node. */
inline int gpu_of(int rank_on_node, int gpus) { return rank_on_node % gpus; }

/** Whole cores that are a process's own; sharers[c]: processes, itself among them, that may run on its c-th core.
 *
 * Processes that are bound to different cores have them all; those that may run anywhere share evenly.
 */
inline int cores_of_own(const std::vector<int> &sharers)
{
  double share = 1e-9;    // thirds add up to one
  for (const int processes : sharers) share += 1.0 / std::max(1, processes);
  return std::max(1, static_cast<int>(share));
}

/** What was asked for, but never more than there is. */
inline int threads_of(int wanted, int own_cores) { return std::max(1, std::min(wanted, own_cores)); }

}    // namespace rareal

#endif
