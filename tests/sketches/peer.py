"""The DataSketches library for Python, as a program: reads a list of requests from stdin, and writes the list of replies.

Each request has a family with its parameters, `parts` (lists of elements, of which one sketch each is made and all are
merged), and `other`: a sketch of holdall's, which is read and written again.
"""

import base64
import json
import sys

from datasketches import (
    NO_FALSE_NEGATIVES,
    frequent_strings_sketch,
    hll_sketch,
    hll_union,
    tgt_hll_type,
)


def text(sketch: bytes) -> str:
    return base64.b64encode(sketch).decode()


def hll(request: dict) -> dict:
    target = getattr(tgt_hll_type, request["type"])
    union = hll_union(request["lg_k"])
    for part in request["parts"]:
        sketch = hll_sketch(request["lg_k"], target)
        for element in part:
            sketch.update(element)
        union.update(sketch)
    other = hll_sketch.deserialize(base64.b64decode(request["other"]))
    merged = union.get_result(target)
    return {
        "sketches": [text(merged.serialize_compact()), text(merged.serialize_updatable())],
        # Of the last part alone, which was never merged.
        "part": text(sketch.serialize_compact()),
        "rewritten": text(other.serialize_compact()),
        "estimate": other.get_estimate(),
        "lower": other.get_lower_bound(2),
        "upper": other.get_upper_bound(2),
    }


def topk(request: dict) -> dict:
    merged = frequent_strings_sketch(request["lg_map_size"])
    for part in request["parts"]:
        sketch = frequent_strings_sketch(request["lg_map_size"])
        for element in part:
            sketch.update(element)
        merged.merge(sketch)
    other = frequent_strings_sketch.deserialize(base64.b64decode(request["other"]))
    items = {name: sketch.get_frequent_items(NO_FALSE_NEGATIVES) for name, sketch in
             [("merged", merged), ("other", other)]}
    return {
        "sketch": text(merged.serialize()),
        "rewritten": text(other.serialize()),
        "total": other.total_weight,
        **{name: {item: [lower, upper] for item, _, lower, upper in rows} for name, rows in items.items()},
    }


if __name__ == "__main__":
    families = {"hll": hll, "topk": topk}
    requests = json.load(sys.stdin)
    json.dump([families[request["family"]](request) for request in requests], sys.stdout)
