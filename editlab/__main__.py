"""`python -m editlab` is `editlab`."""

from editlab.cli import app

app(prog_name="editlab")
