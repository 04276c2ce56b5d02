"""X-rays: counting stored levels is sorting pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pulmofuse.config import CxrPreprocessing
from pulmofuse.errors import UnreadableFile
from pulmofuse.io import Image
from pulmofuse.preprocessing.images import prepare_cxr


@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(32, 50), st.integers(32, 50))),
    st.floats(0, 10),
    st.floats(90, 100),
)
def test_an_8_bit_x_ray_is_stretched_as_its_sorted_pixels_would_be(
    levels: npt.NDArray[np.uint8], low: float, high: float
) -> None:
    # Without its levels an image is sorted, by numpy's percentiles.
    pixels = levels.astype(np.float32)[None] / np.float32(255)
    config = CxrPreprocessing(size=40, low_percentile=low, high_percentile=high)

    def prepared(image: Image) -> object:
        try:
            return prepare_cxr(image, config, "x")[0].tolist()
        except UnreadableFile as error:
            return str(error)

    counted = prepared(Image(pixels, False, {}, levels[None]))
    assert counted == prepared(Image(pixels, False, {}))
