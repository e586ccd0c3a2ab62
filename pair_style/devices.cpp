#include "devices.h"

#include "model_error.h"

#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <torch/version.h>

#include <dlfcn.h>

#include <filesystem>
#include <string>

using rareal::DeviceChoice;
using rareal::ModelError;

namespace {

struct Gpus {
  int count = 0;
  std::string missing;    // why there are none
};

/** The plugin is not linked against PyTorch's CUDA library, which half of all installations do not have. */
Gpus find_gpus()
{
  Dl_info torch_cpu{};
  if (!dladdr(reinterpret_cast<const void *>(&at::globalContext), &torch_cpu))
    return {0, "PyTorch's libraries cannot be found"};
  const auto library = std::filesystem::path(torch_cpu.dli_fname).parent_path() / "libtorch_cuda.so";
  std::error_code ignored;
  if (!std::filesystem::exists(library, ignored))
    return {0, std::string("this PyTorch ") + TORCH_VERSION + " was built without CUDA"};
  if (!dlopen("libcuda.so.1", RTLD_LAZY | RTLD_GLOBAL)) return {0, "there is no CUDA driver (libcuda.so.1)"};
  if (!dlopen(library.c_str(), RTLD_NOW | RTLD_GLOBAL)) {
    const char *reason = dlerror();
    return {0, std::string("PyTorch's CUDA library cannot be loaded: ") + (reason ? reason : "unknown reason")};
  }
  const int count = at::hasCUDA() ? at::detail::getCUDAHooks().deviceCount() : 0;
  return {count, "CUDA sees no GPU"};
}

}    // namespace

c10::Device rareal::find_device(DeviceChoice choice, int rank_on_node)
{
  if (choice == DeviceChoice::CPU) return c10::Device(c10::kCPU);
  static const Gpus gpus = find_gpus();
  if (gpus.count > 0) return c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(gpu_of(rank_on_node, gpus.count)));
  if (choice == DeviceChoice::AUTO) return c10::Device(c10::kCPU);
  throw ModelError("pair_style mlensemble device is cuda, but " + gpus.missing);
}
