"""Sites of records as numbers, for the losses and samplers that ask for them."""

from __future__ import annotations

import pandas as pd

from pulmofuse.pipeline.models import site_codes


def test_a_data_set_stands_in_where_no_site_is_known() -> None:
    records = pd.DataFrame(
        {"source": ["a", "a", "a", "b", "b"], "site": ["x", None, "x", "x", None]}
    )
    first, second, third, fourth, fifth = site_codes(records)
    assert first == third
    assert len({first, second, fourth, fifth}) == 4
