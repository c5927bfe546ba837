#!/usr/bin/env python3
"""Packs a checkout of github.com/rustsec/advisory-db into the one file that tests/audit.rs reads.

    git clone --depth 1 https://github.com/rustsec/advisory-db
    tests/audit/pack.py advisory-db > tests/audit/advisories.json

Needs Python 3.11 and nothing else. Withdrawn advisories are left out.
"""

import json
import re
import sys
import tomllib
from pathlib import Path

FRONT_MATTER = re.compile(r"```toml\n(.*?)```\s*#\s*([^\n]*)", re.DOTALL)


def advisories(database: Path):
    for file in sorted((database / "crates").rglob("*.md")):
        found = FRONT_MATTER.search(file.read_text(encoding="utf8"))
        if not found:
            sys.exit(f"{file}: not an advisory as this script knows them")
        document = tomllib.loads(found.group(1))
        advisory, versions = document["advisory"], document["versions"]
        if "withdrawn" in advisory:
            continue
        yield {
            "id": advisory["id"],
            "package": advisory["package"],
            "date": str(advisory["date"]),
            "info": advisory.get("informational"),
            "title": found.group(2).strip(),
            "patched": versions.get("patched", []),
            "unaffected": versions.get("unaffected", []),
        }


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    packed = sorted(advisories(Path(sys.argv[1])), key=lambda one: one["id"])
    print("[")
    print(",\n".join(json.dumps(one, ensure_ascii=False) for one in packed))
    print("]")


if __name__ == "__main__":
    main()
