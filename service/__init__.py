"""The HTTP face: read the request, ask storage, answer.

The only package that knows Litestar. It does none of the workers' work, so it answers while they are busy, and it never
writes a local file: an upload goes from the socket to the object store in bounded buffers.
"""

__version__ = "0.1.0"
