"""Measures the shape of the `recjax` package from its source, without importing it.

    python -m experiments.codebase [--repo DIR [DIR ...]]

Prints a Markdown table with a column for each checkout, over the .py files in recjax/:

* A package is a directory directly below recjax/; a file directly in recjax/ counts as
  its own package. Cycles count as one node of a path. The number of layers and the
  longest import chain are the longest paths between packages and between files.
* Imports inside functions count, imports under `if TYPE_CHECKING` do not.
* The files opened for one training step define the functions in `STARTS`, every symbol
  that these mention, and every symbol that those mention (`LEVELS` = 2). A symbol is a
  top-level function, class or assignment. Names are resolved through definitions in the
  file, imports (also re-exports) and module attributes. A method that is called on an
  instance is found only if its class is named too.
* Functions are measured from `def` to their end; methods and nested functions count.
* A comment line has a `#` comment that consists of more than `noqa` or `type:`.
* The share of `Any` is among annotated parameters; `list[Any]` is not a bare `Any`.
"""

import argparse
import ast
import io
import math
import re
import statistics
import symtable
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path, PurePosixPath
from typing import NamedTuple

STARTS = ("train_step", "fit", "train_phase", "run_phase", "train_steps")
LEVELS = 2  # how far mentions are followed from the functions of a training step
LONG = 80  # lines; longer functions are counted
DIRECTIVE = re.compile(r"\s*(noqa\b|type:|$)")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
Graph = Mapping[str, set[str]]
Component = tuple[str, ...]  # nodes on a common cycle; most often a single node


class Symbol(NamedTuple):
    """A top-level name, and the file that defines it."""

    path: str
    name: str


class Import(NamedTuple):
    """One imported name; for `from a import b as c`: ("c", "a", "b").

    The name is dotted for `import a.b`, and the symbol is then empty.
    """

    name: str
    module: str
    symbol: str


class Report(NamedTuple):
    """Measurements of one checkout: metrics by name, and what they count."""

    metrics: dict[str, str]
    cycles: list[Component]
    chain: list[Component]
    starts: list[str]
    step_files: list[str]


class Codebase:
    """The source files of the package by path relative to the root of a checkout."""

    def __init__(self, repo: Path):
        paths = sorted((repo / "recjax").rglob("*.py"))
        self.sources = {p.relative_to(repo).as_posix(): p.read_bytes() for p in paths}
        self.trees = {p: ast.parse(x, p) for p, x in self.sources.items()}
        self._imports = {p: list(find_imports(t, p)) for p, t in self.trees.items()}
        self._definitions = {p: find_definitions(t) for p, t in self.trees.items()}

    def find_file(self, module: str) -> str | None:
        """Returns the path of a module's file, None for a module that is not ours."""
        stem = module.replace(".", "/")
        paths = (f"{stem}.py", f"{stem}/__init__.py")
        return next((path for path in paths if path in self.sources), None)

    def import_graph(self) -> Graph:
        """Returns the files that each file imports."""

        def imported(each: Import) -> str:
            submodule = self.find_file(f"{each.module}.{each.symbol}")
            return submodule or self.find_file(each.module) or ""

        imports = self._imports.items()
        return {path: {*map(imported, some)} - {""} for path, some in imports}

    def step_functions(self) -> list[Symbol]:
        """Returns the functions where reading a training step starts."""
        return [
            Symbol(path, name)
            for path, definitions in self._definitions.items()
            for name in STARTS
            if isinstance(definitions.get(name), FUNCTIONS)
        ]

    def step_files(self) -> list[str]:
        """Returns the files opened for one training step; see the module docstring."""
        found = latest = set(self.step_functions())
        for _ in range(LEVELS):
            latest = {x for symbol in latest for x in self._mentions(symbol)} - found
            found = found | latest
        return sorted({symbol.path for symbol in found})

    def _mentions(self, symbol: Symbol) -> Iterator[Symbol]:
        """Yields the symbols that a definition names."""
        definition = self._definitions[symbol.path][symbol.name]
        names = find_outer_names(definition)
        for node in ast.walk(definition):
            if isinstance(node, ast.Name | ast.Attribute):
                # Parts such as "b(x)" of a.b(x).c name nothing; a.b is its own node.
                chain = ast.unparse(node).split(".")
                if chain[0] in names and (found := self._resolve(symbol.path, chain)):
                    yield found

    def _resolve(
        self, path: str, chain: list[str], visited: frozenset[Symbol] = frozenset()
    ) -> Symbol | None:
        """Returns the symbol that `a.b.c` in a file refers to, None if it is not ours.

        `visited` are the names followed so far: files may import a name in a circle.
        """
        if not chain:
            return None  # a module, not a symbol of one
        here = Symbol(path, chain[0])
        if here.name in self._definitions[path]:
            return here
        for name, module, symbol in self._imports[path]:
            bound = name.split(".")
            if here in visited or chain[: len(bound)] != bound:
                continue
            rest = [*filter(None, [symbol]), *chain[len(bound) :]]
            while rest and self.find_file(f"{module}.{rest[0]}"):
                module = f"{module}.{rest.pop(0)}"
            file = self.find_file(module)
            return self._resolve(file, rest, visited | {here}) if file else None
        return None


