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

MESSAGE = "Calling register_constant() on Enum subclasses is deprecated"


@cache
def pt2e() -> SimpleNamespace:
    """Return the functions and classes of torchao that labkit uses, by their names in torchao."""
    with _without(logging.getLogger("torch.utils._pytree"), MESSAGE):
        from torchao.quantization.pt2e import ObserverBase, PlaceholderObserver
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.quantization.pt2e.quantizer import QuantizationConfig, QuantizationSpec
        from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import X86InductorQuantizer
    return SimpleNamespace(
        ObserverBase=ObserverBase,
        PlaceholderObserver=PlaceholderObserver,
        QuantizationConfig=QuantizationConfig,
        QuantizationSpec=QuantizationSpec,
        X86InductorQuantizer=X86InductorQuantizer,
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
