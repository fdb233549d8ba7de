"""Configuration of Sphinx. `docs.build` writes the sources and calls it."""

import lcrl

project = "lcrl"
author = "the lcrl authors"
copyright = author
version = release = lcrl.__version__
extensions = ["myst_parser", "sphinx.ext.viewcode"]
myst_enable_extensions = ["colon_fence", "attrs_block"]
myst_heading_anchors = 4
suppress_warnings = ["ref.python"]  # two classes are called Tokenizer; annotations do not say which
exclude_patterns = ["files/**"]
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"
viewcode_follow_imported_members = True
pygments_style = "friendly"
html_theme = "furo"
html_title = f"lcrl {lcrl.__version__}"
html_static_path = ["_static"]
html_css_files = ["lcrl.css"]
html_js_files = ["methods.js"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
