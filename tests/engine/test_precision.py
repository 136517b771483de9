"""Mixed precision: on CPU in training only, and taken up where a run changes its device."""

from __future__ import annotations

import pytest
import torch

from lung_d2.engine.precision import ScaledStep, build_step, cpu_has_bfloat16


@pytest.mark.parametrize("mixed", [True, False])
def test_training_computes_in_bfloat16_where_it_pays_and_evaluation_never(mixed: bool) -> None:
    model = torch.nn.Linear(2, 2)
    build_step(model, [], torch.optim.SGD(model.parameters()), mixed=mixed, device=torch.device("cpu"))
    expected = torch.bfloat16 if mixed and cpu_has_bfloat16() else torch.float32
    assert model(torch.ones(1, 2)).dtype == expected
    model.eval()
    assert model(torch.ones(1, 2)).dtype == torch.float32


@pytest.mark.parametrize("before", ["cpu", "cuda"])
def test_run_goes_on_where_the_device_changes(before: str) -> None:
    """A loss scale is in the checkpoints of a GPU alone; here both steps are built on the CPU."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    steps = {
        "cpu": build_step(model, [], optimizer, mixed=False, device=torch.device("cpu")),
        "cuda": ScaledStep(model, [], optimizer, grad_scaler=scaler),
    }
    (after,) = steps.keys() - {before}
    steps[before].iter = 5
    steps[after].load_state_dict(steps[before].state_dict())
    assert steps[after].iter == 5
    assert scaler.get_scale() == 8
