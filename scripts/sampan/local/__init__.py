"""The way to a function, in this process: HTTP → event → the real Lambda handler → HTTP."""
