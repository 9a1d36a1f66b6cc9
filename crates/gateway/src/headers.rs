//! What becomes of headers on their way through: what ends here, what is added, what is replaced.
//!
//! Hop-by-hop headers end at the gateway both ways, with those that `Connection` names. What the gateway
//! vouches for (who called, from where, under which secret token) replaces whatever a client wrote there, also
//! under the spelling with `_`, which many backends read as the same header.
//!
//! A made request id is not sent upstream, only one that the client chose: backends see the headers they would
//! have seen without a gateway.

use http::Version;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use weir_core::Proxy;
use weir_core::proxy::CredentialLocation;

use crate::extract::same_header;
use crate::http1::transfer::Framing;

/// Names a request in logs, answers and, if the client chose it, upstream.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const DEBUG: HeaderName = HeaderName::from_static("x-3scale-debug");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const PROXY_AUTHORIZATION: HeaderName = HeaderName::from_static("proxy-authorization");

/// What holds for one connection.
const HOPS: [HeaderName; 6] = [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE];

/// What the gateway knows of a request that its upstream should.
pub(crate) struct Forwarding<'a> {
    /// The client's address.
    pub(crate) peer: &'a HeaderValue,
    /// Host as the client wrote it.
    pub(crate) host: Option<HeaderValue>,
    /// Host as the upstream sees it.
    pub(crate) upstream_host: &'a HeaderValue,
    /// The secret token's header, and the token if the service has one.
    pub(crate) secret: &'a (HeaderName, Option<HeaderValue>),
    /// The client's request id, if it chose a sane one.
    pub(crate) request_id: Option<&'a HeaderValue>,
    /// `http` or `https`, as the client connected.
    pub(crate) scheme: &'static str,
    /// The other protocols that the client would like to speak.
    pub(crate) upgrade: Option<HeaderValue>,
    /// Whether the client takes trailers.
    pub(crate) takes_trailers: bool,
    /// Whether the upstream is spoken to over HTTP/2.
    pub(crate) is_http2: bool,
}

/// Turns a client's headers into those for the upstream.
pub(crate) fn to_upstream(headers: &mut HeaderMap, forwarding: Forwarding<'_>) {
    remove_hops(headers);
    headers.remove(EXPECT);
    headers.remove(PROXY_AUTHORIZATION);
    headers.remove(DEBUG);
    let (secret_name, secret) = forwarding.secret;
    let forwarded_for = chain(headers, forwarding.peer);
    remove_same(headers, &[&FORWARDED_FOR, &FORWARDED_PROTO, &FORWARDED_HOST, &REAL_IP, secret_name]);
    headers.remove(REQUEST_ID);
    headers.insert(REAL_IP, forwarding.peer.clone());
    headers.insert(FORWARDED_FOR, forwarded_for);
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(forwarding.scheme));
    if let Some(host) = &forwarding.host {
        headers.insert(FORWARDED_HOST, host.clone());
    }
    if let Some(token) = secret {
        headers.insert(secret_name, token.clone());
    }
    if let Some(id) = forwarding.request_id {
        headers.insert(REQUEST_ID, id.clone());
    }
    headers.insert(HOST, forwarding.upstream_host.clone());
    write_hops(headers, &forwarding);
}

/// What holds between gateway and upstream; HTTP/2 has no `Connection`.
fn write_hops(headers: &mut HeaderMap, forwarding: &Forwarding<'_>) {
    if forwarding.takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if forwarding.is_http2 {
        return;
    }
    let options = match (&forwarding.upgrade, forwarding.takes_trailers) {
        (Some(_), true) => "upgrade, te",
        (Some(_), false) => "upgrade",
        (None, true) => "te",
        (None, false) => return,
    };
    headers.insert(CONNECTION, HeaderValue::from_static(options));
    if let Some(protocols) = &forwarding.upgrade {
        headers.insert(UPGRADE, protocols.clone());
    }
}

