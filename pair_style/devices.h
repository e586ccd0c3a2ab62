// Where a model is evaluated: the processor, or a GPU that PyTorch can use.

#ifndef RAREAL_DEVICES_H
#define RAREAL_DEVICES_H

#include "resource_policy.h"

#include <c10/core/Device.h>

namespace rareal {

/** The device for a process. PyTorch's CUDA library is loaded only where a GPU is wanted and there is a driver.
 *
 * Raises ModelError where CUDA is demanded and cannot be had, with the reason.
 */
c10::Device find_device(DeviceChoice choice, int rank_on_node);

}    // namespace rareal

#endif
