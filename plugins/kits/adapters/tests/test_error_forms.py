"""The message and the code of an error body, each from the right field, for the forms that backends have.

The bodies are answers of real servers, or those in their documentation.
"""

from __future__ import annotations

import json
import time
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamastack.provider.errors import BackendError, NotFoundError, ProviderUnavailableError
from llamastack_adapters.error_bodies import error_of_answer, parse_error_body, read_error_object

WHERE = "http://db-1:8000"


class Form(NamedTuple):
    name: str
    body: str
    message: str
    code: str = ""
    param: str | None = None
    structured: bool = True


FORMS = [
    Form(
        "chroma: not found",
        '{"error":"NotFoundError","message":"Collection [nope] does not exist"}',
        "Collection [nope] does not exist",
        "NotFoundError",
    ),
    Form(
        "chroma: conflict",
        '{"error":"ChromaError","message":"Collection [abc] already exists"}',
        "Collection [abc] already exists",
        "ChromaError",
    ),
    Form(
        "qdrant: not found",
        '{"status":{"error":"Not found: Collection `nope` doesn\'t exist!"},"time":0.000012}',
        "Not found: Collection `nope` doesn't exist!",
    ),
    Form(
        "qdrant: wrong input",
        '{"status":{"error":"Wrong input: Vector dimension error: expected dim: 4, got 2"},"time":0.0004,"usage":null}',
        "Wrong input: Vector dimension error: expected dim: 4, got 2",
    ),
    Form(
        "elasticsearch: no index",
        '{"error":{"root_cause":[{"type":"index_not_found_exception","reason":"no such index [nope]",'
        '"resource.type":"index_or_alias","resource.id":"nope","index_uuid":"_na_","index":"nope"}],'
        '"type":"index_not_found_exception","reason":"no such index [nope]","index":"nope"},"status":404}',
        "no such index [nope]",
        "index_not_found_exception",
    ),
    Form(
        "elasticsearch: the cause is below",
        '{"error":{"root_cause":[{"type":"query_shard_exception","reason":"failed to create query: field [v] does not '
        'exist"}],"type":"search_phase_execution_exception","reason":"all shards failed","phase":"query",'
        '"grouped":true,"failed_shards":[]},"status":400}',
        "all shards failed: failed to create query: field [v] does not exist",
        "search_phase_execution_exception",
    ),
    Form(
        "elasticsearch: a text",
        '{"error":"Incorrect HTTP method for uri [/_bulk?pretty] and method [GET], allowed: [POST, PUT]","status":405}',
        "Incorrect HTTP method for uri [/_bulk?pretty] and method [GET], allowed: [POST, PUT]",
    ),
    Form(
        "spring: a message",
        '{"timestamp":"2026-05-01T10:00:00.000+00:00","status":400,"error":"Bad Request","trace":"org.springframework'
        '.web.bind.MissingServletRequestParameterException: Required parameter\\n\\tat org.springframework.web",'
        '"message":"Required parameter \'name\' is not present.","path":"/api/items"}',
        "Required parameter 'name' is not present.",
        "Bad Request",
    ),
    Form(
        "spring: no message",
        '{"timestamp":"2026-05-01T10:00:00.000+00:00","status":500,"error":"Internal Server Error","path":"/api"}',
        "Internal Server Error",
    ),
    Form(
        "spring: no route",
        '{"timestamp":"2026-05-01T10:00:00.000+00:00","status":404,"error":"Not Found","path":"/nope"}',
        "Not Found",
        structured=False,
    ),
    Form(
        "rfc 9457",
        '{"type":"https://example.com/probs/out-of-credit","title":"You do not have enough credit.","status":403,'
        '"detail":"Your balance is 30, but that costs 50.","instance":"/account/12345/msgs/abc"}',
        "Your balance is 30, but that costs 50.",
        "out-of-credit",
    ),
    Form(
        "rfc 9457: without a type",
        '{"type":"about:blank","title":"Bad Request","status":400}',
        "Bad Request",
    ),
    Form("fastapi: a text", '{"detail":"Item not found"}', "Item not found"),
    Form("fastapi: no route", '{"detail":"Not Found"}', "Not Found", structured=False),
    Form(
        "fastapi: a list",
        '{"detail":[{"type":"missing","loc":["body","name"],"msg":"Field required","input":{"secret":"sk-1"}},'
        '{"type":"int_parsing","loc":["query","limit"],"msg":"Input should be a valid integer","input":"x"}]}',
        "name: Field required; limit: Input should be a valid integer",
        "missing",
        "name",
    ),
    Form(
        "fastapi: a long list",
        json.dumps({"detail": [{"type": "missing", "loc": ["body", n], "msg": "Field required"} for n in range(9)]}),
        "; ".join([*(f"{n}: Field required" for n in range(5)), "and 4 more"]),
        "missing",
        "0",
    ),
    Form(
        "fastapi: an object",
        '{"detail":{"code":"QUOTA","message":"No more quota"}}',
        "No more quota",
        "QUOTA",
    ),
    Form(
        "google",
        '{"error":{"code":404,"message":"Publisher model gemini-x was not found.","status":"NOT_FOUND",'
        '"details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"MODEL"}]}}',
        "Publisher model gemini-x was not found.",
        "NOT_FOUND",
    ),
    Form(
        "google: a list",
        '[{"error":{"code":400,"message":"API key not valid.","status":"INVALID_ARGUMENT"}}]',
        "API key not valid.",
        "INVALID_ARGUMENT",
    ),
    Form(
        "grpc gateway",
        '{"code":5,"message":"collection not found","details":[]}',
        "collection not found",
        "5",
    ),
    Form(
        "aws: a type with its namespace",
        '{"__type":"com.amazonaws.dynamodb.v20120810#ResourceNotFoundException","message":"Requested resource not '
        'found: Table: x not found"}',
        "Requested resource not found: Table: x not found",
        "ResourceNotFoundException",
    ),
    Form(
        "aws: capitals",
        '{"__type":"UnrecognizedClientException","Message":"The security token is invalid."}',
        "The security token is invalid.",
        "UnrecognizedClientException",
    ),
    Form(
        "aws: query APIs in JSON",
        '{"Error":{"Code":"InvalidClientTokenId","Message":"The token is invalid.","Type":"Sender"},"RequestId":"1"}',
        "The token is invalid.",
        "InvalidClientTokenId",
    ),
    Form(
        "aws: S3",
        '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>NoSuchBucket</Code><Message>The bucket &quot;x&quot; '
        "does not exist</Message><BucketName>x</BucketName><RequestId>4442587FB7D0A2F9</RequestId></Error>",
        'The bucket "x" does not exist',
        "NoSuchBucket",
    ),
    Form(
        "aws: query APIs",
        '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
        "<Code>ExpiredToken</Code><Message>The token has expired</Message></Error></ErrorResponse>",
        "The token has expired",
        "ExpiredToken",
    ),
    Form(
        "openai",
        '{"error":{"message":"Incorrect API key provided.","type":"invalid_request_error","param":null,'
        '"code":"invalid_api_key"}}',
        "Incorrect API key provided.",
        "invalid_api_key",
    ),
    Form(
        "openai: a parameter",
        '{"error":{"message":"must be <= 2","type":"invalid_request_error","param":"top_p","code":null}}',
        "must be <= 2",
        "invalid_request_error",
        "top_p",
    ),
    Form(
        "anthropic",
        '{"type":"error","error":{"type":"not_found_error","message":"The model was not found."}}',
        "The model was not found.",
        "not_found_error",
    ),
    Form("ollama", '{"error":"model \'x\' not found"}', "model 'x' not found"),
    Form("tgi", '{"error":"`inputs` is empty","error_type":"validation"}', "`inputs` is empty", "validation"),
    Form("weaviate", '{"error":[{"message":"class name Nope does not exist"}]}', "class name Nope does not exist"),
    Form(
        "hugging face",
        '{"error":["Error in `parameters.x`: no","Error in `inputs`: no"]}',
        "Error in `parameters.x`: no; Error in `inputs`: no",
    ),
    Form(
        "kubernetes",
        '{"kind":"Status","status":"Failure","message":"pods \\"x\\" not found","reason":"NotFound","code":404}',
        'pods "x" not found',
        "NotFound",
    ),
    Form(
        "oauth",
        '{"error":"invalid_grant","error_description":"The refresh token has expired"}',
        "The refresh token has expired",
        "invalid_grant",
    ),
    Form("couchdb", '{"error":"not_found","reason":"missing"}', "missing", "not_found"),
    Form(
        "json:api",
        '{"errors":[{"status":"422","code":"E-7","title":"Invalid Attribute","detail":"First name is too short."}]}',
        "First name is too short.",
        "E-7",
    ),
    Form(
        "graphql",
        '{"errors":[{"message":"Cannot query field x","extensions":{"code":"GRAPHQL_VALIDATION_FAILED"}}],"data":null}',
        "Cannot query field x",
        "GRAPHQL_VALIDATION_FAILED",
    ),
    Form(
        "cloudflare",
        '{"success":false,"errors":[{"code":10000,"message":"Authentication error"}]}',
        "Authentication error",
        "10000",
    ),
    Form(
        "meilisearch",
        '{"message":"Index `x` not found.","code":"index_not_found","type":"invalid_request","link":"https://d/x"}',
        "Index `x` not found.",
        "index_not_found",
    ),
    Form(
        "nest",
        '{"statusCode":400,"message":["name should not be empty","age must be a number"],"error":"Bad Request"}',
        "name should not be empty; age must be a number",
        "Bad Request",
    ),
    Form("text", "upstream connect error\n or disconnect", "upstream connect error or disconnect", structured=False),
    Form("text with brackets", "expected <int>, got <str>", "expected <int>, got <str>", structured=False),
    Form("nothing", "", "", structured=False),
    Form(
        "nginx",
        "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>"
        "\r\n<hr><center>nginx/1.22.1</center>\r\n</body>\r\n</html>\r\n",
        "502 Bad Gateway",
        structured=False,
    ),
    Form(
        "express",
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>Error</title>\n</head>\n<body>\n'
        "<pre>Cannot GET /nope</pre>\n</body>\n</html>\n",
        "Error: Cannot GET /nope",
        structured=False,
    ),
    Form(
        "tomcat",
        '<!doctype html><html lang="en"><head><title>HTTP Status 404 – Not Found</title><style type="text/css">'
        "body {font-family:Tahoma} h1 {color:white}</style></head><body><h1>HTTP Status 404 – Not Found</h1></body>",
        "HTTP Status 404 – Not Found",
        structured=False,
    ),
    Form(
        "a page inside JSON",
        '{"error":{"message":"<html><head><title>504 Gateway Time-out</title></head><p>nginx</p></html>"}}',
        "504 Gateway Time-out: nginx",
    ),
    Form(
        "a page behind a text",
        "upstream says <!DOCTYPE html><html><head><title>403 Forbidden</title><script>var key='sk-1'</script></head>",
        "upstream says 403 Forbidden",
        structured=False,
    ),
]


