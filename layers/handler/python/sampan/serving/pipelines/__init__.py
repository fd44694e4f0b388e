"""Task level: what a person sends in, what a person reads out. Declared in the manifest, or a function's own code.

    body → items → preprocess → tensors → (session) → tensors → postprocess → one result an item

A declaration has two tables, `[input]` and `[output]`, each with a `kind`; `inputs.py` and `outputs.py` hold
the kinds. Without a declaration a model takes rows and gives rows. `own.py` puts a function's own steps in place of
declared ones.
"""

from sampan.serving.pipelines.pipeline import Pipeline, build_pipeline, check_declaration

__all__ = ["Pipeline", "build_pipeline", "check_declaration"]
