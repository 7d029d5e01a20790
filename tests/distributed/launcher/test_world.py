"""The world without a launcher, and how it ends; more on real processes is tested elsewhere."""

import os

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from labkit.distributed import init, launch, tell
from labkit.distributed.collectives.network_meter import NetworkMeter

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("nothing_is_left")]


def test_alone_the_world_has_one_member(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "left over")
    before = dict(os.environ)
    for _ in range(2):
        with pytest.raises(KeyError), init() as world:
            ones = torch.ones(3)
            dist.all_reduce(ones)
            assert (world.rank, world.size, ones.tolist()) == (0, 1, [1, 1, 1])
            raise KeyError  # leaves it in good order
    assert not dist.is_initialized() and dict(os.environ) == before


def test_alone_a_report_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    tell(3, 0.25)
    tell(3, 0.25, steps=10, bytes_sent=2000, waiting=0.0015)
    assert capsys.readouterr().out == (
        "rank 0, step 3: loss 0.2500\n"
        "rank 0, step 3 of 10: loss 0.2500, 2,000 bytes sent, 1.5 ms waiting\n"
    )


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK must be from 0 to WORLD_SIZE - 1, got 2 of 2"),
        ({"RANK": "1"}, "RANK must be from 0 to WORLD_SIZE - 1, got 1 of 1"),
        ({"RANK": "one"}, "environment variable RANK must be a whole number, got 'one'"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but MASTER_ADDR is not set"),
    ],
)
def test_a_contradictory_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=words), init():
        pass


def test_models_may_outlive_the_group() -> None:
    """A group that a model frees can wait for ever for a thread that waits for Python."""

    def work() -> bool:
        with init():
            models = [DistributedDataParallel(nn.Linear(50, 50)) for _ in range(3)]
            for model in models:
                model.register_comm_hook(NetworkMeter(torch.bfloat16), NetworkMeter.hook)
                torch.autograd.backward(model(torch.ones(2, 50)).sum())
        return True  # here the models end

    for _ in range(10):
        assert launch(work, 2, deadline=20) == [True, True]
