"""From a model in PyTorch to files that run without it: ONNX, in fp32 and in int8, each held against the original."""
