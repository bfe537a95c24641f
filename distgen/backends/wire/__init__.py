"""The OpenAI-compatible protocol as pure functions: requests out, a Result of completions in.

No socket is opened and no clock is read here; transports (`distgen.backends.http`, `.aiohttp`, `.openai`) do that. No
answer raises, whatever its bytes: each way in which servers were seen to break the protocol is a class of `WireError`. The
texts of a server are kept whole in them; `fault` hides the API key and only then cuts, so that no half of a key can remain.
"""

from __future__ import annotations

from distgen.backends.wire.answers import Answer as Answer
from distgen.backends.wire.answers import read_chat as read_chat
from distgen.backends.wire.answers import read_completions as read_completions
from distgen.backends.wire.answers import read_error as read_error
from distgen.backends.wire.endpoint import CHAT as CHAT
from distgen.backends.wire.endpoint import COMPLETIONS as COMPLETIONS
from distgen.backends.wire.endpoint import Endpoint as Endpoint
from distgen.backends.wire.endpoint import Steps as Steps
from distgen.backends.wire.endpoint import answered as answered
from distgen.backends.wire.endpoint import answered_async as answered_async
from distgen.backends.wire.errors import BadChoice as BadChoice
from distgen.backends.wire.errors import BadStatus as BadStatus
from distgen.backends.wire.errors import ConnectionFailed as ConnectionFailed
from distgen.backends.wire.errors import NoChoices as NoChoices
from distgen.backends.wire.errors import NoText as NoText
from distgen.backends.wire.errors import NotJSON as NotJSON
from distgen.backends.wire.errors import NotSent as NotSent
from distgen.backends.wire.errors import Redirected as Redirected
from distgen.backends.wire.errors import ServerError as ServerError
from distgen.backends.wire.errors import TimedOut as TimedOut
from distgen.backends.wire.errors import TooLong as TooLong
from distgen.backends.wire.errors import WireError as WireError
from distgen.backends.wire.errors import explain_wire as explain_wire
from distgen.backends.wire.errors import fault as fault
from distgen.backends.wire.requests import Body as Body
from distgen.backends.wire.requests import Request as Request
from distgen.backends.wire.requests import chat_request as chat_request
from distgen.backends.wire.requests import completions_request as completions_request
from distgen.backends.wire.requests import encoded as encoded
from distgen.backends.wire.requests import json_params as json_params
from distgen.backends.wire.requests import seeded as seeded
