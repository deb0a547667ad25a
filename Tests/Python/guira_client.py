"""A client of one Guira shard, written from docs/protocol.md alone: pyzmq for the carrier, numpy for the arrays."""

import json
import struct
import time
from dataclasses import dataclass

import numpy as np
import zmq

MAGIC, VERSION = 0x52495547, 1
HELLO, CLAIM, PULL, PUSH, FORGET, CLOSE_EPOCH = 1, 2, 3, 4, 5, 6
STATUS, INSPECT, PING, DURABLE = 9, 11, 12, 16
FLOAT32, FLOAT16 = 0, 1
TYPES = {FLOAT32: np.dtype("<f4"), FLOAT16: np.dtype("<f2")}
MASK = (1 << 64) - 1


class Refused(Exception):
    """The shard's error reply."""

    def __init__(self, code, position, generation, text):
        super().__init__(text)
        self.code, self.position, self.generation, self.text = code, position, generation, text


@dataclass
class Chain:
    """Where a shard stands in one chain."""

    key: tuple
    ownership: tuple
    applied: tuple
    durable: tuple
    examples: int


def bucket(key):
    """The bucket of an id."""
    z = (key ^ 0x6275636B65747321) + 0x9E3779B97F4A7C15 & MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return (z ^ z >> 31) >> 52


def pad(message):
    return message + bytes(-len(message) % 8)


def text(value):
    encoded = value.encode()
    return struct.pack("<I", len(encoded)) + encoded


class Reader:
    """Reads a frame from front to back; arrays are views of it."""

    def __init__(self, frame, at=0):
        self.frame, self.at = frame, at

    def take(self, layout):
        values = struct.unpack_from("<" + layout, self.frame, self.at)
        self.at += struct.calcsize("<" + layout)
        return values if len(values) > 1 else values[0]

    def text(self):
        count = self.take("I")
        self.at += count
        return bytes(self.frame[self.at - count : self.at]).decode()

    def array(self, dtype, count):
        values = np.frombuffer(self.frame, dtype, count, self.at)
        self.at += values.nbytes
        return values

    def align(self):
        self.at += -self.at % 8


def chain_state(reader):
    key, ownership = reader.take("3Q"), reader.take("2Q")
    applied, durable = reader.take("2Q"), reader.take("2Q")
    examples, _, _ = reader.take("Qqq")
    return Chain(key, ownership, applied, durable, examples)


class Shard:
    """One connection; keeps the newest news of durability."""

    def __init__(self, endpoint, context=None):
        self.socket = (context or zmq.Context.instance()).socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(endpoint)
        self.number = 0
        self.durable = {}

    def ask(self, opcode, body=b"", patience=10.0):
        """Sends a request; gives a reader of its answer's body."""
        self.number += 1
        self.socket.send(struct.pack("<IBBHQ", MAGIC, VERSION, 0, opcode, self.number) + body, copy=False)
        deadline = time.monotonic() + patience
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no answer to opcode {opcode} within {patience} s")
            got = self.receive(left)
            if got and got[0] == self.number:
                return got[1]

    def receive(self, patience):
        """The next answer as (number, reader); None for news, which are noted, and when nothing comes."""
        if not self.socket.poll(patience * 1000):
            return None
        reader = Reader(self.socket.recv(copy=False).buffer)
        magic, version, kind, opcode, number = reader.take("IBBHQ")
        assert (magic, version) == (MAGIC, VERSION)
        if kind == 2:
            code, _, _ = reader.take("HHI")
            raise Refused(code, reader.take("2Q"), reader.take("Q"), reader.text())
        if opcode == DURABLE:
            reader.take("Q")
            chain = chain_state(reader)
            self.durable[chain.key] = chain.durable
            return None
        return number, reader

    def hello(self, chains=()):
        body = struct.pack("<HHHH", VERSION, VERSION, 1, len(chains))
        reader = self.ask(HELLO, body + b"".join(struct.pack("<3Q", *chain) for chain in chains))
        self.shard, self.shards = reader.take("2I")
        self.map, self.incarnation = reader.take("2Q")
        self.identity, (self.epoch, self.durable_epoch) = reader.take("2Q"), reader.take("2Q")
        chain_count, table_count, tensor_count, self.credits, self.credit_mebibytes = reader.take("3I2H")
        states = [chain_state(reader) for _ in range(chain_count)]
        self.tables = [(*reader.take("2I"), reader.text()) for _ in range(table_count)]
        self.tensors = [(*reader.take("2I"), reader.text()) for _ in range(tensor_count)]
        return states

    def claim(self, chain, ownership):
        reader = self.ask(CLAIM, struct.pack("<5Q", *chain, *ownership))
        reader.take("Q")
        return chain_state(reader)

    def pull(self, table, ids, numbers=FLOAT32, dense=False, map=None):
        """Rows `[ids, weights]` as a view of the answer, and tensors by index."""
        ids = np.ascontiguousarray(ids, "<u8")
        body = struct.pack("<QqIHHII", self.map if map is None else map, 0, 1, dense, numbers, table, len(ids))
        body = pad(body + ids.tobytes() + np.ones(len(ids), "<u4").tobytes())
        reader = self.ask(PULL, body)
        reader.take("Q")
        sections, dtype, tensors = reader.take("HHI")
        assert sections == 1
        values = []
        for place in range(sections + tensors):
            reader.align()
            number, count = reader.take("2I")
            values.append((number, reader.array(TYPES[dtype if place < sections else FLOAT32], count)))
        return values[0][1].reshape(len(ids), -1), dict(values[1:])

    def push(self, chain, ownership, previous, end, table, ids, gradients, numbers=FLOAT32):
        ids = np.ascontiguousarray(ids, "<u8")
        gradients = np.ascontiguousarray(gradients, TYPES[numbers])
        body = struct.pack("<5Q2Q2QQqq", *chain, *ownership, *previous, *end, len(ids), 0, 0)
        body += struct.pack("<Q4I", self.map, 1, 0, 0, numbers)
        body += struct.pack("<IIQ", table, len(ids), gradients.size)
        body = pad(body + ids.tobytes() + np.ones(len(ids), "<u4").tobytes()) + gradients.tobytes()
        reader = self.ask(PUSH, body)
        reader.take("Q")
        return chain_state(reader)

    def ping(self):
        return self.ask(PING).take("2Q")

    def close_epoch(self):
        self.ask(CLOSE_EPOCH)

    def status(self):
        return json.loads(self.ask(STATUS).text())

    def named(self, opcode, table, ids):
        """forget or inspect: a table by its name, and ids."""
        body = bytes(16) + text(table) + struct.pack("<I", len(ids))
        body = pad(body)[16:] + np.asarray(ids, "<u8").tobytes()
        return json.loads(self.ask(opcode, body).text())
