"""Sphinx configuration of these pages: sphinx-build -W docs docs/_build."""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import vqvae_jax  # noqa: E402

# The package imports its attributes on first use; autodoc lists imported ones only.
for _name in vqvae_jax.__all__:
    setattr(vqvae_jax, _name, getattr(vqvae_jax, _name))

_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

project = "vqvae_jax"
version = release = _PROJECT["project"]["version"]
project_copyright = "the vqvae_jax authors, Apache-2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
# Docstrings write code in single backticks.
default_role = "code"

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 72
# Docstrings state shapes.
napoleon_attr_annotations = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "furo"
html_title = "vqvae_jax"
html_show_sphinx = False
html_copy_source = False


def mark_code(app, what, name, obj, options, lines):
    """Mark indented lines after a blank line as a code block of reStructuredText.

    Sections such as "Args:" are not changed.
    """
    marked, in_block = [], False
    for line in lines:
        starts = line.startswith("    ") and marked and not marked[-1]
        before = next((each for each in reversed(marked[:-1]) if each), "")
        if starts and not in_block and not before.startswith(" "):
            marked += ["::", ""]
            in_block = True
        elif line and not line.startswith(" "):
            in_block = False
        marked.append(line)
    lines[:] = marked


# Replacements for reprs that are long or that Sphinx cannot parse.
_REPRS = (
    # A Flax module has several lines and a comment.
    (r"(\w+)\(\s*# attributes(?:[^()]|\([^()]*\))*\)", r"\1()"),
    # Fields of every Flax module.
    (r", parent: [^=]*= <[^>]*>, name: str \| None = None", ""),
    (r"<function (\w+)\.<locals>\.\w+>", r"\1()"),
    (r"<function (\w+)>", r"\1"),
    # A choice of quantizers.
    (r"~[\w.]*Annotated\[(~[\w.]*Quantizer), ~[\w.]*OneOf\(.*?\)\]", r"\1"),
    (r"~jaxtyping\.|jaxlib\._jax\.(?=Array)", ""),
    (
        r"Key\[Array, ''\] \| UInt32\[Array, '2'\] \| UInt32\[Array, '4'\]",
        "PRNGKeyArray",
    ),
)


def shorten_types(app, what, name, obj, options, arguments, result):
    """Shorten types and defaults in signatures."""

    def shortened(text):
        for pattern, replacement in _REPRS:
            text = re.sub(pattern, replacement, text or "")
        return text or None

    return shortened(arguments), shortened(result)


def setup(app):
    """Connect the handlers; code is marked before napoleon parses the sections."""
    app.connect("autodoc-process-docstring", mark_code, priority=400)
    app.connect("autodoc-process-signature", shorten_types)
