// Models in TorchScript.

#include "model_backend.h"
#include "model_error.h"

#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/script.h>

using rareal::ModelBackend;
using rareal::ModelError;

namespace {

class ScriptBackend : public ModelBackend {
 public:
  explicit ScriptBackend(torch::jit::Module module) :
      module_(std::move(module)), forward_(module_.get_method("forward"))
  {
  }

  std::pair<at::Tensor, at::Tensor> forward(const at::Tensor &species, const at::Tensor &edges,
                                            const at::Tensor &vectors, std::int64_t n_local) override
  {
    // Every step has other shapes: specialising the graph to them costs more than it gains.
    torch::jit::GraphOptimizerEnabledGuard interpret_as_written(false);
    const auto results = forward_({species, edges, vectors, n_local}).toTuple();
    return {results->elements().at(0).toTensor().detach(), results->elements().at(1).toTensor().detach()};
  }

 private:
  torch::jit::Module module_;
  torch::jit::Method forward_;
};

}    // namespace

std::unique_ptr<ModelBackend> rareal::load_script(const std::string &path, c10::Device device)
{
  auto module = torch::jit::load(path, device);
  if (!module.find_method("forward")) throw ModelError("Model file '" + path + "' has no method 'forward'");
  module.eval();
  // Models may differentiate with respect to edge vectors; nobody asks for derivatives of the weights here.
  for (auto parameter : module.parameters()) parameter.set_requires_grad(false);
  return std::make_unique<ScriptBackend>(std::move(module));
}
