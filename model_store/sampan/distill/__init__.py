"""Distillation: a smaller student learns what a version of the store answers, and enters it as a new version.

    rows → the teacher's answers → training (torch, in its own interpreter) → student.onnx → proven → registered

Sampan never imports torch: `worker/` is a stand-alone script that needs torch, onnx, onnxscript and numpy.
"""
