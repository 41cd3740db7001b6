"""Tests the layers of the package: every import points down; no file or function is long."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "ssljax"
# From bottom to top. Packages on one line are independent; modules of one package need not be.
ROOMS = (
    "errors log drawing interrupts fonts",
    "lookup paths spreadsheet",
    "checks recipe_files losses heads defaults spelling",
    "overrides reliability",
    "storage",
    "exits",
    "data",
    "augment models",
    "forward network",
    "pretrained",
    "methods",
    "training",
    "experiment",
    "description on_features",
    "parts requirements",
    "recipe",
    "run",
    "recorded",
    "sweep trained",
    "generations",
    "ahead evaluation probe report",
    "inference",
    "export",
    "library",
    "flags",
    "modes usage",
    "cli",
    "__init__ __main__",
)
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms.split()}
FILES = {str(path.relative_to(PACKAGE)): path.read_text() for path in PACKAGE.rglob("*.py")}
LONG_FILES = {"export/npu_run.py", "augment/ops.py"}
LONG_FUNCTIONS = {"export/npu_run.py"}  # a single file, because it is copied to another machine


def imports(tree):
    """Yields the modules of `ssljax` that a file imports, also in functions, and the lines."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from ((name, node.lineno) for name in names if name.split(".")[0] == "ssljax")
        yield from imports(node)


def test_every_import_points_down():
    upward = []
    for name, text in FILES.items():
        home = name.removesuffix(".py").split("/")[0]
        for module, line in imports(ast.parse(text)):
            room = (*module.split("."), "__init__")[1]
            if room != home and FLOOR[room] >= FLOOR[home]:
                upward.append(f"ssljax/{name}:{line} imports {module}")
    assert not upward, "\n".join(upward)


def docstring_lines(tree):
    """Returns the lines of all docstrings in a piece of code."""
    for node in ast.walk(tree):
        documented = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if documented and ast.get_docstring(node) is not None:
            yield from range(node.body[0].lineno, node.body[0].end_lineno + 1)


def code_lines(function, lines):
    """Returns the number of code lines of a function, without docstrings, comments, blank lines."""
    texts = (
        lines[number - 1].strip()
        for number in {*range(function.lineno, function.end_lineno + 1)}
        - {*docstring_lines(function)}
    )
    return sum(bool(text) and not text.startswith("#") for text in texts)


def test_files_fit_a_sitting_and_functions_a_screen():
    long = [
        f"ssljax/{name}: {len(text.splitlines())} lines"
        for name, text in FILES.items()
        if name not in LONG_FILES and len(text.splitlines()) > 350
    ]
    for name, text in FILES.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = code_lines(node, text.splitlines())
                if size > 60 and name not in LONG_FUNCTIONS:
                    long.append(f"ssljax/{name}:{node.lineno} {node.name}: {size} lines")
    assert not long, "\n".join(long)


def test_text_files_are_utf_8_whatever_the_system_s_encoding_is():
    silent = []
    for name, text in FILES.items():
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call) or name == "export/npu_run.py":  # writes ASCII
                continue
            function, options = ast.unparse(node.func), {k.arg for k in node.keywords}
            modes = [a.value for a in node.args if isinstance(a, ast.Constant)]
            encoded = "encoding" in options or "utf-8" in modes
            if function.endswith((".read_text", ".write_text")) and not encoded:
                silent.append(f"ssljax/{name}:{node.lineno} {function}")
            opens = function == "open" or function.endswith((".open", ".fdopen"))
            binary = any("b" in str(mode) for mode in modes)
            if opens and not binary and not encoded and function not in BINARY:
                silent.append(f"ssljax/{name}:{node.lineno} {function}")
    assert not silent, "\n".join(silent)


# Functions called `open` that return bytes, or no file.
BINARY = ("os.open", "Image.open", "archive.open", "writer.open", "member.writer.open")
