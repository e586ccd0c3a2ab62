#include "node.h"

#include "resource_policy.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

using rareal::Node;

namespace {

constexpr int core_limit = 8192;    // of Linux

/** 1 for every core that this process may run on. */
std::vector<int> allowed_cores()
{
  std::vector<int> allowed(core_limit, 0);
  const std::size_t size = CPU_ALLOC_SIZE(core_limit);
  cpu_set_t *set = CPU_ALLOC(core_limit);
  CPU_ZERO_S(size, set);
  if (set && sched_getaffinity(0, size, set) == 0)
    for (int core = 0; core < core_limit; ++core) allowed[core] = CPU_ISSET_S(core, size, set) ? 1 : 0;
  else
    std::fill_n(allowed.begin(), std::max(1L, sysconf(_SC_NPROCESSORS_ONLN)), 1);
  CPU_FREE(set);
  return allowed;
}

}    // namespace

Node rareal::find_node(MPI_Comm world)
{
  MPI_Comm shared;
  MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &shared);
  Node node;
  MPI_Comm_size(shared, &node.processes);
  MPI_Comm_rank(shared, &node.rank);

  const std::vector<int> allowed = allowed_cores();
  std::vector<int> processes(allowed.size(), 0), sharers;
  MPI_Allreduce(allowed.data(), processes.data(), core_limit, MPI_INT, MPI_SUM, shared);
  MPI_Comm_free(&shared);
  for (int core = 0; core < core_limit; ++core)
    if (allowed[core]) sharers.push_back(processes[core]);
  node.cores = static_cast<int>(sharers.size());
  node.own_cores = cores_of_own(sharers);
  return node;
}
