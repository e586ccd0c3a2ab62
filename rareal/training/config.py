"""How a committee is trained: the section of the YAML. Nothing heavy is imported here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from rareal.schema import Section
from rareal.units import Bytes, Energy, Force, Seconds


class RareEvents(Section):
    """Equation 3 of the rare-events paper."""

    kind: Literal["rare-events"] = "rare-events"
    energy_weight: float = Field(1.0, ge=0, description="Weight of the energy term (1 in the paper).")
    force_weight: float = Field(1.0, ge=0, description="Weight alpha of the force term (0.1 in the paper).")


class SchNet(Section):
    """Equation 4 of the rare-events paper."""

    kind: Literal["schnet"] = "schnet"
    rho: float = Field(0.1, ge=0, le=1, description="Weight of the energy; 1 - rho is that of the forces.")


class Batch(Section):
    """Equation 5 of the batch-active-learning paper."""

    kind: Literal["batch"] = "batch"
    energy_weight: float = Field(1.0, ge=0, description="lambda_E (1 in the paper).")
    force_weight: float = Field(12.0, ge=0, description="lambda_F over the number of atoms, Å² (12 in the paper).")


class Huber(Section):
    """Quadratic for small errors, linear for large ones."""

    kind: Literal["huber"] = "huber"
    energy_weight: float = Field(100.0, ge=0, description="Weight of the energy per atom, Å⁻².")
    force_weight: float = Field(1.0, ge=0, description="Weight of the mean over force components.")
    energy_delta: Energy = Field(0.01, gt=0, description="Error per atom from which the loss is linear, eV.")
    force_delta: Force = Field(0.1, gt=0, description="Error of a component from which the loss is linear, eV/Å.")


class Soften(Section):
    """Labels that cannot be right get little weight; see `rareal.training.outliers`."""

    kind: Literal["soften"] = "soften"
    energy: Energy = Field(20.0, gt=0, description="Distance from the data's centre that any frame may have, eV.")
    energy_per_atom: Energy = Field(0.2, ge=0, description="What every atom adds to that distance, eV.")
    force: Force = Field(30.0, gt=0, description="Largest force on an atom that keeps a frame's full weight, eV/Å.")


class TrustAll(Section):
    """Every label counts as it is."""

    kind: Literal["off"] = "off"


class Cosine(Section):
    """Linear warm-up, then half a cosine down to the final rate."""

    kind: Literal["cosine"] = "cosine"
    warmup: float = Field(0.05, ge=0, lt=1, description="Fraction of the steps in which the rate rises to its peak.")
    final: float = Field(1e-5, gt=0, description="Learning rate at the end.")


class OneCycle(Section):
    """Half a cosine up to the peak and half a cosine down (Smith and Topin 2018)."""

    kind: Literal["onecycle"] = "onecycle"
    rise: float = Field(0.3, gt=0, lt=1, description="Fraction of the steps in which the rate rises.")
    start: float = Field(0.04, gt=0, le=1, description="The first learning rate, as a fraction of the peak.")
    final: float = Field(1e-6, gt=0, description="Learning rate at the end.")


class Plateau(Section):
    """Lower the rate where the validation no longer improves (rare-events paper, 2.3.5)."""

    kind: Literal["plateau"] = "plateau"
    factor: float = Field(0.8, gt=0, lt=1, description="What the rate is multiplied by.")
    patience: int = Field(5, ge=0, description="Validations without improvement that are waited for.")
    final: float = Field(1e-6, gt=0, description="Smallest learning rate; training ends when it is reached.")


class Constant(Section):
    """The same learning rate throughout."""

    kind: Literal["constant"] = "constant"


class Recovery(Section):
    """What is done when training diverges: back to the best epoch, with a lower learning rate."""

    attempts: int = Field(3, ge=0, description="How often; training that diverges once more is an error.")
    factor: float = Field(0.5, gt=0, lt=1, description="What the learning rate is multiplied by each time.")
    divergence: float = Field(
        10.0,
        gt=1,
        description="An epoch has diverged if its loss is not finite, or so many times that of the first epoch and of "
        "predicting zero forces and the mean energy.",
    )


def _of_kind(*kinds: type[Section]) -> BeforeValidator:
    """A section of one of several kinds, the first by default; its bare name stands for it with all defaults."""
    names = [str(kind.model_fields["kind"].default) for kind in kinds]

    def expand(value: Any) -> Any:
        if value is False:  # YAML reads a bare `off` so
            value = "off"
        if isinstance(value, str):
            value = {"kind": value}
        if isinstance(value, dict):
            value = {"kind": names[0], **value}
            if value["kind"] not in names:
                raise ValueError(f"there is no kind '{value['kind']}'; use {', '.join(names)}")
        return value

    return BeforeValidator(expand)


LossConfig = RareEvents | SchNet | Batch | Huber
OutlierConfig = Soften | TrustAll
Criterion = Literal["root_loss", "loss", "energy"]
ScheduleConfig = Cosine | OneCycle | Plateau | Constant


class Config(Section):
    """How the committee is trained: always on all labels, so that nothing learnt in earlier rounds is forgotten."""

    kind: Literal["committee"] = "committee"
    members: int = Field(4, ge=2, description="Members of the committee; a committee of one knows no disagreement.")
    epochs: int = Field(80, ge=1, description="Epochs per round.")
    round_epochs: int | None = Field(None, ge=1, description="Epochs of every round but the first; as that if empty.")
    batch_size: int = Field(16, ge=1, description="Frames per mini-batch.")
    loss: Annotated[LossConfig, Field(discriminator="kind"), _of_kind(RareEvents, SchNet, Batch, Huber)] = Field(
        RareEvents.model_validate({}), description="What is minimised: rare-events, schnet, batch or huber."
    )
    outliers: Annotated[OutlierConfig, Field(discriminator="kind"), _of_kind(Soften, TrustAll)] = Field(
        Soften.model_validate({}),
        description="What labels that cannot be right may do: soften (little), or off (everything).",
    )
    optimizer: Literal["muon", "adamw", "amsgrad"] = Field(
        "muon", description="Muon orthogonalises the updates of weight matrices; AdamW is what the paper used."
    )
    keep_optimizer: bool = Field(False, description="Start with the optimizer's state of the round before.")
    reset_optimizer: int = Field(
        0, ge=0, description="Validations without improvement after which the optimizer forgets its state; 0 never."
    )
    learning_rate: float = Field(4e-3, gt=0, description="Peak learning rate; for adamw take 0.001.")
    schedule: Annotated[ScheduleConfig, Field(discriminator="kind"), _of_kind(Cosine, OneCycle, Plateau, Constant)] = (
        Field(
            Cosine.model_validate({}), description="How the learning rate goes: cosine, onecycle, plateau or constant."
        )
    )
    weight_decay: float = Field(1e-6, ge=0, description="Decoupled weight decay.")
    averaging: float = Field(
        0.99, ge=0, lt=1, description="Decay of the moving average of the weights; 0 switches it off."
    )
    validate_every: int = Field(5, ge=1, description="Epochs between validations; the best one's weights are kept.")
    patience: int = Field(
        0, ge=0, description="Validations without improvement of any member after which training stops; 0 never."
    )
    best: Criterion = Field(
        "root_loss",
        description="What the best epoch minimises on the validation set: root_loss (mean of the frames' root losses, "
        "where one frame weighs less), loss (mean loss), or energy (mean square of the energy, as in the paper).",
    )
    recovery: Recovery = Field(Recovery.model_validate({}), description="What is done when training diverges.")
    warm_start: bool = Field(True, description="Start from the previous round's weights; false trains from scratch.")
    checkpoint_every: Seconds = Field(60.0, ge=0, description="Time between checkpoints to go on from, s.")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="Where it is trained: cpu, cuda, cuda:1, ...; auto takes a GPU if there is one.",
    )
    memory: Bytes = Field(
        4e9, gt=0, description="Memory for what is computed once per frame, e.g. 8 GB; the rest is computed as needed."
    )
    threads: int = Field(0, ge=0, description="Threads of the training; 0 takes the cores there are.")

    @model_validator(mode="after")
    def _optimizer_and_weights_go_together(self) -> Config:
        if self.keep_optimizer and not self.warm_start:
            raise ValueError("keep_optimizer needs warm_start: the optimizer's state belongs to the weights it moved")
        return self
