"""Runs a real shard process and speaks to it with guira_client.py: `make test-python`."""

import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from guira_client import FLOAT16, FORGET, INSPECT, Refused, Shard, bucket

CONFIGURATION = """
cluster: {{name: python, transport: tcp, basePort: {port}}}
shards: {{count: 1, epoch: 100ms}}
features: [{{name: user_id}}, {{name: item_id}}]
tasks: [{{name: click}}]
models:
  - {{name: main, kind: deepfm, dimension: 4, optimizer: {{rule: sgd, learningRate: 1, l2: 0}}}}
"""

CHAIN, OWNER = (11, 22, 0), (1, 99)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def refused(code, words, body):
    try:
        body()
    except Refused as error:
        assert error.code == code and words in error.text, (error.code, error.text)
        return error
    raise AssertionError(f"was not refused: {words}")


def check(shard):
    states = shard.hello([CHAIN])
    assert (shard.shard, shard.shards, states[0].applied) == (0, 1, (0, 0))
    assert (shard.credits, shard.credit_mebibytes) == (256, 256)
    names = [name for _, _, name in shard.tables]
    table = names.index("main.item_id")
    weights, floats, _ = shard.tables[table]
    assert floats >= weights > 0

    assert shard.claim(CHAIN, OWNER).ownership == OWNER
    ids = np.array([0, 1, 2**64 - 1, 5], np.uint64)
    before, tensors = shard.pull(table, ids, dense=True)
    assert before.shape == (4, weights) and before.dtype == np.float32
    assert not before.flags.owndata and before.base is not None, "the rows were copied"
    assert {index: len(values) for index, values in tensors.items()} == {
        index: count for index, (count, _, _) in enumerate(shard.tensors)
    }

    gradients = np.arange(4 * weights, dtype=np.float32).reshape(4, weights) / 64
    state = shard.push(CHAIN, OWNER, (0, 0), (0, 10), table, ids, gradients)
    assert state.applied == (0, 10) and state.examples == 4
    after, _ = shard.pull(table, ids)
    np.testing.assert_array_equal(after, before - gradients)

    # The same push again is acknowledged and changes nothing; one that does not follow is refused with the position.
    assert shard.push(CHAIN, OWNER, (0, 0), (0, 10), table, ids, gradients).applied == (0, 10)
    np.testing.assert_array_equal(shard.pull(table, ids)[0], after)
    gap = refused(4, "has applied 10", lambda: shard.push(CHAIN, OWNER, (0, 50), (0, 60), table, ids, gradients))
    assert gap.position == (0, 10)

    halves, _ = shard.pull(table, ids, numbers=FLOAT16)
    np.testing.assert_array_equal(halves, after.astype(np.float16))
    shard.push(CHAIN, OWNER, (0, 10), (0, 20), table, ids, gradients, numbers=FLOAT16)
    np.testing.assert_array_equal(shard.pull(table, ids)[0], after - gradients.astype(np.float16))

    # The news that all is on disk comes unasked.
    shard.close_epoch()
    deadline = time.monotonic() + 10
    while shard.durable.get(CHAIN) != (0, 20):
        assert time.monotonic() < deadline, "no news of durability"
        shard.receive(0.1)

    incarnation, durable_epoch = shard.ping()
    assert incarnation == shard.incarnation and durable_epoch > 0
    assert shard.status()["counters"]["pushes"] == 2
    inspected = shard.named(INSPECT, "main.item_id", [5, 77])
    assert [row["found"] for row in inspected] == [True, False]
    assert shard.named(FORGET, "main.item_id", [5])["erased"] == 1

    refused(2, "expected 0 (float32) or 1 (float16)", lambda: shard.pull(table, ids, numbers=7))
    refused(2, "the shard has", lambda: shard.pull(99, ids))
    refused(3, "the cluster map is number 1", lambda: shard.pull(table, ids, map=8))
    refused(2, "weights per row", lambda: shard.push(CHAIN, OWNER, (0, 20), (0, 30), table, ids, gradients[:, 1:]))
    refused(1, "opcode is 200", lambda: shard.ask(200))
    shard.pull(table, ids)


def main(guira):
    # As in docs/protocol.md.
    assert [bucket(key) for key in (0, 1, 2**64 - 1)] == [1552, 2910, 1581]
    with tempfile.TemporaryDirectory(prefix="guira-python-") as scratch:
        port = free_port()
        configuration = Path(scratch) / "cluster.yaml"
        configuration.write_text(CONFIGURATION.format(port=port - 2))
        Path(scratch, "state").mkdir()
        arguments = [guira, "shard", "--config", str(configuration), "--state", f"{scratch}/state"]
        with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
            try:
                check(Shard(f"tcp://127.0.0.1:{port}"))
            except TimeoutError:
                process.kill()
                print(process.stderr.read(), file=sys.stderr)
                raise
            finally:
                process.terminate()
                process.communicate(timeout=20)
        assert process.returncode == 0, process.returncode
    print("the Python client and the shard understand each other")


if __name__ == "__main__":
    main(sys.argv[1])
