"""Conversion: a model of another framework becomes ONNX, and both are proven to answer alike.

    source → what it is → export (the framework, in a process of its own) → tidy → both run → compare

No framework is imported into Sampan: `workers/` holds one stand-alone script a framework, which an
interpreter of the caller's choice runs.
"""

from sampan.convert.convert import Converted, converted
from sampan.convert.options import Options
from sampan.convert.source import Source, find_source

__all__ = ["Converted", "Options", "Source", "converted", "find_source"]
