"""Memory: exact counts against arithmetic on known shapes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from labkit.measure import peak_memory, saved_bytes

MIB = 2**20


def mib(count: int = 1) -> torch.Tensor:
    """A float32 tensor of so many MiB."""
    return torch.empty(count * MIB // 4)


def chain(layers: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        *(m for _ in range(layers) for m in (nn.Linear(width, width, bias=False), nn.ReLU()))
    )


def total(output: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    """A loss that keeps nothing for its backward pass."""
    return output.sum()


TARGET = torch.zeros(1)


class TestPeak:
    def test_a_sum_allocates_its_result(self):
        a, b = mib(3), mib(3)
        assert peak_memory(lambda: a + b) == 3 * MIB

    def test_working_in_place_allocates_nothing(self):
        a, b = mib(3), mib(3)
        assert peak_memory(lambda: a.add_(b)) == 0

    def test_a_view_allocates_nothing(self):
        a = mib(1)
        assert peak_memory(lambda: a.view(2, -1).t()) == 0

    def test_the_peak_is_not_the_sum(self):
        def one_after_the_other() -> None:
            for _ in range(5):
                mib(2)

        def all_at_once() -> None:
            [mib(2) for _ in range(5)]

        assert peak_memory(one_after_the_other) == 2 * MIB
        assert peak_memory(all_at_once) == 10 * MIB

    def test_the_peak_is_not_what_is_left(self):
        def rise_and_fall() -> torch.Tensor:
            big = mib(8)
            small = mib(1)
            del big
            return small

        assert peak_memory(rise_and_fall) == 9 * MIB

    def test_a_chain_of_operations_holds_two_at_a_time(self):
        a = mib(1)

        def step() -> torch.Tensor:
            x = a
            for _ in range(6):
                x = x + a
            return x

        assert peak_memory(step) == 2 * MIB

    def test_what_was_held_before_does_not_count_even_if_profiled_then(self):
        """An earlier measurement that saw the block must not change this one."""
        held: list[torch.Tensor] = []
        assert peak_memory(lambda: held.append(mib(4))) == 4 * MIB

        def release_then_allocate() -> None:
            held.clear()
            mib(4)

        assert peak_memory(release_then_allocate) == 4 * MIB
        held.append(mib(4))  # this one was not seen
        assert peak_memory(release_then_allocate) == 4 * MIB

    def test_the_backward_pass_is_seen(self):
        """Forward: two activations. Backward: one kept, its gradient, the loss and its gradient."""
        model, images = chain(1, 64), torch.randn(4096, 64)
        forward = peak_memory(lambda: model(images))
        both = peak_memory(lambda: model(images).sum().backward())
        activation = 4096 * 64 * 4
        assert forward == 2 * activation
        assert both == 2 * activation + 2 * 4
        assert all(p.grad is not None for p in model.parameters())

    def test_other_threads_do_not_count(self):
        stop, started = threading.Event(), threading.Event()

        def neighbor() -> None:
            while not stop.is_set():
                mib(16)
                started.set()

        thread = threading.Thread(target=neighbor)
        thread.start()
        started.wait()
        try:
            assert peak_memory(lambda: mib(1)) == MIB
        finally:
            stop.set()
            thread.join()

    def test_works_in_a_background_thread(self):
        peaks: list[int] = []
        thread = threading.Thread(target=lambda: peaks.append(peak_memory(lambda: mib(2))))
        thread.start()
        thread.join()
        assert peaks == [2 * MIB]

    def test_nothing_is_written_to_the_terminal(self, capfd: pytest.CaptureFixture[str]):
        held = [mib(1)]  # torch's allocator warns when it frees what it did not see allocated
        peak_memory(held.clear)
        assert capfd.readouterr() == ("", "")

    def test_nothing_is_written_when_the_first_start_is_in_another_thread(self):
        """As in a live race. Only the first start of a process writes, so it has one of its own."""
        program = (
            "import threading, torch\n"
            "from labkit.measure import peak_memory\n"
            "work = lambda: print(peak_memory(lambda: torch.ones(1000)))\n"
            "thread = threading.Thread(target=work)\n"
            "thread.start(), thread.join()\n"
        )
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert (run.stdout, run.stderr, run.returncode) == ("4000\n", "", 0)

    def test_what_the_function_writes_is_written(self, capfd: pytest.CaptureFixture[str]):
        def speaks() -> None:
            print("to out")
            print("to error", file=sys.stderr)
            os.write(2, b"from below")

        peak_memory(speaks)
        out, error = capfd.readouterr()
        assert out == "to out\n"
        assert error in ("to error\nfrom below", "from belowto error\n")  # Python may buffer

        def broken() -> None:
            os.write(2, b"last words")
            raise RuntimeError("out of cheese")

        with pytest.raises(RuntimeError, match="out of cheese"):
            peak_memory(broken)
        assert capfd.readouterr().err == "last words"

    def test_an_error_inside_comes_out_and_measuring_goes_on(self):
        def broken() -> None:
            raise RuntimeError("out of cheese")

        with pytest.raises(RuntimeError, match="out of cheese"):
            peak_memory(broken)
        assert peak_memory(lambda: mib(1)) == MIB

    def test_bad_input_is_named(self):
        with pytest.raises(TypeError, match="function.*got tensor"):
            peak_memory(torch.ones(1))
        with pytest.raises(ValueError, match="device.*got meta"):
            peak_memory(lambda: None, device="meta")


class TestSaved:
    @pytest.mark.parametrize("layers", [1, 2, 5])
    @pytest.mark.parametrize("batch", [8, 32])
    def test_a_chain_keeps_one_activation_a_layer(self, layers: int, batch: int):
        """Each ReLU keeps its result; the next linear layer keeps the same memory."""
        images = torch.randn(batch, 24)
        kept = saved_bytes(chain(layers, 24), total, images, TARGET)
        assert kept == layers * batch * 24 * 4

    @pytest.mark.parametrize("layers", [1, 3])
    def test_bf16_keeps_half_and_copies_of_weights_and_images(self, layers: int):
        images = torch.randn(32, 24)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            kept = saved_bytes(chain(layers, 24), total, images, TARGET)
        # The first layer's weight gets no copy that is kept: its input needs no gradient.
        assert kept == 2 * (layers * 32 * 24 + 32 * 24 + (layers - 1) * 24 * 24)

    def test_bf16_saves_about_half_when_activations_dominate(self):
        model, images = chain(8, 16), torch.randn(2048, 16)
        full = saved_bytes(model, total, images, TARGET)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = saved_bytes(model, total, images, TARGET)
        assert 0.5 < half / full < 0.58

    def test_a_convolution_keeps_its_output_for_the_relu(self):
        model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        kept = saved_bytes(model, total, torch.randn(4, 3, 10, 10), TARGET)
        assert kept == 4 * 8 * 10 * 10 * 4

    def test_cross_entropy_keeps_log_probabilities(self):
        images, labels = torch.randn(16, 5), torch.zeros(16, dtype=torch.int64)
        kept = saved_bytes(nn.Linear(5, 10), F.cross_entropy, images, labels)
        assert kept == 16 * 10 * 4 + 4  # and the total weight of the classes

    def test_a_slice_counts_the_memory_that_it_keeps_alive(self):
        class KeepsSlice(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.scale = nn.Parameter(torch.ones(10))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                whole = x + 1  # 100 rows, of which one is needed
                return whole[:1] * self.scale

        kept = saved_bytes(KeepsSlice(), total, torch.zeros(100, 10), TARGET)
        assert kept == 100 * 10 * 4

    def test_what_is_held_anyway_does_not_count(self):
        """A linear layer keeps only its input and its weight; neither is new."""
        assert saved_bytes(nn.Linear(5, 5), total, torch.randn(3, 5), TARGET) == 0

    def test_a_frozen_model_keeps_nothing(self):
        model = chain(3, 8).requires_grad_(False)
        assert saved_bytes(model, total, torch.randn(4, 8), TARGET) == 0

    def test_checkpointing_keeps_only_the_inputs_of_its_segments(self):
        class Checkpointed(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.segments = nn.ModuleList(chain(4, 8) for _ in range(3))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                for segment in self.segments:
                    x = checkpoint(segment, x, use_reentrant=False)
                return x

        kept = saved_bytes(Checkpointed(), total, torch.randn(16, 8), TARGET)
        assert kept == 2 * 16 * 8 * 4  # the first segment's input is the batch

    def test_it_is_what_the_forward_pass_leaves_behind(self):
        """The same figure in another way: the peak of a forward pass that discards nothing."""
        model = nn.Sequential(*(nn.Sequential(nn.Linear(32, 32), nn.Tanh()) for _ in range(4)))
        images = torch.randn(512, 32)
        kept = saved_bytes(model, lambda output, _: output, images, TARGET)
        # Linear's own output dies when its tanh is done: one more is alive at the peak.
        assert peak_memory(lambda: model(images)) == kept + 512 * 32 * 4

    def test_it_works_where_gradients_are_off(self):
        with torch.no_grad():
            assert saved_bytes(chain(1, 4), total, torch.randn(2, 4), TARGET) == 2 * 4 * 4

    def test_the_model_and_the_generators_are_left_as_they_were(self):
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout())
        before = {name: value.clone() for name, value in model.state_dict().items()}
        random = torch.get_rng_state()
        saved_bytes(model, total, torch.randn(8, 4, generator=torch.Generator()), TARGET)
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
        assert torch.equal(torch.get_rng_state(), random)
        assert all(p.grad is None for p in model.parameters())

    def test_resnet18(self):
        from torchvision.models import resnet18

        images, labels = torch.randn(2, 3, 32, 32), torch.tensor([1, 2])
        model = resnet18(num_classes=10)
        one = saved_bytes(model, F.cross_entropy, images[:1].repeat(2, 1, 1, 1), labels)
        two = saved_bytes(model, F.cross_entropy, images.repeat(2, 1, 1, 1), labels.repeat(2))
        # Everything doubles with the batch but the statistics of the norms and the loss's weight.
        statistics = 2 * one - two
        channels = sum(m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm2d))
        assert statistics == 2 * channels * 4 + 4

    def test_bad_input_is_named(self):
        x = torch.ones(1, 1)
        with pytest.raises(TypeError, match="model must be.*got 'model'"):
            saved_bytes("model", total, x, x)
        with pytest.raises(ValueError, match="got 1 tensors"):
            saved_bytes(nn.Linear(1, 1), total, x)
        with pytest.raises(TypeError, match=r"batch must be of type Tensor, got \[1\]"):
            saved_bytes(nn.Linear(1, 1), total, x, [1])
