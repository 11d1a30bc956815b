"""How Sphinx builds these pages: sphinx-build -W docs docs/_build."""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import vqvae_jax  # noqa: E402

# It imports what it offers on first use; autodoc lists what has been used.
for _name in vqvae_jax.__all__:
    setattr(vqvae_jax, _name, getattr(vqvae_jax, _name))

_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

project = "vqvae_jax"
version = release = _PROJECT["project"]["version"]
project_copyright = "the vqvae_jax authors, Apache-2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
# Docstrings put code between single backticks.
default_role = "code"

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 72
# Docstrings tell shapes themselves.
napoleon_attr_annotations = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "furo"
html_title = "vqvae_jax"
html_show_sphinx = False
html_copy_source = False


def mark_code(app, what, name, obj, options, lines):
    """Tell reStructuredText which indented lines of a docstring are code.

    Those after a blank line, unless they belong to a section such as "Args:".
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


def shorten_types(app, what, name, obj, options, arguments, result):
    """Name arrays and keys as the code does: `Array`, `PRNGKeyArray`."""

    def shortened(text):
        text = (text or "").replace("jaxlib._jax.Array", "Array")
        text = text.replace("~jaxtyping.", "")
        key = "Key[Array, ''] | UInt32[Array, '2'] | UInt32[Array, '4']"
        return text.replace(key, "PRNGKeyArray") or None

    return shortened(arguments), shortened(result)


def setup(app):
    """Let the marking come before napoleon reads the sections."""
    app.connect("autodoc-process-docstring", mark_code, priority=400)
    app.connect("autodoc-process-signature", shorten_types)
