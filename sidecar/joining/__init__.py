"""Making a machine part of a hub, and taking it out again. ``plan`` decides, ``steps`` act, each of them as often as it takes."""
