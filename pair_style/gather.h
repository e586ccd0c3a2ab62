// Rows of per-atom values from all processes on the first one.

#ifndef RAREAL_GATHER_H
#define RAREAL_GATHER_H

#include <mpi.h>

#include <vector>

namespace rareal {

/** Rows of `width` values, sorted by their first one, an atom's id. All processes call; only the first gets rows. */
std::vector<double> gather_rows(const std::vector<double> &rows, int width, MPI_Comm world);

}    // namespace rareal

#endif
