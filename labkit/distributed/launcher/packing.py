"""A function and its arguments as bytes that another process can read, wherever it was defined.

cloudpickle sends a function by its code, so it may stand in a notebook's cell. It leaves out, from
3.1.3 on, which file the code came from; then the traceback of a rank could not quote the line that
failed. Here code keeps its file's name.
"""

import io
from collections.abc import Callable
from types import CodeType
from typing import Any

import cloudpickle


def pack(thing: object) -> bytes:
    """Return `thing` as bytes for `cloudpickle.loads`.

    Raises:
        Exception: of many kinds, from what cannot be packed.
    """
    with io.BytesIO() as file:
        _Pickler(file).dump(thing)
        return file.getvalue()


class _Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
    def reducer_override(self, thing: Any) -> Any:
        if isinstance(thing, CodeType):  # cloudpickle's own way, with the name put back at the end
            make, arguments = self.dispatch_table[CodeType](thing)
            return _named, (thing.co_filename, make, arguments)
        return super().reducer_override(thing)


def _named(filename: str, make: Callable[..., CodeType], arguments: tuple[Any, ...]) -> CodeType:
    return make(*arguments).replace(co_filename=filename)
