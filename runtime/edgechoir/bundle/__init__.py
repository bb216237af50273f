"""The model bundle: a directory of data, nothing executable.

    manifest.json   what the model is: parameter table, preprocessing, loss, hash of each other file
    graph.json      the training graph: allow-listed aten operators with checked arguments
    infer.onnx      the inference graph, without weights; initialisers keep the parameter names
    params.bin      every parameter in one flat little-endian float32 vector

`load` reads and checks one with numpy and pydantic alone. `build` makes one from a model file and
needs torch and onnx; the user's own code runs there and nowhere else.
"""
