"""The module that Lambda imports: `sampan.serving.function.handler`. Importing it loads the models."""

from sampan.serving.handler import create_handler, traced
from sampan.serving.settings import read_settings

_settings = read_settings()
handler = traced(create_handler(_settings), _settings)
