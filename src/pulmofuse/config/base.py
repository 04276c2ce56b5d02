"""What all parts of the configuration tree share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Text = Annotated[str, Field(min_length=1)]
ClassName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


class Node(BaseModel):
    """A part of the tree: frozen, closed to unknown keys, and without infinite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _parts_keep_their_defaults(cls, given: Any) -> Any:
        """A part that is given in part keeps the other defaults that it has *here*.

        `ct.augmentation: {rotate_deg: 0}` must not turn mirroring off, which is on for CT alone.
        """
        if not isinstance(given, dict):
            return given
        filled = dict(given)
        for name, field in cls.model_fields.items():
            if isinstance(field.default, Node) and isinstance(given.get(name), dict):
                filled[name] = field.default.model_dump() | given[name]
        return filled
