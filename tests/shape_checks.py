"""Checks of the shape of the package: who imports whom, sizes, keys, and what documents name.

Every check reads the sources without importing them and lists all offenders as ``file:line: finding``.
test_shape.py runs them.
"""

from __future__ import annotations

import ast
import functools
import io
import itertools
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

# A room may import rooms of a lower rank and itself. "" is lung_d2/__init__.py, which only hands names out.
RANKS = {
    "errors": 0,
    "lazy": 1,
    "files": 1,
    "processes": 1,
    "quiet": 1,
    "categories": 1,
    "masks": 2,
    "ct": 3,
    "modeling": 3,
    "drawing": 4,
    "config": 4,
    "lungs": 4,
    "phantom": 5,
    "data": 6,
    "lesions": 7,
    "evaluation": 8,
    "engine": 9,
    "findings": 10,
    "recognition": 11,
    "client": 12,
    "command_line": 12,
    "": 13,
}
TORCH_FREE = (
    "errors",
    "files",
    "categories",
    "masks",
    "ct",
    "lungs",
    "drawing",
    "phantom",
    "lesions",
    "findings",
    "command_line",
)
TORCH = {"torch", "torchvision", "detectron2", "fvcore"}
MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 60
# Tests of the whole, or of a whole room, rather than of one module.
CROSS_CUTTING = {
    f"test_{name}.py"
    for name in (
        "shape",
        "setup",
        "method",
        "variants",
        "odd_files",
        "hostile",
        "end_to_end",
        "third_category",
        "recognize_inputs",
        "browser",
    )
}


@functools.cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def sources(root: Path, *folders: str) -> Iterator[tuple[Path, str]]:
    """Yield every Python file of these folders with its path as the reports name it."""
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            yield path, path.relative_to(root).as_posix()


