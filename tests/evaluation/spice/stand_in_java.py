"""Stands in for java: checks its arguments and writes what SPICE's program writes, of captions with known graphs.

Beside it lie java_version, and calls, where it writes what it was called for; if there is fail_at, it ends in the
middle of that call for SPICE.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
# Captions of which SPICE would make these, and what is merged of those of an image: a car is an auto.
GRAPHS = {
    "a young girl": [["girl"], ["girl", "young"]],
    "a girl stands on a court": [["girl"], ["court"], ["girl", "stand on", "court"]],
    "a red car": [["car"], ["car", "red"]],
    "an automobile": [["automobile"]],
    "two autos and a car": [["auto/car"], ["auto/car", "two"]],
}


def graph(texts):
    found = []
    for text in texts:
        for item in GRAPHS.get(text, [[word] for word in text.split()]):
            if item not in found:
                found.append(item)
    return found


def plain(tuples):
    """With one word for all that is the same to SPICE."""
    return [["car" if word in ("automobile", "auto/car") else word for word in found] for found in tuples]


def result(item):
    test, refs = graph([item["test"]]), graph(item["refs"])
    matched = sum(map(plain(refs).__contains__, plain(test)))
    score = 2 * matched / (len(test) + len(refs)) if test or refs else None
    tuples = [[{"tuple": found, "truth_value": False} for found in side] for side in (test, refs)]
    scores = {"All": {"f": score, "pr": 0.5, "re": 0.5, "tp": matched, "fp": 0, "fn": 0, "numImages": 1}}
    return {"image_id": item["image_id"], "scores": scores, "test_tuples": tuples[0], "ref_tuples": tuples[1]}


def tokens(line):
    for mark in '.,!"':
        line = line.replace(mark, f" {mark} ")
    return " ".join("''" if token == '"' else token for token in line.lower().split())


def main(arguments):
    if arguments == ["-version"]:
        version = (HERE / "java_version").read_text()
        print(f'openjdk version "{version}" 2024-01-16\nOpenJDK Runtime Environment', file=sys.stderr)
        return
    assert arguments.pop(0) == "-Dfile.encoding=UTF-8"
    if arguments[0] == "-cp":
        assert Path(arguments[1]).name == "stanford-corenlp-3.4.1.jar"
        assert arguments[2:] == ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
        sys.stdin.reconfigure(encoding="utf-8")
        sys.stdout.reconfigure(encoding="utf-8")
        print("\n".join(tokens(line) for line in sys.stdin.read().split("\n")[:-1]))
        return
    memory, _, jar, given, _, out = arguments[:6]
    assert arguments == [memory, "-jar", jar, given, "-out", out, "-detailed", "-silent"]
    assert memory == "-Xmx8G"
    assert Path(jar).name == "spice-1.0.jar"
    items = json.loads(Path(given).read_text())
    calls = HERE / "calls"
    calls.write_text((calls.read_text() if calls.exists() else "") + f"{len(items)}\n")
    text = json.dumps([result(item) for item in items], indent=2)
    if (HERE / "fail_at").exists() and len(calls.read_text().split()) == int((HERE / "fail_at").read_text()):
        Path(out).write_text(text[: len(text) // 2])
        print("Parsing reference captions\nException in thread main java.lang.OutOfMemoryError", file=sys.stderr)
        sys.exit(1)
    Path(out).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