/// Whether a request says that trailers reach its client. Over HTTP/1 only what `Connection` names counts: else it
/// was meant for somebody before.
pub(crate) fn takes_trailers(version: Version, headers: &HeaderMap) -> bool {
    let codings = headers.get_all(TE).iter().filter_map(|value| value.to_str().ok());
    let mut codings = codings.flat_map(|value| value.split(','));
    (version == Version::HTTP_2 || names_option(headers, "te"))
        && codings.any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

/// Whether `Connection` names this option.
pub(crate) fn names_option(headers: &HeaderMap, option: &str) -> bool {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|name| name.trim().eq_ignore_ascii_case(option))
}

/// Takes out of trailers what says how a message is read or where it goes: it has no place there (RFC 9110, section
/// 6.5.1), and a reader might believe it.
pub(crate) fn remove_control_trailers(trailers: &mut HeaderMap) {
    for name in [&CONTENT_LENGTH, &TRAILER, &HOST, &EXPECT, &AUTHORIZATION, &COOKIE].into_iter().chain(&HOPS)
    {
        trailers.remove(name);
    }
}

/// Takes out of trailers what a client cannot vouch for in headers either.
pub(crate) fn trailers_to_upstream(trailers: &mut HeaderMap, secret_name: Option<&HeaderName>) {
    remove_control_trailers(trailers);
    let names = [&FORWARDED_FOR, &FORWARDED_PROTO, &FORWARDED_HOST, &REAL_IP, &HOST, &REQUEST_ID, &DEBUG];
    remove_same(trailers, &names);
    if let Some(name) = secret_name {
        remove_same(trailers, &[name]);
    }
}

/// One `Cookie` of the several that HTTP/2 allows (RFC 9113, section 8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() < 2 {
        return;
    }
    if let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

/// Removes what ends at the gateway from an upstream's answer.
pub(crate) fn to_client(headers: &mut HeaderMap) {
    remove_hops(headers);
}

/// Takes the service's credentials out of the headers, wherever it looks for them there.
pub(crate) fn strip_credentials(headers: &mut HeaderMap, proxy: &Proxy) {
    let names = &proxy.credential_names;
    match proxy.credential_location {
        CredentialLocation::Query => {}
        CredentialLocation::Authorization => drop(headers.remove(AUTHORIZATION)),
        CredentialLocation::Headers => remove_all(headers, |found| {
            [&names.user_key, &names.app_id, &names.app_key].iter().any(|name| same_header(found, name))
        }),
    }
}

/// Says how long the body is that goes upstream, if there is one.
pub(crate) fn frame_body(headers: &mut HeaderMap, exact: Option<u64>, is_empty: bool) -> Framing {
    match exact {
        _ if is_empty => Framing::Length(0),
        Some(length) => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            Framing::Length(length)
        }
        None => {
            headers.remove(CONTENT_LENGTH);
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            Framing::Chunked
        }
    }
}

/// Whether a client's request id may be passed on and logged: at most 128 visible characters.
pub(crate) fn is_sane_request_id(value: &HeaderValue) -> bool {
    (1..=128).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
}

fn remove_hops(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in &named {
        headers.remove(name);
    }
    for name in &HOPS {
        headers.remove(name);
    }
}

