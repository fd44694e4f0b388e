"""The gateway to AWS: sessions, objects, functions. Only `session` names boto3.

Importing a module of this package does not load boto3; making a `Session` does.
"""
