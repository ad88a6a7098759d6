"""The damage matrix: every kind of damage on images of real tools, smfix beside the tools of today.

``python -m matrix`` (with ``tools`` on the path) runs it and writes docs/evidence/matrix.md. No code of smfix makes,
reads or judges an image: :mod:`matrix.reader` is a second reader, written for this alone.
"""
