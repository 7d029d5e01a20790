"""What static quantization refuses, in one sentence that says what is wrong."""

import logging

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from labkit.compression import quantize
from labkit.compression.quantize import torchao_import

X = torch.randn(4, 6)
LINEAR = nn.Linear(6, 2)


class Branch(nn.Module):
    """Decides on the values of a tensor."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Pair(nn.Linear):
    """Returns two tensors."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return super().forward(x), x


class Named(nn.Linear):
    """Returns one tensor, in a dictionary."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"logits": super().forward(x)}


class Loop(nn.Linear):
    """Goes through the examples one by one."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([super(Loop, self).forward(x[i]) for i in range(x.shape[0])])


class Broken(nn.Module):
    """Raises what it likes."""

    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("no such\nthing")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Branch(), "Branch cannot be traced by torch.export, which quantization needs: .+"),
        (Broken(), "Broken cannot be traced by torch.export"),
        (Pair(6, 2), "Pair must return one tensor"),
        (Named(6, 2), "Named must return one tensor"),
        (Loop(6, 2), "Loop .*batch size"),
        (nn.ReLU(), "ReLU has no convolutions and linear layers"),
        (nn.Linear(6, 2, dtype=torch.bfloat16), "in float32, got weight in torch.bfloat16"),
        (weight_norm(nn.Linear(6, 2)), "^weight is computed from others: .*remove_param"),
        (quantize.weights(nn.Sequential(LINEAR)), "^0.weight is computed from others"),
        (nn.Linear(6, 2, device="meta"), "on the CPU: .*x86 processors, got weight on meta"),
    ],
)
def test_models(model: nn.Module, message: str) -> None:
    model.train()
    with pytest.raises(ValueError, match=message) as caught:
        quantize.static(model, [(X, None)])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    assert model.training


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "batches is empty"),
        ([X], "batches must hold pairs"),
        ([(X, X, X)], "batches must hold pairs"),
        ([("text", 0)], "batches must hold pairs"),
        ([(X, None), (torch.randn(4, 7), None)], r"one shape .*\(4, 6\) .*\(4, 7\)"),
        ([(X, None), (X.double(), None)], "float32 .*float64"),
        ([(torch.full((4, 6), float("nan")), None)], "finite"),
    ],
)
def test_batches(batches: list[object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quantize.static(LINEAR, batches)  # type: ignore[arg-type]


def test_arguments() -> None:
    with pytest.raises(ValueError, match="ranges must be one of min-max, percentile, mse"):
        quantize.static(LINEAR, [(X, None)], ranges="max")
    model = nn.Sequential(LINEAR, nn.ReLU())
    with pytest.raises(ValueError, match="no module of the model: '2', 'head'; there are 0, 1"):
        quantize.static(model, [(X, None)], keep_float=["head", "0", "2"])
    with pytest.raises(TypeError, match="collection of names"):
        quantize.static(model, [(X, None)], keep_float="0")
    with pytest.raises(TypeError, match="model must be"):
        quantize.static("model", [(X, None)])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no convolutions and linear layers"):
        quantize.static(model, [(X, None)], keep_float=["0"])


def test_names_may_come_from_a_generator() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 2))
    kept = quantize.static(model, [(X, None)], keep_float=(name for name in ["0"]))
    assert kept.reference.keep_float == ("0",)
    for make in (quantize.weights, quantize.aware):
        names = (name for name in ["0"])
        assert "parametrizations" not in repr(make(model, 4, None, names)[0])
        with pytest.raises(ValueError, match="no layer of the model: 3, nose"):
            make(model, 4, None, ["nose", 3])
    with pytest.raises(ValueError, match="no module of the model: 'nose', 3"):
        quantize.static(model, [(X, None)], keep_float=["nose", 3])


def test_inputs_of_the_result() -> None:
    static = quantize.static(LINEAR, [(X, None)])
    for wrong in (torch.randn(4, 7), X.double(), torch.randn(4, 2, 6)):
        with pytest.raises(ValueError, match=r"inputs must be torch.float32 \('batch', 6\), got"):
            static(wrong)
    with pytest.raises(ValueError, match="inputs must be"):
        static(X, X)


def test_one_message_of_torchao_is_held_back_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("torch.utils._pytree")
    with torchao_import._without(logger, torchao_import.MESSAGE):
        logger.warning("Kind: %s in a future release", torchao_import.MESSAGE)
        logger.warning("something else")
    logger.warning(torchao_import.MESSAGE)
    assert [r.getMessage() for r in caplog.records] == ["something else", torchao_import.MESSAGE]