/// The addresses that a request came through, the peer last.
fn chain(headers: &HeaderMap, peer: &HeaderValue) -> HeaderValue {
    if !headers.contains_key(FORWARDED_FOR) {
        return peer.clone();
    }
    let mut chain = Vec::new();
    for value in headers.get_all(FORWARDED_FOR) {
        chain.extend_from_slice(value.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(peer.as_bytes());
    HeaderValue::from_bytes(&chain).unwrap_or(HeaderValue::from_static("unknown"))
}

fn remove_same(headers: &mut HeaderMap, names: &[&HeaderName]) {
    for name in names {
        headers.remove(*name);
    }
    if headers.keys().any(|name| name.as_str().contains('_')) {
        remove_all(headers, |found| names.iter().any(|name| same_header(found, name.as_str())));
    }
}

fn remove_all(headers: &mut HeaderMap, is_unwanted: impl Fn(&str) -> bool) {
    let unwanted: Vec<HeaderName> =
        headers.keys().filter(|name| is_unwanted(name.as_str())).cloned().collect();
    for name in unwanted {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for part in text.split('|').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once(": ").unwrap();
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn text(headers: &HeaderMap) -> String {
        let mut lines: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort_by(|a, b| a.split(':').next().cmp(&b.split(':').next()));
        lines.join("|")
    }

    const ADDED: &str = "host: up.test|x-forwarded-for: 192.0.2.1|x-forwarded-host: api.test|\
                         x-forwarded-proto: http|x-real-ip: 192.0.2.1";

    #[track_caller]
    fn check(sent: &str, token: Option<&'static str>, expected: &str) {
        let mut headers = map(sent);
        let secret = (HeaderName::from_static("x-secret-token"), token.map(HeaderValue::from_static));
        let forwarding = Forwarding {
            peer: &HeaderValue::from_static("192.0.2.1"),
            host: Some(HeaderValue::from_static("api.test")),
            upstream_host: &HeaderValue::from_static("up.test"),
            secret: &secret,
            request_id: None,
            scheme: "http",
            upgrade: None,
            takes_trailers: takes_trailers(Version::HTTP_11, &headers),
            is_http2: false,
        };
        to_upstream(&mut headers, forwarding);
        let mut all = map(ADDED);
        for (name, value) in &map(expected) {
            if ADDED.contains(name.as_str()) {
                all.insert(name, value.clone());
            } else {
                all.append(name, value.clone());
            }
        }
        assert_eq!(text(&headers), text(&all), "{sent}");
    }

    #[test]
    fn most_headers_pass() {
        check("accept: */*|x-many: 1|x-many: 2|x-empty: ", None, "accept: */*|x-many: 1|x-many: 2|x-empty: ");
        check("x-3scale-usage: 1|authorization: Bearer a", None, "x-3scale-usage: 1|authorization: Bearer a");
    }

    #[test]
    fn hops_end_here() {
        check("connection: keep-alive, X-Hop|keep-alive: timeout=5|x-hop: 1", None, "");
        check("te: trailers|upgrade: foo/1|proxy-connection: close|expect: 100-continue", None, "");
        check("connection: TE|te: gzip, trailers", None, "te: trailers|connection: te");
        check("connection: TE|te: gzip", None, "");
        check("x-3scale-debug: anything|proxy-authorization: Basic eA==", None, "");
    }

    #[test]
    fn a_client_cannot_vouch_for_itself() {
        check("x-secret-token: mine|x_secret_token: mine", None, "");
        check("x-secret-token: mine", Some("s3cret"), "x-secret-token: s3cret");
        check("connection: x-secret-token", Some("s3cret"), "x-secret-token: s3cret");
        check("x-real-ip: 9.9.9.9|x-forwarded-host: evil|x-forwarded-proto: https|x_real_ip: 1", None, "");
        check("x-forwarded-for: 198.51.100.7", None, "x-forwarded-for: 198.51.100.7, 192.0.2.1");
    }

    #[test]
    fn credentials_are_taken_out() {
        let mut proxy = Proxy { credential_location: CredentialLocation::Headers, ..Proxy::default() };
        let mut headers = map("user-key: k|app_id: i|authorization: Bearer t|x: 1");
        strip_credentials(&mut headers, &proxy);
        assert_eq!(text(&headers), "authorization: Bearer t|x: 1");
        proxy.credential_location = CredentialLocation::Authorization;
        strip_credentials(&mut headers, &proxy);
        assert_eq!(text(&headers), "x: 1");
    }

    #[test]
    fn trailers_vouch_for_nothing() {
        let mut trailers =
            map("x-sum: 1|x-secret-token: mine|x_secret_token: mine|x-real-ip: 9.9.9.9|host: evil");
        trailers_to_upstream(&mut trailers, Some(&HeaderName::from_static("x-secret-token")));
        assert_eq!(text(&trailers), "x-sum: 1");
    }

    #[test]
    fn cookies_become_one() {
        let mut headers = map("cookie: a=1|cookie: b=2|x: 1");
        join_cookies(&mut headers);
        assert_eq!(text(&headers), "cookie: a=1; b=2|x: 1");
    }

    #[test]
    fn request_ids_are_checked() {
        for (id, sane) in [("abc-1", true), ("", false), ("a b", false)] {
            assert_eq!(is_sane_request_id(&HeaderValue::from_str(id).unwrap()), sane, "{id}");
        }
        assert!(!is_sane_request_id(&HeaderValue::from_str(&"x".repeat(129)).unwrap()));
    }
}
