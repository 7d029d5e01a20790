"""The first estimate of which split: its formulas against what real models hold and send."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist

from labkit import measure
from labkit.distributed import init, launch
from labkit.distributed.parallel.stages import pipeline_stage
from labkit.distributed.parallel.tensor import split_blocks
from labkit.models.transformer import next_token_loss, transformer
from labkit.plan.splits import GB, Split, TransformerSize, choose_split, fits

SIZES = [TransformerSize(), TransformerSize(64, 2, 4, 100, 32), TransformerSize(96, 6, 3, 1500, 48)]


def model_of(size):
    return transformer(size.vocabulary, size.width, size.depth, size.heads, size.context)


def text_of(size, batch):
    tokens = torch.randint(size.vocabulary, (batch, size.context + 1))
    return tokens[:, :-1], tokens[:, 1:]


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


# ---- against real models


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_parameters_and_activations_of_one_device(size):
    model = model_of(size)
    assert size.parameters == count(model)
    kept = measure.saved_bytes(model, next_token_loss, *text_of(size, 4))
    assert Split(size, 4).activations == pytest.approx(kept, rel=0.05)


def in_parts(size):
    """Return parameters, activations and bytes sent in the sums, on one rank of tensor parallel."""
    with init() as world:
        model, batch = split_blocks(model_of(size)), text_of(size, 4)
        for tensor in batch:
            dist.broadcast(tensor, 0)
        kept = measure.saved_bytes(model, next_token_loss, *batch)
        sums, all_reduce = [], dist.all_reduce

        def counted(tensor, **options):
            sums.append(tensor.nbytes)
            return all_reduce(tensor, **options)

        dist.all_reduce = counted
        next_token_loss(model(batch[0]), batch[1]).backward()
        return count(model), kept, sum(sums) * 2 * (world.size - 1) / world.size


@pytest.mark.parametrize("ranks", [2, 4])
def test_tensor_parallel_holds_and_sends_what_was_predicted(ranks):
    size = replace(SIZES[1], heads=4)
    predicted = Split(size, 4, tensor=ranks)
    for parameters, kept, sent in launch(in_parts, ranks, size=size, deadline=60):
        assert parameters == predicted.parameters
        assert kept == pytest.approx(predicted.activations, rel=0.06)
        assert sent == predicted.sent


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("stages", [1, 2])
def test_stages_of_a_pipeline_hold_what_was_predicted(size, stages):
    model, batch = model_of(size), text_of(size, 8)
    predicted = Split(size, 8, pipeline=stages, microbatches=4 if stages > 1 else 1)
    cuts = [pipeline_stage(model, rank, stages) for rank in range(stages)]
    if stages > 1:
        cuts = [c for c in cuts if count(c) == predicted.parameters] or cuts
    assert predicted.parameters in [count(c) for c in cuts]
    assert predicted.sent == (2 * batch[0].numel() * size.width * 4 if stages > 1 else 0)


# ---- the formulas


def test_states_follow_zero():
    size = SIZES[0]
    whole = Split(size, 8, data=4)
    for level in (1, 2, 3):
        sharded = replace(whole, zero=level)
        assert sharded.states.total < whole.states.total
        assert sharded.activations == whole.activations
        whole = sharded
    assert whole.states.total == pytest.approx(16 * size.parameters / 4, rel=1e-5)
    assert replace(whole, precision="bf16").states.total == whole.states.total  # 2 + 2 + 12
    assert replace(whole, precision="bf16").activations == whole.activations / 2


def test_a_stage_keeps_as_many_microbatches_as_stages_follow():
    size = TransformerSize(64, 8, 4, 50, 32)
    one, deep = Split(size, 16), Split(size, 16, pipeline=4, microbatches=16)
    # Four of sixteen microbatches, a quarter of the blocks.
    blocks = one.activations - 4 * 16 * 32 * (2 * 64 + 50)
    assert deep.activations == blocks / 16
    assert deep.bubble == 3 / 19


def test_traffic_of_data_parallel():
    size = SIZES[0]
    bytes_ = [Split(size, 8, data=4, zero=level).sent for level in range(4)]
    assert bytes_[:3] == [round(2 * 3 / 4 * 4 * size.parameters)] * 3
    assert bytes_[3] == round(3 * 3 / 4 * 4 * size.parameters)
    assert Split(size, 8).sent == 0


def test_one_rank_s_bytes_add_up_in_the_lines():
    split = Split(SIZES[0], 8, data=4, zero=2)
    assert split.memory == sum(split.states) + split.activations
    lines = split.lines(1.0)
    assert lines[0] == "ZeRO-2 of 4: the fullest rank works on 1,850,112 parameters"
    assert lines[1] == "Weights: 4 bytes x 1,850,112 = 7.4 MB"
    assert lines[2] == "Gradients: 4 bytes x 1,850,112 / 4 = 1.85 MB"
    assert "fits" in lines[5] and "does not" not in lines[5]
    assert "does not fit" in split.lines(0.01)[5]
    assert "waits 11% of a step" in Split(SIZES[0], 8, pipeline=2, microbatches=8).lines(1)[-1]


# ---- the choice


def choice(memory, devices=8, batch=64, size=None):
    chosen = choose_split(size or SIZES[0], devices=devices, memory=memory, batch=batch).chosen
    return chosen.name if chosen else None


def test_the_simplest_that_fits_is_chosen():
    """Little text, many weights: the states decide."""
    size, batch = TransformerSize(1024, 8, 8, 1000, 8), 8
    splits = choose_split(size, devices=8, memory=1, batch=8).splits
    needs = {s.name: s.memory / GB / 0.9 for s in splits}
    names = ["data 8", "ZeRO-1 of 8", "ZeRO-2 of 8", "ZeRO-3 of 8"]
    for name in names:
        assert choice(needs[name] * 1.001, 8, batch, size) == name
    assert choice(1e-4, 8, batch, size) is None
    assert choice(100, 1, batch, size) == "one device"


def test_a_tenth_of_the_memory_is_kept_free():
    split = Split(SIZES[0], 8)
    assert fits(split, split.memory / GB / 0.899)
    assert not fits(split, split.memory / GB / 0.901)


def test_fewer_sequences_than_devices_need_another_way():
    names = [s.name for s in choose_split(SIZES[0], devices=4, memory=1, batch=1).splits]
    assert names == ["tensor 4", "pipeline 4", "tensor 2 x pipeline 2", "one device"]


def test_what_cannot_be_is_not_offered():
    size = TransformerSize(96, 6, 3, 100, 16)  # three heads, six blocks
    names = [s.name for s in choose_split(size, devices=8, memory=1, batch=64).splits]
    assert not any("tensor" in name or "pipeline 8" in name for name in names)
    wide = TransformerSize(1024, 64, 64, 100, 16)
    names = [s.name for s in choose_split(wide, devices=16, memory=1, batch=64).splits]
    assert "tensor 16" not in names and "pipeline 16" in names


def test_every_combination_uses_all_devices_and_the_chosen_one_fits():
    size = TransformerSize(4096, 32, 32, 50_000, 2048)
    for devices in (2, 8, 64, 96):
        for memory in (4.0, 16.0, 80.0, 640.0):
            made = choose_split(size, devices=devices, memory=memory, batch=64, precision="bf16")
            for split in made.splits[:-1]:
                assert split.data * split.tensor * split.pipeline == devices
            assert made.chosen == next((s for s in made.splits if fits(s, memory)), None)


def test_the_table_says_which_one_and_why():
    table = str(choose_split(SIZES[0], devices=4, memory=0.25, batch=32).table())
    assert "data 4 ← this one" in table
    assert "A device has 0.25 GB; 10% of it is kept free." in table
    assert table.count("←") == 1
    assert "←" not in str(choose_split(SIZES[0], devices=4, memory=1e-4, batch=32).table())


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"devices": 0}, "devices"),
        ({"memory": 0}, "memory must be a positive number, got 0"),
        ({"batch": 0}, "batch"),
        ({"precision": "fp8"}, "precision must be one of fp32, bf16, got 'fp8'"),
    ],
)
def test_refusals(change, word):
    with pytest.raises(ValueError, match=word):
        choose_split(SIZES[0], **({"devices": 2, "memory": 1.0, "batch": 8} | change))


@pytest.mark.parametrize("change", [{"width": 0}, {"depth": -1}, {"heads": 3}])
def test_shapes_that_cannot_be(change):
    with pytest.raises(ValueError, match="heads" if "heads" in change else next(iter(change))):
        TransformerSize(**change)
