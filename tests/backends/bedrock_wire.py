"""What every AWS service does on the wire, for the stand-in of Bedrock: Signature Version 4, event streams, errors.

Written from AWS's documentation, not from the code of its SDKs, so that an SDK and this check each other:
"Create a signed AWS API request" (docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html),
"Event stream encoding" (docs.aws.amazon.com/transcribe/latest/dg/event-stream.html), and
"AWS restJson1 protocol" (smithy.io/2.0/aws/protocols/aws-restjson1-protocol.html) for errors.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

EVENT_STREAM = "application/vnd.amazon.eventstream"
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/(?P<date>\d{8})/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request, *"
    r"SignedHeaders=(?P<headers>[^,]+), *Signature=(?P<signature>[0-9a-f]{64})"
)
_STRING = 7
_MOST_SKEW_S = 300


@dataclass(frozen=True)
class Secret:
    """What belongs to an access key id. expired: a session that is over."""

    secret: str
    token: str | None = None
    expired: bool = False


def error(status: int, code: str, message: str, **headers: str) -> Response:
    """An error as the restJson1 protocol has it. headers: with `_` for `-`."""
    own = {name.replace("_", "-"): value for name, value in headers.items()}
    where = f"{code}:http://internal.amazon.com/coral/com.amazon.bedrock/"
    return JSONResponse({"message": message}, status, headers={"x-amzn-errortype": where, **own})


def validation(message: str) -> Response:
    return error(400, "ValidationException", message)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def _encoded(text: str) -> str:
    return quote(text, safe="-_.~")


def refused(request: Request, body: bytes, keys: Mapping[str, Secret], region: str, service: str) -> Response | None:
    """The answer to a request that is not rightly signed; None for one that is."""
    found = _AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
    if found is None:
        return error(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
    known = keys.get(found["key"])
    token = request.headers.get("x-amz-security-token")
    if known is None or token != known.token:
        return error(403, "UnrecognizedClientException", "The security token included in the request is invalid.")
    if known.expired:
        return error(403, "ExpiredTokenException", "The security token included in the request is expired")
    if (found["region"], found["service"]) != (region, service):
        message = f"Credential should be scoped to a valid region, not '{found['region']}'."
        return error(403, "InvalidSignatureException", message)
    stamp = request.headers.get("x-amz-date", "")
    now = datetime.datetime.now(datetime.UTC)
    at = datetime.datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC)
    if abs((now - at).total_seconds()) > _MOST_SKEW_S or not stamp.startswith(found["date"]):
        return error(403, "InvalidSignatureException", f"Signature expired: {stamp} is not now")
    names = found["headers"].split(";")
    missing = {"host", "x-amz-date", *(["x-amz-security-token"] if token else [])} - set(names)
    if missing:
        message = f"'{sorted(missing)[0]}' must be a 'SignedHeader' in the AWS Authorization."
        return error(403, "InvalidSignatureException", message)
    canonical = _canonical(request, names, body)
    scope = f"{found['date']}/{region}/{service}/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{_sha256(canonical.encode())}"
    key = f"AWS4{known.secret}".encode()
    for part in scope.split("/"):
        key = _hmac(key, part)
    if not hmac.compare_digest(_hmac(key, to_sign).hex(), found["signature"]):
        # As AWS does: with all that was signed in the message, the session token included.
        return error(
            403,
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
            "Access Key and signing method. Consult the service documentation for details.\n\nThe Canonical String "
            f"for this request should have been\n'{canonical}'\n\nThe String-to-Sign should have been\n'{to_sign}'\n",
        )
    return None


def _canonical(request: Request, names: list[str], body: bytes) -> str:
    # Each segment is encoded once more than it is on the wire, for every service but S3.
    path = "/".join(_encoded(part) for part in request.scope["raw_path"].decode().split("/"))
    pairs = parse_qsl(request.scope["query_string"].decode(), keep_blank_values=True)
    query = "&".join(sorted(f"{_encoded(name)}={_encoded(value)}" for name, value in pairs))
    headers = "".join(f"{name}:{' '.join(','.join(request.headers.getlist(name)).split())}\n" for name in names)
    return "\n".join([request.method, path, query, headers, ";".join(names), _sha256(body)])


def frame(payload: bytes, **headers: str) -> bytes:
    """One message of an event stream. headers: `event_type` stands for `:event-type`, and so on."""
    head = b""
    for name, value in headers.items():
        label, text = f":{name.replace('_', '-')}".encode(), value.encode()
        head += struct.pack("!B", len(label)) + label + struct.pack("!BH", _STRING, len(text)) + text
    prelude = struct.pack("!II", 16 + len(head) + len(payload), len(head))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + head + payload
    return message + struct.pack("!I", zlib.crc32(message))


def event(kind: str, data: Mapping[str, Any]) -> bytes:
    """An event; `p` is padding, as Bedrock has it against guessing by length."""
    payload = json.dumps({**data, "p": "abcdefg"}).encode()
    return frame(payload, event_type=kind, content_type="application/json", message_type="event")


def exception(kind: str, message: str) -> bytes:
    """The exception that a stream ends with, such as `throttlingException`."""
    payload = json.dumps({"message": message}).encode()
    return frame(payload, exception_type=kind, content_type="application/json", message_type="exception")


def stream_of(*messages: bytes) -> Response:
    """A whole stream of these messages."""
    return Response(b"".join(messages), media_type=EVENT_STREAM)