def find_imports(node: ast.AST, path: str) -> Iterator[Import]:
    """Yields the imports below a node of a file, except those for type checkers."""
    children: Sequence[ast.AST] = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(alias.asname or alias.name, alias.name, "")
    elif isinstance(node, ast.ImportFrom):
        parents = PurePosixPath(path).parts[: -node.level] if node.level else ()
        module = ".".join([*parents, *filter(None, [node.module])])
        for alias in node.names:
            yield Import(alias.asname or alias.name, module, alias.name)
    elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        children = node.orelse
    for child in children:
        yield from find_imports(child, path)


def find_definitions(tree: ast.Module) -> dict[str, ast.stmt]:
    """Returns the top-level functions, classes and assignments of a file by name."""
    found: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [x for target in targets for x in ast.walk(target)]
            found |= {x.id: node for x in names if isinstance(x, ast.Name)}
    return found


def find_outer_names(definition: ast.stmt) -> set[str]:
    """Returns the names in a definition that are not its own local variables."""
    module = symtable.symtable(ast.unparse(definition), "definition", "exec")
    tables = [module]
    for table in tables:  # grows while the nested scopes are visited
        tables += table.get_children()
    return {
        symbol.get_name()
        for table in tables
        for symbol in table.get_symbols()
        if table is module or symbol.is_global() or symbol.is_imported()
    }


def package_graph(files: Graph) -> Graph:
    """Returns the packages that each package imports."""
    graph: dict[str, set[str]] = {}
    for path, imported in files.items():
        package, *others = ("/".join(x.split("/")[:2]) for x in (path, *imported))
        graph.setdefault(package, set()).update({*others} - {package})
    return graph


def condense(graph: Graph) -> dict[Component, set[Component]]:
    """Returns the graph with every strongly connected component as one node."""
    reached = {node: {node} | graph[node] for node in graph}
    for middle in graph:  # Warshall's transitive closure
        for nodes in reached.values():
            if middle in nodes:
                nodes |= reached[middle]
    component = {
        a: tuple(sorted(b for b in reached[a] if a in reached[b])) for a in graph
    }
    return {
        nodes: {component[b] for a in nodes for b in graph[a]} - {nodes}
        for nodes in component.values()
    }


def longest_path(graph: Graph) -> list[Component]:
    """Returns the nodes on the longest path, after condensing cycles."""
    condensed = condense(graph)
    paths: dict[Component, list[Component]] = {}
    for node in TopologicalSorter(condensed).static_order():  # imported files first
        below = [paths[x] for x in sorted(condensed[node])]
        paths[node] = [node, *max(below, key=len, default=[])]
    return max((paths[x] for x in sorted(paths)), key=len)


def count_comment_lines(source: bytes) -> int:
    """Counts the lines with a `#` comment that is more than a directive to a tool."""
    return sum(
        not all(DIRECTIVE.match(part) for part in token.string.split("#"))
        for token in tokenize.tokenize(io.BytesIO(source).readline)
        if token.type == tokenize.COMMENT
    )


