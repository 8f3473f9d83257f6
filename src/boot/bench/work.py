"""Fixed amounts of work in Python: python3 work.py NAME."""
import sys


def calls():
    def fib(n):
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    assert fib(24) == 46368


def dict():
    counts = {}
    value = 1
    for _ in range(90_000):
        value = value * 1103515245 + 12345 & 0x7FFFFFFF
        key = str(value >> 16)
        counts[key] = counts.get(key, 0) + 1
    assert sum(counts.values()) == 90_000
    assert len(sorted(counts.items(), key=lambda item: (-item[1], item[0]))) == len(counts)


def json():
    import json

    rows = [{"id": n, "name": f"row {n}", "parts": [n, n * n, None, True]} for n in range(400)]
    for _ in range(8):
        text = json.dumps(rows)
        assert json.loads(text) == rows


def regex():
    import re

    with open(re.__file__) as file:
        text = file.read()
    words = re.compile(r"\b[a-z_]\w*\b")
    calls = re.compile(r"(\w+)\s*\(([^()]*)\)")
    for _ in range(12):
        assert len(words.findall(text)) > len(calls.findall(text)) > 0


def nbody():
    # Sun and two planets; units and figures need only be plausible.
    bodies = [
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 39.5],
        [4.84, -1.16, -0.10, 0.61, 2.81, -0.02, 0.037],
        [8.34, 4.12, -0.40, -1.01, 1.82, 0.008, 0.011],
        [12.89, -15.11, -0.22, 1.08, 0.87, -0.01, 0.0017],
    ]
    pairs = [(a, b) for n, a in enumerate(bodies) for b in bodies[n + 1 :]]
    for _ in range(6_000):
        for a, b in pairs:
            dx, dy, dz = a[0] - b[0], a[1] - b[1], a[2] - b[2]
            force = 0.01 / (dx * dx + dy * dy + dz * dz) ** 1.5
            ma, mb = a[6] * force, b[6] * force
            a[3] -= dx * mb
            a[4] -= dy * mb
            a[5] -= dz * mb
            b[3] += dx * ma
            b[4] += dy * ma
            b[5] += dz * ma
        for body in bodies:
            body[0] += 0.01 * body[3]
            body[1] += 0.01 * body[4]
            body[2] += 0.01 * body[5]


def faults():
    # Fresh memory, each page touched once, given back, and again.
    for _ in range(16):
        memory = bytearray(16 << 20)
        for page in range(0, len(memory), 4096):
            memory[page] = 1
        del memory


globals()[sys.argv[1]]()