@pytest.mark.parametrize("form", FORMS, ids=[form.name for form in FORMS])
def test_message_and_code_are_of_the_right_fields(form: Form) -> None:
    for body in (form.body, form.body.encode(), b"\xef\xbb\xbf" + form.body.encode()):
        found = parse_error_body(body)
        assert (found.message, found.code, found.param, found.structured) == form[2:]


def test_aws_names_the_code_in_a_header() -> None:
    headers = {"x-amzn-errortype": "ThrottlingException:http://internal.amazon.com/coral/com.amazon.coral.service/"}
    found = parse_error_body('{"message":"Too many requests"}', headers)
    assert (found.message, found.code, found.status) == ("Too many requests", "ThrottlingException", 429)
    assert parse_error_body('{"__type":"a#B","message":"no"}', headers).code == "B"
    error = error_of_answer(400, {"x-amzn-errortype": "ValidationException"}, b"", WHERE)
    assert error.message == f"{WHERE} answered 400: ValidationException"


def test_the_code_of_a_500_names_its_status() -> None:
    body = '{"error":"NotFoundError","message":"Collection [nope] does not exist"}'
    assert type(error_of_answer(500, {}, body, WHERE)) is NotFoundError
    body = '{"__type":"com.amazon.coral.service#ServiceUnavailableException","Message":"x"}'
    assert type(error_of_answer(500, {}, body, WHERE)) is ProviderUnavailableError


