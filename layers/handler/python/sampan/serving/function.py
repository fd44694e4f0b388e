"""The module that Lambda imports: `sampan.serving.function.handler`. Importing it loads the models."""

from sampan.serving.handler import create_handler

handler = create_handler()
