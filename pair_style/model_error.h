#ifndef RAREAL_MODEL_ERROR_H
#define RAREAL_MODEL_ERROR_H

#include <stdexcept>

namespace rareal {

/** A model file that cannot be used, or a model that fails; the message names the file. */
class ModelError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

}    // namespace rareal

#endif
