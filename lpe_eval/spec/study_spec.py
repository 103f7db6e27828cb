"""A study: many trainings that share everything but the encoding and the seed."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lpe_eval.spec.encoding_spec import EncodingSpec
from lpe_eval.spec.train_spec import TrainSpec

_VARIED = ("kind", "name", "seed")


class StudySpec(BaseModel):
    """Trains one model for each encoding by one recipe.

    Attributes:
        kind: `study`.
        name: what the study is called.
        recipe: fields of a `TrainSpec` without kind, name and seed; its `model` lacks the encoding.
        on_cpu: fields of the recipe that are different where there is no GPU, so that it ends at all.
        encodings: what is compared, by the name that each model gets.
        seed: the seed of every model.
        further_seeds: more seeds for some of them; their models are called `NAME-seed2`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["study"] = "study"
    name: str = Field(min_length=1)
    recipe: dict[str, Any]
    on_cpu: dict[str, Any] = {}
    encodings: dict[str, EncodingSpec] = Field(min_length=1)
    seed: int = 1
    further_seeds: dict[str, tuple[int, ...]] = {}

    @model_validator(mode="after")
    def _every_training_is_one(self) -> "StudySpec":
        fixed = [key for key in (*self.recipe, *self.on_cpu) if key in _VARIED]
        if fixed:
            raise ValueError(f"the recipe of a study cannot set {fixed[0]!r}; the study itself does")
        strangers = sorted(set(self.further_seeds) - set(self.encodings))
        if strangers:
            raise ValueError(f"further_seeds names {strangers[0]!r}, which is not among the encodings")
        for name, seeds in self.further_seeds.items():
            if self.seed in seeds or len(set(seeds)) < len(seeds):
                raise ValueError(f"further_seeds of {name!r} holds a seed twice, or the study's own seed {self.seed}")
        for on_gpu in (True, False):
            self.trainings(on_gpu)
        return self

    def trainings(self, on_gpu: bool) -> list[TrainSpec]:
        """Every training, all encodings with the study's seed first."""
        fields = self.recipe if on_gpu else {**self.recipe, **self.on_cpu}
        shape = fields.get("model", {})
        plan = [(name, name, self.seed) for name in self.encodings]
        plan += [(f"{name}-seed{seed}", name, seed) for name, seeds in self.further_seeds.items() for seed in seeds]
        return [
            TrainSpec.model_validate(
                {**fields, "name": name, "seed": seed, "model": {**shape, "encoding": self.encodings[of].model_dump()}}
            )
            for name, of, seed in plan
        ]
