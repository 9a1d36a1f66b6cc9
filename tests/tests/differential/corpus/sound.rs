//! Requests as clients send them, and such that look odd and are right all the same.

use super::Vector;

pub(super) const TABLE: &[Vector] = &[
    // Methods and bodies.
    (b"GET /a HTTP/1.1|{h}|{m}||", "GET /a, canary"),
    (b"HEAD /a HTTP/1.1|{h}|{m}||", "HEAD /a, canary"),
    (b"OPTIONS /a HTTP/1.1|{h}|{m}||", "OPTIONS /a, canary"),
    (b"DELETE /a HTTP/1.1|{h}|{m}||", "DELETE /a, canary"),
    (b"PURGE /a HTTP/1.1|{h}|{m}||", "PURGE /a, canary"),
    (b"M-SEARCH /a HTTP/1.1|{h}|{m}||", "M-SEARCH /a, canary"),
    (b"POST /a HTTP/1.1|{h}|{m}||", "POST /a, canary"),
    (b"{p}Content-Length: 0|{m}||", "POST /a, canary"),
    (b"{p}Content-Length: 4|{m}||body", "POST /a [body], canary"),
    (b"{p}content-length:4|{m}||body", "POST /a [body], canary"),
    (b"{p}Content-Length: \t 4 \t|{m}||body", "POST /a [body], canary"),
    (b"{p}Content-Length: 0004|{m}||body", "POST /a [body], canary"),
    (b"PUT /a HTTP/1.1|{h}|Content-Length: 4|{m}||a\0\r\n", "PUT /a [a\\x00\\r\\n], canary"),
    (b"GET /a HTTP/1.1|{h}|Content-Length: 4|{m}||body", "GET /a [body], canary"),
    (b"HEAD /a HTTP/1.1|{h}|Content-Length: 4|{m}||body", "HEAD /a [body], canary"),
    (b"DELETE /a HTTP/1.1|{h}|Transfer-Encoding: chunked|{m}||4|body|0||", "DELETE /a [body], canary"),
    (b"GET /a HTTP/1.1|{h}|Transfer-Encoding: chunked|{m}||4|body|0||", "GET /a [body], canary"),
    (
        b"{p}Content-Type: application/x-www-form-urlencoded|Content-Length: 9|{m}||a=b&c=%64",
        "POST /a [a=b&c=%64], canary",
    ),
    (
        b"{p}Content-Type: application/x-www-form-urlencoded|Transfer-Encoding: chunked|{m}||3|a=b|0||",
        "POST /a [a=b], canary",
    ),
    (b"{p}Expect: 100-continue|Content-Length: 4|{m}||body", "POST /a [body], canary"),
    (b"{p}Expect: 100-continue|Transfer-Encoding: chunked|{m}||4|body|0||", "POST /a [body], canary"),
    // A body that looks like a request is a body.
    (
        b"GET /a HTTP/1.1|{h}|Content-Length: 22|{m}||GET /deep HTTP/1.1||",
        "GET /a [GET /deep HTTP/1.1\\r\\n\\r\\n], canary",
    ),
    (
        b"{c}16|GET /deep HTTP/1.1|||0||",
        "POST /a [GET /deep HTTP/1.1\\r\\n\\r\\n], canary",
    ),
    // Several requests, and empty lines between them.
    (b"GET /a HTTP/1.1|{h}|{m}||GET /deep/b HTTP/1.1|{h}|{m}||", "GET /a, GET /deep/b, canary"),
    (
        b"{p}Content-Length: 4|{m}||bodyGET /deep HTTP/1.1|{h}|{m}||{c}1|x|0||",
        "POST /a [body], GET /deep, POST /a [x], canary",
    ),
    (b"{p}Content-Length: 0|{m}||GET /deep HTTP/1.1|{h}|{m}||", "POST /a, GET /deep, canary"),
    (b"|GET /a HTTP/1.1|{h}|{m}||", "GET /a, canary or 400 closed"),
    (b"{p}Content-Length: 4|{m}||body|", "POST /a [body], canary or POST /a [body], 400 closed"),
    // How long a connection is kept.
    (b"GET /a HTTP/1.1|{h}|Connection: close|{m}||", "GET /a closed"),
    (b"GET /a HTTP/1.1|{h}|Connection: Keep-Alive , CLOSE|{m}||", "GET /a closed"),
    (b"GET /a HTTP/1.1|{h}|Connection: keep-alive|Keep-Alive: timeout=5|{m}||", "GET /a, canary"),
    (b"GET /a HTTP/1.0|{h}|{m}||", "GET /a closed"),
    (b"GET /a HTTP/1.0|{h}|Connection: keep-alive|{m}||", "GET /a, canary"),
    (b"POST /a HTTP/1.0|{h}|Content-Length: 4|{m}||body", "POST /a [body] closed"),
    // Upgrades that the upstream does not grant.
    (b"GET /a HTTP/1.1|{h}|Connection: Upgrade|Upgrade: websocket|{m}||", "GET /a, canary or GET /a closed"),
    (
        b"GET /a HTTP/1.1|{h}|Connection: Upgrade, HTTP2-Settings|Upgrade: h2c|HTTP2-Settings: AAMAAABkAAQA|{m}||",
        "GET /a, canary or GET /a closed",
    ),
    (
        b"{p}Connection: Upgrade|Upgrade: websocket|Content-Length: 4|{m}||body",
        "POST /a [body], canary or POST /a [body] closed",
    ),
    // Options that name what the gateway itself needs.
    (b"{p}Connection: Content-Length|Content-Length: 4|{m}||body", "POST /a [body], canary"),
    (b"GET /a HTTP/1.1|{h}|Connection: Content-Length|Content-Length: 4|{m}||body", "GET /a [body], canary"),
    (b"{p}Connection: Transfer-Encoding|Transfer-Encoding: chunked|{m}||4|body|0||", "POST /a [body], canary"),
    (b"GET /a HTTP/1.1|{h}|Connection: host, user-key, x-forwarded-proto|{m}||", "GET /a, canary"),
    (b"GET /a HTTP/1.1|{h}|Connection: ,,|{m}||", "GET /a, canary"),
    (b"GET /a HTTP/1.1|{h}|TE: trailers|Connection: TE|{m}||", "GET /a, canary"),
    // Headers.
    (b"GET /a HTTP/1.1|{h}|Cookie: a=b; c=\"d\"|Cookie: e|{m}||", "GET /a, canary"),
    (b"GET /a HTTP/1.1|{h}|A:|B: |C:d|D:\te\tf \t|E: \xe9\x85\xa0|F_G: h|{m}||", "GET /a, canary"),
    (b"GET /a HTTP/1.1|{h}|!#$%&'*+-.^_`~1: a|{m}||", "GET /a, canary"),
    (b"GET /a HTTP/1.1|{h}|A: 1|a: 2|A: 3|B: Content-Length: 4|C: \"a\\\"b|{m}||", "GET /a, canary"),
    (b"GET /a HTTP/1.1|{h}|X-Forwarded-Proto: https|X_Forwarded_Proto: https|{m}||", "GET /a, canary"),
];
