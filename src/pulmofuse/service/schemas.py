"""The bodies of the API, as OpenAPI shows them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pulmofuse.service.forms import FILES

_RESEARCH = "Always true: not a medical device, and not for decisions about patients."


class ModelName(BaseModel):
    """Which model answered."""

    name: str = Field(description="Name of the study that it comes from.")
    bundle_sha256: str = Field(description="SHA-256 over all files of the bundle.")
    version: str = Field(description="Version of Pulmofuse.")


class RemarkBody(BaseModel):
    """What is odd about an upload that can be read."""

    modality: str
    code: str = Field(description="Which oddity, e.g. `lateral` or `burnt_in_text`.")
    text: str
    remedy: str


class QualityBody(BaseModel):
    """What the input gate says of an upload."""

    modality: str
    severity: str = Field(description="`refuse` where the model was not made for it, else `warn`.")
    code: str = Field(description="Which doubt, e.g. `too_small` or `unusual`.")
    text: str
    remedy: str


class Answer(BaseModel):
    """A prediction; a later version may add fields."""

    model_config = ConfigDict(extra="allow")

    id: str = Field(description="Find it again at /v1/predictions/{id}.")
    created: str = Field(description="UTC, ISO 8601.")
    model: ModelName
    subset: str = Field(description="The modalities that were used, e.g. `ct+cough`.")
    method: str = Field(description="How they were joined; `unimodal` for one.")
    probabilities: dict[str, float] = Field(description="Class -> probability; they sum to 1.")
    predicted: str = Field(description="The class at the study's operating point.")
    threshold: float | None = Field(description="On the positive class; null: the largest decides.")
    by_modality: dict[str, dict[str, float]] = Field(description="The same of each one by itself.")
    evidence: dict[str, float] = Field(
        description="Log-likelihood ratio that a modality adds for the positive (or predicted)"
        " class."
    )
    findings: dict[str, float] = Field(description="Finding -> probability, not calibrated.")
    attention: dict[str, list[float]] = Field(description="Weight of each slice or window.")
    warnings: list[str] = Field(description="What the study's audit found about these modalities.")
    left_out: str | None = Field(None, description="The modality that was sent and not used.")
    prevalence: float | None = Field(
        None, description="The prevalence asked for; null: the study's."
    )
    prediction_set: list[str] | None = Field(
        None, description="Classes that the patient may have; null: the study made no sets."
    )
    coverage: float | None = Field(
        None, description="Share of the patients of each class whose set holds the true one."
    )
    quality: list[QualityBody] = Field(description="What the input gate says; see docs/gate.md.")
    remarks: list[RemarkBody]
    explanations: Any | None = Field(None, description="With explain=true; never stored.")
    research_use_only: bool = Field(description=_RESEARCH)


class ModelBody(BaseModel):
    """What the service can do."""

    study: str
    question: str
    bundle_sha256: str
    version: str
    classes: list[str]
    positive: str | None
    modalities: list[str]
    methods: list[str]
    default_method: str
    explanations: bool = Field(description="Whether explain=true is answered.")
    limits: dict[str, float] = Field(description="Sizes in bytes, pixels and samples; times in s.")
    warnings: list[str] = Field(description="What the study's audit found.")
    research_use_only: bool = Field(description=_RESEARCH)


class Health(BaseModel):
    """Alive or ready."""

    status: str


def _file(text: str) -> dict[str, Any]:
    return {
        "type": "string", "contentMediaType": "application/octet-stream", "format": "binary",
        "description": text,
    }  # fmt: skip


PREDICT_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "additionalProperties": False,
                "anyOf": [{"required": [name]} for name in FILES],
                "properties": {
                    "ct": _file("A CT slice or volume: PNG, JPEG, TIFF, DICOM, NIfTI."),
                    "cxr": _file("A frontal chest X-ray: PNG, JPEG, TIFF, DICOM."),
                    "cough": _file("A cough recording: WAV, FLAC, OGG, MP3, WebM, M4A."),
                    "method": {
                        "type": "string",
                        "description": "How several modalities are joined; see /v1/model.",
                        "examples": ["log_odds"],
                    },
                    "leave_out": {
                        "type": "string", "enum": list(FILES),
                        "description": "A modality that was sent and shall not be used.",
                    },
                    "prevalence": {
                        "type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1,
                        "description": "Share of the positive class among those examined.",
                    },
                    "explain": {
                        "type": "string", "enum": ["true", "false"],
                        "description": "Whether to add explanations.",
                    },
                },
            }
        }
    },
}  # fmt: skip

IDEMPOTENCY_HEADER: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key with the same request gives the same answer, recorded once.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    "example": "0b0c7c2e-6f2d-4c0a-9f70-0f2d7f1c8a11",
}

ANSWER_EXAMPLE: dict[str, Any] = {
    "id": "3f0c4d0e8a5b4c55a6d1c9b5b0c7e9aa",
    "created": "2026-01-31T12:00:00.000+00:00",
    "model": {"name": "demo", "bundle_sha256": "9c1f" + 60 * "0", "version": "0.3.0"},
    "subset": "cxr+cough",
    "method": "log_odds",
    "probabilities": {"normal": 0.18, "covid19": 0.82},
    "predicted": "covid19",
    "threshold": 0.47,
    "by_modality": {
        "cxr": {"normal": 0.25, "covid19": 0.75},
        "cough": {"normal": 0.4, "covid19": 0.6},
    },
    "evidence": {"cxr": 1.1, "cough": 0.4},
    "findings": {},
    "attention": {},
    "warnings": [],
    "left_out": None,
    "prevalence": None,
    "prediction_set": ["covid19"],
    "coverage": 0.9,
    "quality": [
        {
            "modality": "cxr",
            "severity": "warn",
            "code": "burnt_in_text",
            "text": "letters in the pixels",
            "remedy": "use the original",
        }
    ],
    "remarks": [
        {
            "modality": "cxr",
            "code": "burnt_in_text",
            "text": "letters in the pixels",
            "remedy": "use the original",
        }
    ],
    "explanations": None,
    "research_use_only": True,
}