def room_of(dotted: str) -> str:
    return [*dotted.split("."), ""][1]


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def runtime_children(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the children of a node but those that only a type checker sees."""
    yield from node.orelse if isinstance(node, ast.If) and is_type_checking(node) else ast.iter_child_nodes(node)


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in runtime_children(node):
        yield from runtime_nodes(child)


def on_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what runs when a module is imported: all but the bodies of functions."""
    yield node
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        for child in runtime_children(node):
            yield from on_import(child)


def module_of(node: ast.ImportFrom, package: tuple[str, ...]) -> str:
    base = package[: len(package) - node.level + 1] if node.level else ()
    return ".".join([*base, *([node.module] if node.module else [])])


def imports(path: Path, root: Path) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of every import, relative and lazy ones (``"lung_d2.x"`` as a string) included."""
    package = path.relative_to(root).with_suffix("").parts[:-1]
    for node in runtime_nodes(parse(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = module_of(node, package)
            if module != "lung_d2":
                yield node.lineno, module
                continue
            for name in (alias.name for alias in node.names if alias.name != "__version__"):
                yield node.lineno, f"lung_d2.{name}" if name in RANKS else "lung_d2"
        elif (
            isinstance(node, ast.Constant)
            and re.fullmatch(r"lung_d2(\.\w+)+", str(node.value))
            and room_of(str(node.value)) in RANKS  # else a group of entry points
        ):
            yield node.lineno, str(node.value)


def upward_imports(root: Path) -> list[str]:
    found = []
    for path, name in sources(root, "lung_d2"):
        room = room_of(".".join(path.relative_to(root).with_suffix("").parts)).replace("__init__", "")
        if room not in RANKS:
            found.append(f"{name}:1: room {room!r} has no place in the order of imports")
            continue
        for line, target in imports(path, root):
            other = room_of(target)
            if target.split(".")[0] == "tools":
                found.append(f"{name}:{line}: imports {target}: tools are on top")
            if target.split(".")[0] != "lung_d2" or other == room:
                continue
            if RANKS.get(other, 99) >= RANKS[room]:
                found.append(f"{name}:{line}: {room or 'lung_d2'} imports {target}, which is not below it")
    return found


def import_graph(root: Path) -> dict[str, set[str]]:
    """Return which modules of the package each module imports while it is imported itself."""
    modules = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for path, _ in sources(root, "lung_d2")
    }
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for module, path in modules.items():
        for node in on_import(parse(path)):
            if isinstance(node, ast.Import):
                graph[module] |= {alias.name for alias in node.names} & modules.keys()
            elif isinstance(node, ast.ImportFrom):
                source = module_of(node, path.relative_to(root).parts[:-1])
                named = {f"{source}.{alias.name}" for alias in node.names}
                graph[module] |= named & modules.keys() or {source} & modules.keys()
    return graph


def import_circles(root: Path) -> list[str]:
    """List the strongly connected components of the imports."""
    graph = import_graph(root)
    reached: dict[str, set[str]] = {}
    for module in graph:
        todo, reached[module] = [module], set()
        while todo:
            new = graph[todo.pop()] - reached[module]
            reached[module] |= new
            todo += new
    circles = {
        tuple(sorted(other for other in reached[module] if module in reached[other]))
        for module in graph
        if module in reached[module]
    }
    return [f"{circle[0].replace('.', '/')}.py:1: circle of imports: {', '.join(circle)}" for circle in sorted(circles)]


def torch_in_torch_free_rooms(root: Path) -> list[str]:
    return [
        f"{name}:{line}: imports {target} in a room without torch"
        for path, name in sources(root, "lung_d2")
        if name.split("/")[1].removesuffix(".py") in TORCH_FREE
        for line, target in imports(path, root)
        if target.split(".")[0] in TORCH
    ]


def unidiomatic_english(root: Path) -> list[str]:
    comparatives = "longer|better|faster|narrower"
    pattern = rf"(?<!there )\b(?:is|are) no (?!(?:{comparatives})\b)[a-z]|\bmend(?:s|ed|ing)?\b"
    return [
        f"{name}:{number}: {found[0]!r}: write 'is not a', 'fix' or 'correct'"
        for path, name in sources(root, "lung_d2", "tools")
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if (found := re.search(pattern, line, re.IGNORECASE))
    ]


def long_files(root: Path) -> list[str]:
    paths = [path for path, _ in sources(root, "lung_d2", "tools", "tests")] + sorted((root / "tools").glob("*.sh"))
    counted = [(path, len(path.read_text("utf-8").splitlines())) for path in paths]
    return [
        f"{path.relative_to(root).as_posix()}:1: {lines} lines, at most {MAX_FILE_LINES}"
        for path, lines in counted
        if lines > MAX_FILE_LINES
    ]


def long_functions(root: Path) -> list[str]:
    found = []
    for path, name in sources(root, "lung_d2", "tools", "tests"):
        for node in ast.walk(parse(path)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
            if lines > MAX_FUNCTION_LINES:
                found.append(f"{name}:{node.lineno}: {node.name} has {lines} lines, at most {MAX_FUNCTION_LINES}")
    return found


def catches_everything(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    names = {ast.unparse(kind) for kind in types}
    last = handler.body[-1]
    cleans_up = isinstance(last, ast.Raise) and last.exc is None
    return "Exception" in names or ("BaseException" in names and not cleans_up)


def forbidden_code(root: Path) -> list[str]:
    found = []
    for path, name in sources(root, "lung_d2"):
        if path.stem in ("utils", "util", "helpers"):
            found.append(f"{name}:1: no {path.name}: name the room by what it does")
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.ExceptHandler) and catches_everything(node):
                found.append(f"{name}:{node.lineno}: catches every exception")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                found.append(f"{name}:{node.lineno}: prints; use the logger")
        calls = (node for node in on_import(parse(path)) if isinstance(node, ast.Call))
        for node in calls:
            if re.search(r"\.(basicConfig|addHandler|setLevel)$", ast.unparse(node.func)):
                found.append(f"{name}:{node.lineno}: sets up logging on import")
    return found


def config_keys(root: Path) -> dict[str, ast.stmt]:
    """Return the keys that add_lung_config sets, as dotted path to its statement; aliases are followed."""
    keys: dict[str, ast.stmt] = {}
    for function in parse(root / "lung_d2" / "config" / "keys.py").body:
        if not isinstance(function, ast.FunctionDef) or not re.match("add_lung_config|_add_", function.name):
            continue
        aliases = {argument.arg: "" for argument in function.args.args}

        def dotted(node: ast.AST, aliases: dict[str, str] = aliases) -> str | None:
            head, _, rest = ast.unparse(node).partition(".")
            return ".".join(filter(None, (aliases[head], rest))) if head in aliases else None

        for statement in (node for node in ast.walk(function) if isinstance(node, ast.Assign | ast.AnnAssign)):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            paths = [path for path in map(dotted, [*targets, statement.value or statement.target]) if path]
            is_node = isinstance(statement.value, ast.Call) and ast.unparse(statement.value.func) in ("CN", "CfgNode")
            for target in targets:
                if isinstance(target, ast.Name):
                    aliases[target.id] = paths[0] if paths else ""
                elif not is_node and (path := dotted(target)):
                    keys[path] = statement
    return keys


def uncommented_keys(root: Path) -> list[str]:
    text = (root / "lung_d2" / "config" / "keys.py").read_text("utf-8")
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = {token.start[0] for token in tokens if token.type == tokenize.COMMENT}
    statements = config_keys(root)
    taken = {line for node in statements.values() for line in range(node.lineno, (node.end_lineno or 0) + 1)}
    found = []
    for key, node in statements.items():
        above = node.lineno - 1
        while above in taken and above not in comments:  # one comment may head a block of keys
            above -= 1
        if above not in comments and not comments & set(range(node.lineno, (node.end_lineno or 0) + 1)):
            found.append(f"lung_d2/config/keys.py:{node.lineno}: {key} has no comment")
    return found


def unread_keys(root: Path) -> list[str]:
    reads: set[tuple[str, str]] = set()  # (parent, leaf), as in SOLVER.MAX_ITER
    for path, _ in sources(root, "lung_d2", "tools"):
        loads = [n for n in ast.walk(parse(path)) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Load)]
        parents = {node.attr for node in loads}
        for node in loads:
            if isinstance(node.value, ast.Attribute):
                reads.add((node.value.attr, node.attr))
            else:  # read from a name: solver = cfg.SOLVER; solver.MAX_ITER
                reads |= {(parent, node.attr) for parent in parents}
    return [
        f"lung_d2/config/keys.py:{node.lineno}: nothing reads {key}"
        for key, node in config_keys(root).items()
        if tuple(key.split(".")[-2:]) not in reads
    ]


def unmirrored_tests(root: Path) -> list[str]:
    found = []
    for path, name in sources(root, "tests"):
        if not path.name.startswith("test_") or path.name in CROSS_CUTTING:
            continue
        stem = path.stem.removeprefix("test_")
        folder = path.parent.relative_to(root / "tests")
        home = root / folder if folder.parts[:1] == ("tools",) else root / "lung_d2" / folder
        fits = (home / f"{stem}.py", home / f"_{stem}.py", home / f"__{stem}__.py", home / f"{stem}.sh", home / stem)
        if not any(candidate.exists() for candidate in fits):
            found.append(f"{name}:1: mirrors no module ({fits[0].relative_to(root).as_posix()} is not there)")
    return found


def rooms_without_init(root: Path) -> list[str]:
    folders = sorted({path.parent for path, _ in sources(root, "lung_d2")})
    return [
        f"{folder.relative_to(root).as_posix()}:1: no __init__.py: a built package would leave this folder out"
        for folder in folders
        if not (folder / "__init__.py").exists()
    ]


def expand_braces(text: str) -> list[str]:
    parts = [part.split(",") for part in re.split(r"[{}]", text)]
    return ["".join(choice) for choice in itertools.product(*parts)]


def dead_names_in_documents(root: Path) -> list[str]:
    path_in_text = r"(?<![\w/.~$-])((?:tools|configs|lung_d2|tests|\.ci)/(?:[\w.*/-]|\{[\w,.]+\})+)"
    found = []
    for document in ("README.md", "CHANGELOG.md", "tools/README.md", "datasets/README.md"):
        home = (root / document).parent
        text = (root / document).read_text("utf-8") if (root / document).is_file() else ""
        is_before = False  # in a table of successors, whose first column names what is gone
        for number, line in enumerate(text.splitlines(), 1):
            is_before = line.startswith("|") and (is_before or line.startswith("| before |"))
            line = line.split("|", 2)[2] if is_before else line
            named = [(root, name.rstrip(".-/")) for name in re.findall(path_in_text, line) if "..." not in name]
            named += [(home, name) for name in re.findall(r"\]\((?![a-z]+:|#)([^)#\s]+)", line)]
            for base, name in named:
                found += [
                    f"{document}:{number}: names {one}, which is not there"
                    for one in expand_braces(name)
                    if not (any(base.glob(one)) if "*" in one else (base / one).exists())
                ]
    return found
