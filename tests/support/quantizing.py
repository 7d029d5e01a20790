"""Small trained networks, and what their quantized graphs are asked about."""

from collections import Counter

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit import models
from labkit.compression.quantize.int8_model import Int8Model

Batch = tuple[Tensor, Tensor]


def pictures(batches: int = 3, size: int = 16, seed: int = 0) -> list[Batch]:
    """Noisy pictures of ten patterns, float32 (32, 1, size, size)."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randn(10, 1, size, size, generator=torch.Generator().manual_seed(9))
    made = []
    for _ in range(batches):
        labels = torch.randint(10, (32,), generator=generator)
        noise = torch.randn(32, 1, size, size, generator=generator)
        made.append((patterns[labels] + noise, labels))
    return made


def trained(width: int = 8) -> nn.Module:
    """A ConvNet after a few steps: its batch norms have scales and statistics. In training mode."""
    torch.manual_seed(0)
    model = models.convnet(width)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for images, labels in pictures(20, seed=1):
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(images), labels))
        optimizer.step()
    return model


def stored(model: Int8Model) -> dict[str, Tensor]:
    """The tensors of the graph before lowering, by the names of the float model."""
    reference = model.reference
    graph = reference.graph
    tensors = {**dict(graph.named_parameters()), **dict(graph.named_buffers())}
    return {name: tensors[target].detach() for target, name in reference.names.items()}


def activations(model: Int8Model) -> list[tuple[float, int]]:
    """Scale and zero point of each rounding of an activation, in order."""
    name = "quantized_decomposed.quantize_per_tensor.default"
    nodes = model.reference.graph.graph.nodes
    return [(node.args[1], node.args[2]) for node in nodes if str(node.target) == name]


def products(model: Int8Model) -> Counter[str]:
    """How many convolutions and linear layers run in int8 kernels, and how many in float."""
    kinds = {"onednn.qconv": "int8 conv", "onednn.qlinear": "int8 linear"}
    kinds |= dict.fromkeys(
        ("aten.conv", "aten.linear", "aten.addmm", "aten.mm", "aten.bmm", "mkl._", "mkldnn._"),
        "float",
    )
    names = [str(node.target) for node in model.graph.graph.nodes if node.op == "call_function"]
    return Counter(
        kind for name in names for start, kind in kinds.items() if name.startswith(start)
    )
