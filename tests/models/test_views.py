"""Test-time views: which ones there are, and that a model averages over them when it predicts."""

from __future__ import annotations

import pytest
import torch

from pulmofuse.config import CtConfig, CtModelConfig, CxrConfig, CxrModelConfig, TestTimeViews
from pulmofuse.models import build_ct_model, build_cxr_model, frozen
from pulmofuse.models.views import views_of, zoomed

VIEWS = TestTimeViews(flip_horizontal=True, zooms=(1.25, 1.0))
CT, CXR = (model(backbone="resnet18", weights="none") for model in (CtModelConfig, CxrModelConfig))


def image() -> torch.Tensor:
    return torch.rand(2, 1, 40, 40, generator=torch.Generator().manual_seed(3))


def test_a_zoom_shows_the_middle_larger_or_the_whole_smaller() -> None:
    ramp = torch.arange(-19.5, 20.0).expand(1, 1, 40, 40)
    torch.testing.assert_close(zoomed(ramp, 2.0), ramp / 2)
    torch.testing.assert_close(zoomed(ramp, 0.5), (ramp * 2).clamp(-19.5, 19.5))


def test_the_plain_view_comes_first_and_mirrors_follow_theirs() -> None:
    x = image()
    views = list(views_of(x, VIEWS))
    assert len(views) == 4
    assert torch.equal(views[0], x)
    assert torch.equal(views[1], x.flip(3))
    assert torch.equal(views[2], zoomed(x, 1.25))
    assert torch.equal(views[3], zoomed(x, 1.25).flip(3))


@pytest.mark.parametrize("zooms", [(), (0.9, 1.1), (1.0, 1.0), (1.0, 3.0)])
def test_zooms_without_the_plain_view_or_beyond_reason_are_refused(zooms: tuple[float]) -> None:
    with pytest.raises(ValueError, match=r"zooms"):
        TestTimeViews(zooms=zooms)


@pytest.mark.parametrize("modality", ["ct", "cxr"])
@torch.no_grad()
def test_logits_are_the_mean_over_the_views(modality: str) -> None:
    torch.manual_seed(0)
    if modality == "ct":
        model = build_ct_model(CtConfig(model=CT, tta=VIEWS), 3)
        plain = build_ct_model(CtConfig(model=CT), 3)
    else:
        model = build_cxr_model(CxrConfig(model=CXR, tta=VIEWS), 3)
        plain = build_cxr_model(CxrConfig(model=CXR), 3)
    plain.load_state_dict(model.state_dict())
    model.eval(), plain.eval()
    x = image()
    expected = torch.stack([plain(view) for view in views_of(x, VIEWS)]).mean(dim=0)
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(frozen(model)(x), expected, rtol=1e-3, atol=1e-4)
    assert torch.equal(model.feature_map(x), plain.feature_map(x))


def test_training_sees_the_image_alone() -> None:
    model = build_ct_model(CtConfig(model=CT, tta=VIEWS), 3).train()
    assert len(list(model.views(image()))) == 1
