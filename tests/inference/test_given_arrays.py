"""Arrays and decoded files are predicted from as the files themselves are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pulmofuse.errors import InputRefused, UnreadableFile
from pulmofuse.inference import Predictor
from pulmofuse.io import image_from_array, read_image, read_sound
from tests.untrained import Untrained, make_untrained


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Untrained:
    return make_untrained(tmp_path_factory.mktemp("arrays"))


@pytest.fixture(scope="module")
def predictor(untrained: Untrained) -> Predictor:
    return Predictor.load(untrained.study / "bundle", runtime="torch")


@pytest.fixture(scope="module")
def files(untrained: Untrained) -> dict[str, Path]:
    patient = untrained.manifest["patient_id"].iloc[0]
    own = untrained.manifest[untrained.manifest["patient_id"] == patient]
    return {str(m): untrained.data / p for m, p in zip(own["modality"], own["path"], strict=True)}


def test_arrays_give_what_their_files_give(predictor: Predictor, files: dict[str, Path]) -> None:
    expected = predictor.predict(**files).probabilities
    cxr, sound = read_image(files["cxr"]), read_sound(files["cough"])
    ct = read_image(files["ct"])
    decoded = predictor.predict(ct=ct, cxr=cxr, cough=sound)
    assert decoded.probabilities == expected
    assert cxr.levels is not None
    arrays = predictor.predict(
        ct=image_from_array(ct.pixels, hounsfield=ct.hounsfield),
        cxr=cxr.levels[0],
        cough=(sound.samples, sound.sample_rate_hz),
        gate="off",
    )
    for name, p in arrays.probabilities.items():
        assert p == pytest.approx(expected[name], abs=1e-6)


def test_a_cough_array_needs_its_sample_rate(predictor: Predictor) -> None:
    with pytest.raises(InputRefused, match=r"without a sample rate\. Give \(samples"):
        predictor.predict(cough=np.ones(16_000))  # type: ignore[arg-type]


def test_an_array_that_is_no_image_is_refused_with_a_remedy(predictor: Predictor) -> None:
    with pytest.raises(UnreadableFile, match="blank"):
        predictor.predict(cxr=np.zeros((224, 224), np.uint8))