def test_a_path_that_no_route_serves_means_a_wrong_url() -> None:
    spring = next(form for form in FORMS if form.name == "spring: no route")
    error = error_of_answer(404, {}, spring.body, WHERE)
    assert type(error) is BackendError
    assert error.message.endswith("is the url in the config right?")


def test_everything_is_bounded() -> None:
    long = "x" * 100_000
    for body in (
        {"error": long, "message": long},
        {"error": {"message": long, "code": long, "type": long, "param": long}},
        {"detail": [{"loc": ["body", long], "msg": long, "type": long}] * 100},
        {"__type": long, "message": long},
        {"error": {"type": long, "reason": long, "root_cause": [{"reason": long + "y"}]}},
    ):
        found = read_error_object(body)
        assert len(found.message) <= 16 * 1024
        assert max(len(found.code), len(found.kind), len(found.param or ""), len(found.own_code or "")) <= 200
    page = f"<html><head><title>Oops</title></head><body><p>{long}</p><p>{long}</p></body></html>"
    assert len(parse_error_body(page).message) <= 300
    assert len(parse_error_body(f"<html><body><div>{long}</div></body></html>").message) <= 300


def test_a_body_that_is_cut_is_read_as_far_as_it_goes() -> None:
    faults = [{"type": "missing", "loc": ["body", "name"], "msg": "Field required", "input": "x" * 200_000}]
    for body in ({"error": "Bad", "message": "no such thing", "trace": "x" * 200_000}, {"detail": faults}):
        found = parse_error_body(json.dumps(body))
        assert (found.structured, "xxx" in found.message) == (True, False)


@pytest.mark.parametrize("piece", ["<", "<a", "<p>", "<script>", "<html><p>x", "</", "<title>x</title>"])
def test_a_page_is_read_in_linear_time(piece: str) -> None:
    started = time.process_time()
    parse_error_body("<html>" + piece * 40_000)
    assert time.process_time() - started < 0.3


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "error",
                        "Error",
                        "errors",
                        "message",
                        "detail",
                        "status",
                        "code",
                        "reason",
                        "msg",
                        "loc",
                        "type",
                        "__type",
                        "extensions",
                        "root_cause",
                        "title",
                    ]
                ),
                inner,
            )
        ),
    )
)
def test_anything_is_read(value: object) -> None:
    found = read_error_object(value)
    assert isinstance(found.message, str)
    assert isinstance(found.code, str)
    assert found.message == " ".join(found.message.split())
