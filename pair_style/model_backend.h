// What evaluates a committee: TorchScript or a package of AOTInductor, told apart by what is in the file.

#ifndef RAREAL_MODEL_BACKEND_H
#define RAREAL_MODEL_BACKEND_H

#include "model_metadata.h"

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

namespace rareal {

class ModelBackend {
 public:
  virtual ~ModelBackend() = default;

  /** species int64 [N], edges int64 [2, P], vectors [P, 3] in the model's precision, all on its device, to
   * atomic energies [M, n_local] and gradients [M, P, 3].
   */
  virtual std::pair<at::Tensor, at::Tensor> forward(const at::Tensor &species, const at::Tensor &edges,
                                                    const at::Tensor &vectors, std::int64_t n_local) = 0;
};

/** Raise ModelError, or what PyTorch raises. */
std::unique_ptr<ModelBackend> load_script(const std::string &path, c10::Device device);
std::unique_ptr<ModelBackend> load_package(const std::string &path, const ModelMetadata &metadata, c10::Device device);

}    // namespace rareal

#endif
