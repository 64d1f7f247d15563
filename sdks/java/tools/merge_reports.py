"""Puts the reports of Surefire into one JUnit file: merge_reports.py FOLDER FILE."""

import sys
from pathlib import Path
from xml.etree import ElementTree

COUNTS = ("tests", "errors", "failures", "skipped")


def main() -> None:
    """Merges; no report at all is an error."""
    folder, target = Path(sys.argv[1]), Path(sys.argv[2])
    suites = ElementTree.Element("testsuites", name="java")
    totals = dict.fromkeys(COUNTS, 0)
    for file in sorted(folder.glob("TEST-*.xml")):
        suite = ElementTree.parse(file).getroot()
        for part in suite.findall("properties"):
            suite.remove(part)
        for name in COUNTS:
            totals[name] += int(suite.get(name, 0))
        suites.append(suite)
    if not totals["tests"]:
        raise SystemExit(f"no test ran: there is no report in {folder}")
    for name, count in totals.items():
        suites.set(name, str(count))
    target.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(suites).write(target, encoding="utf-8", xml_declaration=True)


if __name__ == "__main__":
    main()