def measure_functions(trees: Sequence[ast.AST]) -> dict[str, str]:
    """Measures the length of functions, and the annotations of their parameters."""
    nodes = [node for tree in trees for node in ast.walk(tree)]
    functions = [node for node in nodes if isinstance(node, FUNCTIONS)]
    lengths = sorted((x.end_lineno or 0) - x.lineno + 1 for x in functions)
    parameters = [x for x in nodes if isinstance(x, ast.arg) and x.annotation]
    annotations = [ast.unparse(x.annotation) for x in parameters if x.annotation]
    bare = sum(text in ("Any", "typing.Any") for text in annotations)
    return {
        "function length, median": f"{statistics.median(lengths):g}",
        "function length, p90": f"{lengths[math.ceil(0.9 * len(lengths)) - 1]}",
        "function length, maximum": f"{lengths[-1]}",
        f"functions over {LONG} lines": f"{sum(x > LONG for x in lengths)}",
        "parameters annotated `Any`": f"{bare} ({bare / len(annotations):.1%})",
    }


def measure(repo: Path) -> Report:
    """Measures all metrics of a checkout, given its root."""
    code = Codebase(repo)
    lines = {path: len(x.splitlines()) for path, x in code.sources.items()}
    longest = max(lines, key=lambda path: lines[path])
    comments = sum(map(count_comment_lines, code.sources.values()))
    files = code.import_graph()
    packages = package_graph(files)
    cycles = [nodes for nodes in condense(packages) if len(nodes) > 1]
    chain = longest_path(files)
    starts = [f"{path}: {name}" for path, name in code.step_functions()]
    step_files = code.step_files()
    metrics = {
        "files": f"{len(lines)}",
        "lines": f"{sum(lines.values()):,}",
        "longest file, lines": f"{lines[longest]} (`{longest}`)",
        "lines with a comment": f"{comments / sum(lines.values()):.1%}",
        "packages": f"{len(packages)}",
        "imports between packages": f"{sum(map(len, packages.values()))}",
        "layers of packages": f"{len(longest_path(packages))}",
        "package cycles": f"{len(cycles)}",
        "longest import chain, files": f"{len(chain)}",
        "files opened for one training step": f"{len(step_files)}",
        **measure_functions(list(code.trees.values())),
    }
    return Report(metrics, cycles, chain, starts, step_files)


def to_markdown(reports: Mapping[str, Report]) -> str:
    """Formats the table of reports by title, and below it what was counted."""
    first, *_ = reports.values()
    lines = [f"| metric | {' | '.join(reports)} |", "|---|" + "---:|" * len(reports)]
    for metric in first.metrics:
        cells = (report.metrics[metric] for report in reports.values())
        lines.append(f"| {metric} | {' | '.join(cells)} |")
    for title, report in reports.items():
        details = {
            "longest import chain": map(", ".join, report.chain),
            "package cycles": map(", ".join, report.cycles),
            "functions a training step starts from": report.starts,
            "files opened for one training step": report.step_files,
        }
        for heading, items in details.items():
            if numbered := [f"{i}. {item}" for i, item in enumerate(items, 1)]:
                lines += ["", f"{title}, {heading}:", "", *numbered]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the measurements of the checkouts that the command line names."""
    parser = argparse.ArgumentParser(description="Measures the shape of the code.")
    text = "checkouts to measure, one column each (default: this directory)"
    parser.add_argument("--repo", nargs="+", default=["."], metavar="DIR", help=text)
    repos = parser.parse_args(argv).repo
    for repo in repos:
        if not any(Path(repo, "recjax").rglob("*.py")):
            parser.error(f"--repo {repo}: no .py files in recjax/; name a checkout")
    try:
        print(to_markdown({repo: measure(Path(repo)) for repo in repos}))
    except SyntaxError as e:
        parser.error(f"{e.filename}, line {e.lineno}: {e.msg}")


if __name__ == "__main__":
    main()
