"""What a stranger's client gets from a replica: tritonclient[http] asks for health, metadata and predictions.

Reads a request from a file, {"url", "model", "inputs": {feature: [ids]}, "tasks": [...]}, and prints one JSON object for
the test that started it (Tests/EndToEndTests/TritonTests.swift).
"""

import json
import sys

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

question = json.load(open(sys.argv[1]))
client = triton.InferenceServerClient(question["url"])
model, tasks = question["model"], question["tasks"]


def inputs(binary):
    made = []
    for name, ids in question["inputs"].items():
        tensor = triton.InferInput(name, [len(ids), 1], "UINT64")
        tensor.set_data_from_numpy(np.array(ids, dtype=np.uint64).reshape(-1, 1), binary_data=binary)
        made.append(tensor)
    return made


def outputs(binary):
    return [triton.InferRequestedOutput(task, binary_data=binary) for task in tasks]


def refused(what):
    try:
        what()
    except InferenceServerException as problem:
        return str(problem)
    return None


answers = {}
for given in (False, True):
    for asked in (False, True):
        reply = client.infer(model, inputs(given), outputs=outputs(asked))
        kind = f"{'binary' if given else 'JSON'} in, {'binary' if asked else 'JSON'} out"
        answers[kind] = {task: [float(x) for x in reply.as_numpy(task)] for task in tasks}
# The client's own default: binary tensors both ways, all outputs.
reply = client.infer(model, inputs(True))
answers["default"] = {task: [float(x) for x in reply.as_numpy(task)] for task in tasks}

metadata = client.get_model_metadata(model)
print(
    json.dumps(
        {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "modelReady": client.is_model_ready(model),
            "server": client.get_server_metadata()["name"],
            "inputs": [tensor["name"] for tensor in metadata["inputs"]],
            "outputs": [tensor["name"] for tensor in metadata["outputs"]],
            "answers": answers,
            "lacking": refused(lambda: client.infer(model, inputs(True)[1:])),
            "unknown": refused(lambda: client.infer("nobody", inputs(True))),
        }
    )
)
