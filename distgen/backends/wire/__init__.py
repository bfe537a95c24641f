"""The OpenAI-compatible protocol as pure functions: requests out, completions or a RequestFailed in.

No socket is opened here, and no bytes of a server raise.
"""

from distgen.backends.wire.answers import read_answer
from distgen.backends.wire.failures import retry_hint
from distgen.backends.wire.requests import encode, json_params, shift_seed

__all__ = ["encode", "json_params", "read_answer", "retry_hint", "shift_seed"]
