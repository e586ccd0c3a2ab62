#include "gather.h"

#include <algorithm>
#include <numeric>

std::vector<double> rareal::gather_rows(const std::vector<double> &rows, int width, MPI_Comm world)
{
  int me = 0, processes = 1;
  MPI_Comm_rank(world, &me);
  MPI_Comm_size(world, &processes);

  // Counted in rows, so that the counts fit their int type as long as the number of atoms does.
  MPI_Datatype row_type;
  MPI_Type_contiguous(width, MPI_DOUBLE, &row_type);
  MPI_Type_commit(&row_type);
  const int own = static_cast<int>(rows.size() / width);
  std::vector<int> counts(processes), offsets(processes);
  MPI_Gather(&own, 1, MPI_INT, counts.data(), 1, MPI_INT, 0, world);
  std::exclusive_scan(counts.begin(), counts.end(), offsets.begin(), 0);
  const std::size_t total = me == 0 ? std::accumulate(counts.begin(), counts.end(), std::size_t{0}) : 0;
  std::vector<double> all(total * width);
  MPI_Gatherv(rows.data(), own, row_type, all.data(), counts.data(), offsets.data(), row_type, 0, world);
  MPI_Type_free(&row_type);

  std::vector<std::size_t> order(total);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return all[a * width] < all[b * width]; });
  std::vector<double> sorted;
  sorted.reserve(all.size());
  for (const auto row : order) sorted.insert(sorted.end(), &all[row * width], &all[row * width] + width);
  return sorted;
}
