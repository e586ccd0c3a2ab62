"""The contract of a model, as tests that its own test file inherits.

A new architecture, rareal's or anyone's, is tested by a file like ::

    import pytest
    from rareal.testing.models import ModelContract
    from mypackage import mymodel

    class TestMyModel(ModelContract):
        @pytest.fixture
        def build(self):
            return lambda elements, seeds: mymodel.build(mymodel.Config(), elements, seeds)

which runs with ``pytest``. Choose sizes so small that the class takes seconds. The tests evaluate the model in both of
its forms, as it is trained (`rareal.protocols.Model`) and as it is exported (the model file, in Python and in LAMMPS),
and compare these with finite differences of the energy, with each other, and with what symmetry demands.
"""

from __future__ import annotations

import pytest

# before they are imported: failures shall show the values that were compared
pytest.register_assert_rewrite("rareal.testing.exported", "rareal.testing.trained")

from rareal.testing.exported import ExportedContract  # noqa: E402
from rareal.testing.modelbase import Build  # noqa: E402
from rareal.testing.trained import TrainedContract  # noqa: E402

__all__ = ["Build", "ModelContract"]


class ModelContract(TrainedContract, ExportedContract):
    """All tests that every model passes; subclasses give the fixture `build` and may relax the attributes.

    Attributes
    ----------
    elements : the model is built for these; at least two.
    training_dtype : what the model is trained in here; ``torch.float32`` for a model that knows no double precision,
        which makes the finite differences of training coarse.
    single_precision : largest error that float32 may make, in units of the largest force or energy.
    rounding : how much members of equal weights may disagree in float32 and float64, in the same units. Nothing at
        all by default. In a batched matrix product members round alike only if the matrices of all begin at the same
        alignment (64 bytes), that is, if layers are as wide as a multiple of 16.
    """
