"""Makes the reference, one page a type, from the XML documentation that the compiler writes."""

import html
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

SOURCE, OUT = Path(sys.argv[1]), Path(sys.argv[2])
PUBLIC = {
    line.split("!", 1)[0] for line in Path("src/Mq9/PublicAPI.Shipped.txt").read_text("utf-8").splitlines()
}
TITLES = {"M": "Methods", "P": "Properties", "F": "Fields"}
STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:50em;margin:2em auto;padding:0 1em}"
    "code,pre{background:#eee}h3{font-size:1em}"
)


def short(name: str) -> str:
    """A documented name without namespaces and compiler marks."""
    name = re.sub(r"`+\d+", "<T>", name).replace("{", "<").replace("}", ">").replace("#ctor", "new")
    return re.sub(r"\b[A-Za-z0-9_]+\.(?=[A-Za-z0-9_.]*[A-Z])", "", name)


def prose(node: ElementTree.Element | None) -> str:
    """Documentation as HTML."""
    if node is None:
        return ""
    parts = [html.escape(node.text or "")]
    for child in node:
        inner = prose(child)
        if child.tag in ("see", "paramref", "typeparamref"):
            reference = child.get("cref")
            name = reference[2:] if reference else child.get("name") or child.get("langword") or ""
            inner = f"<code>{html.escape(short(name))}</code>"
        elif child.tag == "c":
            inner = f"<code>{inner}</code>"
        elif child.tag == "code":
            inner = f"<pre>{inner}</pre>"
        parts += [inner, html.escape(child.tail or "")]
    return re.sub(r"\n\s*\n", "<p>", "".join(parts)).strip()


def entry(member: ElementTree.Element) -> str:
    """The documentation of one member."""
    parts = [prose(member.find("summary"))]
    parts += [
        f"<p>{prose(member.find(tag))}" for tag in ("remarks", "example") if member.find(tag) is not None
    ]
    rows = [
        f"<li><code>{html.escape(p.get('name') or '')}</code>: {prose(p)}" for p in member.findall("param")
    ]
    if rows:
        parts.append("<p>Parameters:<ul>" + "".join(rows) + "</ul>")
    if member.find("returns") is not None:
        parts.append(f"<p>Returns: {prose(member.find('returns'))}")
    for error in member.findall("exception"):
        parts.append(
            f"<p>Throws <code>{html.escape(short((error.get('cref') or '')[2:]))}</code>: {prose(error)}"
        )
    return "\n".join(parts)


def page(title: str, body: str) -> str:
    """A whole page."""
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
    return f"{head}<style>{STYLE}</style>\n<h1>{html.escape(title)}</h1>\n{body}\n</html>\n"


def main() -> None:
    """Writes all pages and their index."""
    types: dict[str, ElementTree.Element] = {}
    members: dict[str, list[tuple[str, str, ElementTree.Element]]] = {}
    public = {
        line.removeprefix("sealed ").split(" ")[0].removeprefix("Mq9.")
        for line in PUBLIC
        if line.startswith("Mq9.") and "(" not in line and "->" not in line
    }
    for member in ElementTree.parse(SOURCE).getroot().iter("member"):
        kind, name = (member.get("name") or "").split(":", 1)
        name = name.removeprefix("Mq9.")
        if kind == "T" and name in public:
            types[name] = member
        elif name.split("(")[0].rpartition(".")[0] in public and member.find("summary") is not None:
            members.setdefault(name.split("(")[0].rpartition(".")[0], []).append((kind, name, member))
    OUT.mkdir(parents=True, exist_ok=True)
    for name, documented in types.items():
        body = [entry(documented)]
        for kind, title in TITLES.items():
            found = [
                (full, item) for k, full, item in members.get(name, []) if k == kind and "op_" not in full
            ]
            if found:
                body.append(f"<h2>{title}</h2>")
                body += [
                    f"<h3><code>{html.escape(short(full.removeprefix(name + '.')))}</code></h3>{entry(item)}"
                    for full, item in found
                ]
        (OUT / f"{name}.html").write_text(page(name, "\n".join(body)), "utf-8")
    rows = "".join(
        f'<li><a href="{name}.html">{name}</a>: {prose(types[name].find("summary"))}'
        for name in sorted(types)
    )
    (OUT / "index.html").write_text(page("mq9 for .NET", f"<ul>{rows}</ul>"), "utf-8")
    if len(types) < 20:
        sys.exit(f"only {len(types)} types are documented: is {SOURCE} that of the library?")


main()
