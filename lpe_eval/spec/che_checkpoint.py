"""What a folder of encoders holds: one encoding, trained under one protocol, a file of weights for each task."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from lpe_eval.spec.che_spec import CheProtocol, ModelSelection
from lpe_eval.spec.encoding_spec import EncodingSpec
from lpe_eval.spec.model_spec import ModelSpec

CHE_CHECKPOINT_SCHEMA = 1


class TrainedTask(BaseModel):
    """One encoder, and how it was chosen among the runs of its training.

    Attributes:
        model: its shape.
        task_version: of the task file; 0 where there is none.
        run_index, seed, learning_rate: which run it is.
        steps: how long it was trained.
        in_range_accuracy: mean over the protocol's in-range lengths, of its weights in float32.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelSpec
    task_version: int
    run_index: int
    seed: int
    learning_rate: float
    steps: int
    in_range_accuracy: float | None


class CheCheckpointSpec(BaseModel):
    """`config.yaml` of a folder of encoders."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = Field(default=CHE_CHECKPOINT_SCHEMA, alias="schema")
    kind: Literal["che"] = "che"
    name: str
    encoding: EncodingSpec
    selection: ModelSelection
    protocol: CheProtocol
    tasks: dict[str, TrainedTask]
