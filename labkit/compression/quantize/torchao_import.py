"""torchao, imported when it is first needed and without the noise it makes on its way in.

The import costs two seconds and more memory than the rest of labkit, and a class of torchao
registers itself with torch in a manner that torch logs a warning about. Nobody who reads a notebook
can do anything about it, so this one message is held back; all others pass.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch

CONVOLUTIONS = (torch.ops.aten.conv1d.default, torch.ops.aten.conv2d.default)
MESSAGE = "Calling register_constant() on Enum subclasses is deprecated"


@cache
def pt2e() -> SimpleNamespace:
    """Return the functions and classes of torchao that labkit uses, by their names in torchao.

    `Quantizer` is its X86InductorQuantizer, which leaves a Conv1d without a ReLU in float.
    """
    with _without(logging.getLogger("torch.utils._pytree"), MESSAGE):
        from torchao.quantization.pt2e import ObserverBase, PlaceholderObserver
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.quantization.pt2e.quantizer import QuantizationConfig, QuantizationSpec
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    class Quantizer(x86.X86InductorQuantizer):  # type: ignore[misc]
        """Marks each convolution that no pattern has taken, also those of one dimension."""

        def _annotate_conv2d(self, model: Any, config: Any, takes: Any = None) -> None:
            for node in model.graph.nodes:
                if node.target in CONVOLUTIONS and not x86._skip_annotate([node], takes):
                    self._annotate_conv_node_helper(node, True, config)

    return SimpleNamespace(
        ObserverBase=ObserverBase,
        PlaceholderObserver=PlaceholderObserver,
        QuantizationConfig=QuantizationConfig,
        QuantizationSpec=QuantizationSpec,
        Quantizer=Quantizer,
        convert_pt2e=convert_pt2e,
        prepare_pt2e=prepare_pt2e,
    )


@contextmanager
def _without(logger: logging.Logger, message: str) -> Iterator[None]:
    def others(record: logging.LogRecord) -> bool:
        return message not in record.getMessage()

    logger.addFilter(others)
    try:
        yield
    finally:
        logger.removeFilter(others)
