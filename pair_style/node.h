// The computer that a process runs on: which processes of the run share it, and its cores.

#ifndef RAREAL_NODE_H
#define RAREAL_NODE_H

#include <mpi.h>

namespace rareal {

struct Node {
  int processes = 1;    // of this run on this computer
  int rank = 0;         // this process among them
  int cores = 1;        // that this process may run on
  int own_cores = 1;    // its share of them, see cores_of_own()
};

/** All processes of `world` together. */
Node find_node(MPI_Comm world);

}    // namespace rareal

#endif
