"""A real program that serves as an agent: reads its instructions from the prompt file, edits a file, commits with git.

Its instruction is a line ``APPEND <path>: <text>`` somewhere in the prompt. Standard library only.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def main() -> int:
    prompt = Path(sys.argv[1]).read_text("utf-8")
    found = re.search(r"^APPEND (\S+): (.+)$", prompt, re.MULTILINE)
    if found is None:
        print("no instruction in the prompt", file=sys.stderr)
        return 2
    path, text = Path(found[1]), found[2]
    with path.open("a", encoding="utf-8") as file:
        file.write(text + "\n")
    subprocess.run(["git", "add", "--", str(path)], check=True)
    subprocess.run(["git", "commit", "--quiet", "--message", f"docs: extend {path}"], check=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
