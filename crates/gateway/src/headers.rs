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
use weir_core::extract::{credential_headers, same_header};

use crate::fields::{self, Fields};
use crate::http1::transfer::Framing;
use crate::policy::Passing;

/// Names a request in logs, answers and, if the client chose it, upstream.
pub(crate) const REQUEST_ID: &str = "x-request-id";
const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_PROTO: &str = "x-forwarded-proto";
const FORWARDED_HOST: &str = "x-forwarded-host";
const REAL_IP: &str = "x-real-ip";
const DEBUG: &str = "x-3scale-debug";

/// What the gateway knows of a request that its upstream should.
pub(crate) struct Forwarding<'a> {
    /// The address of who connects.
    pub(crate) peer: &'a HeaderValue,
    /// The client's, where that is another: behind a proxy that is believed.
    pub(crate) real_ip: Option<String>,
    /// What policies make of the request.
    pub(crate) passing: Option<&'a Passing>,
    /// Host as the client wrote it.
    pub(crate) host: Option<String>,
    /// Host as the upstream sees it.
    pub(crate) upstream_host: &'a HeaderValue,
    /// The secret token's header, and the token if the service has one.
    pub(crate) secret: &'a (HeaderName, Option<HeaderValue>),
    /// The client's request id, if it chose a sane one.
    pub(crate) request_id: Option<&'a str>,
    /// `http` or `https`, as the client connected.
    pub(crate) scheme: &'static str,
    /// The other protocols that the client would like to speak.
    pub(crate) upgrade: Option<String>,
    /// Whether the client takes trailers.
    pub(crate) takes_trailers: bool,
    /// Whether the upstream is spoken to over HTTP/2.
    pub(crate) is_http2: bool,
}

/// Turns a client's headers into those for the upstream.
pub(crate) fn to_upstream(headers: &mut Fields, forwarding: &Forwarding<'_>) {
    remove_hops(headers);
    let (secret_name, secret) = forwarding.secret;
    let came_by: Option<Vec<u8>> = headers.has(FORWARDED_FOR).then(|| {
        headers.all(FORWARDED_FOR.as_bytes()).flat_map(|value| [value, b", "]).flatten().copied().collect()
    });
    headers.retain(|name| {
        !matches!(name, b"expect" | b"proxy-authorization" | b"x-3scale-debug" | b"x-request-id" | b"host")
            && !is_vouched_for(name, Some(secret_name))
    });
    match &forwarding.real_ip {
        None => headers.push(REAL_IP, forwarding.peer),
        Some(address) => headers.push(REAL_IP, address),
    }
    match came_by {
        None => headers.push(FORWARDED_FOR, forwarding.peer),
        Some(chain) => headers.push(FORWARDED_FOR, [&chain, forwarding.peer.as_bytes()].concat()),
    }
    headers.push(FORWARDED_PROTO, forwarding.scheme);
    if let Some(host) = &forwarding.host {
        headers.push(FORWARDED_HOST, host);
    }
    // Its name is the provider's choice, and may be one of these.
    if let Some(token) = secret {
        headers.remove(secret_name);
        headers.push_sensitive(secret_name, token);
    }
    if let Some(id) = forwarding.request_id {
        headers.set(REQUEST_ID, id);
    }
    headers.set(HOST, forwarding.upstream_host);
    write_hops(headers, forwarding);
}

/// What holds between gateway and upstream; HTTP/2 has no `Connection`.
fn write_hops(headers: &mut Fields, forwarding: &Forwarding<'_>) {
    if forwarding.takes_trailers {
        headers.set(TE, "trailers");
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
    headers.set(CONNECTION, options);
    if let Some(protocols) = &forwarding.upgrade {
        headers.set(UPGRADE, protocols);
    }
}

/// Whether a request says that trailers reach its client. Over HTTP/1 only what `Connection` names counts: else it
/// was meant for somebody before.
pub(crate) fn takes_trailers(version: Version, headers: &Fields) -> bool {
    let codings = headers.all(b"te").filter_map(fields::text);
    let mut codings = codings.flat_map(|value| value.split(','));
    codings.any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
        && (version == Version::HTTP_2 || names_option(headers, "te"))
}

/// Whether `Connection` names this option.
pub(crate) fn names_option(headers: &Fields, option: &str) -> bool {
    options(headers).any(|name| name.eq_ignore_ascii_case(option))
}

/// What `Connection` names.
fn options(headers: &Fields) -> impl Iterator<Item = &str> {
    let values = headers.all(b"connection").filter_map(fields::text);
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// Takes out of trailers what says how a message is read or where it goes: it has no place there (RFC 9110, section
/// 6.5.1), and a reader might believe it.
pub(crate) fn remove_control_trailers(trailers: &mut HeaderMap) {
    for name in [CONTENT_LENGTH, TRAILER, HOST, EXPECT, AUTHORIZATION, COOKIE] {
        trailers.remove(name);
    }
    remove_all(trailers, |name| is_hop(name, &[]));
}

/// Takes out of trailers what a client cannot vouch for in headers either.
pub(crate) fn trailers_to_upstream(trailers: &mut HeaderMap, secret_name: Option<&HeaderName>) {
    remove_control_trailers(trailers);
    remove_all(trailers, |name| {
        [HOST.as_str(), REQUEST_ID, DEBUG].iter().any(|ours| same_header(name, ours.as_bytes()))
            || is_vouched_for(name, secret_name)
    });
}

fn remove_all(trailers: &mut HeaderMap, is_unwanted: impl Fn(&[u8]) -> bool) {
    let names = trailers.keys().filter(|name| is_unwanted(name.as_str().as_bytes()));
    let unwanted: Vec<HeaderName> = names.cloned().collect();
    for name in unwanted {
        trailers.remove(name);
    }
}

/// One `Cookie` of the several that HTTP/2 allows (RFC 9113, section 8.2.3).
pub(crate) fn join_cookies(headers: &mut Fields) {
    let cookies: Vec<&[u8]> = headers.all(b"cookie").collect();
    if cookies.len() >= 2 {
        let joined = cookies.join(&b"; "[..]);
        headers.set(COOKIE, joined);
    }
}

/// Removes what ends at the gateway from an upstream's answer.
pub(crate) fn to_client(headers: &mut Fields) {
    remove_hops(headers);
}

/// Takes the service's credentials out of the headers, wherever it looks for them there.
pub(crate) fn strip_credentials(headers: &mut Fields, proxy: &Proxy) {
    if credential_headers(proxy).next().is_none() {
        return;
    }
    headers.retain(|found| !credential_headers(proxy).any(|name| same_header(found, name.as_bytes())));
}

/// Says how long the body is that goes upstream, if there is one.
pub(crate) fn frame_body(headers: &mut Fields, exact: Option<u64>, is_empty: bool) -> Framing {
    match exact {
        _ if is_empty => Framing::Length(0),
        Some(length) => {
            headers.set(CONTENT_LENGTH, length.to_string());
            Framing::Length(length)
        }
        None => {
            headers.remove(CONTENT_LENGTH);
            headers.set(TRANSFER_ENCODING, "chunked");
            Framing::Chunked
        }
    }
}

/// Whether a client's request id may be passed on and logged: at most 128 visible characters.
pub(crate) fn is_sane_request_id(value: &[u8]) -> bool {
    (1..=128).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic)
}

/// What holds for one connection; `named` are the names that its `Connection` has.
fn is_hop(name: &[u8], named: &[String]) -> bool {
    matches!(
        name,
        b"connection" | b"keep-alive" | b"proxy-connection" | b"te" | b"transfer-encoding" | b"upgrade"
    ) || named.iter().any(|hop| name.eq_ignore_ascii_case(hop.as_bytes()))
}

fn remove_hops(headers: &mut Fields) {
    let named: Vec<String> = options(headers).map(str::to_owned).collect();
    headers.retain(|name| !is_hop(name, &named));
}

/// What only the gateway says, however it is spelled.
fn is_vouched_for(name: &[u8], secret_name: Option<&HeaderName>) -> bool {
    let ours = [FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_HOST, REAL_IP];
    ours.into_iter().chain(secret_name.map(HeaderName::as_str)).any(|ours| same_header(name, ours.as_bytes()))
}

#[cfg(test)]
mod tests {
    use weir_core::proxy::CredentialLocation;

    use super::*;

    fn fields(text: &str) -> Fields {
        Fields::of(&text.split('|').filter(|part| !part.is_empty()).collect::<Vec<_>>())
    }

    fn text(headers: &Fields) -> String {
        let text = |bytes| fields::text(bytes).unwrap();
        let mut lines: Vec<String> =
            headers.iter().map(|(name, value)| format!("{}: {}", text(name), text(value))).collect();
        lines.sort_by(|a, b| a.split(':').next().cmp(&b.split(':').next()));
        lines.join("|")
    }

    const ADDED: &str = "host: up.test|x-forwarded-for: 192.0.2.1|x-forwarded-host: api.test|\
                         x-forwarded-proto: http|x-real-ip: 192.0.2.1";

    #[track_caller]
    fn check(sent: &str, token: Option<&'static str>, expected: &str) {
        let mut headers = fields(sent);
        let secret = (HeaderName::from_static("x-secret-token"), token.map(HeaderValue::from_static));
        let forwarding = Forwarding {
            peer: &HeaderValue::from_static("192.0.2.1"),
            real_ip: None,
            passing: None,
            host: Some("api.test".to_owned()),
            upstream_host: &HeaderValue::from_static("up.test"),
            secret: &secret,
            request_id: None,
            scheme: "http",
            upgrade: None,
            takes_trailers: takes_trailers(Version::HTTP_11, &headers),
            is_http2: false,
        };
        to_upstream(&mut headers, &forwarding);
        let mut all = fields(ADDED);
        for (name, value) in fields(expected).iter() {
            if ADDED.contains(fields::text(name).unwrap()) {
                all.remove(name);
            }
            all.push(name, value);
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
        let mut headers = fields("user-key: k|app_id: i|authorization: Bearer t|x: 1");
        strip_credentials(&mut headers, &proxy);
        assert_eq!(text(&headers), "authorization: Bearer t|x: 1");
        proxy.credential_location = CredentialLocation::Authorization;
        strip_credentials(&mut headers, &proxy);
        assert_eq!(text(&headers), "x: 1");
    }

    #[test]
    fn trailers_vouch_for_nothing() {
        let sent = "x-sum: 1|x-secret-token: mine|x_secret_token: mine|x-real-ip: 9.9.9.9|host: evil";
        let mut trailers = fields(sent).to_map();
        trailers_to_upstream(&mut trailers, Some(&HeaderName::from_static("x-secret-token")));
        assert_eq!(text(&Fields::from(&trailers)), "x-sum: 1");
    }

    #[test]
    fn cookies_become_one() {
        let mut headers = fields("cookie: a=1|cookie: b=2|x: 1");
        join_cookies(&mut headers);
        assert_eq!(text(&headers), "cookie: a=1; b=2|x: 1");
    }

    #[test]
    fn request_ids_are_checked() {
        for (id, sane) in [("abc-1", true), ("", false), ("a b", false)] {
            assert_eq!(is_sane_request_id(id.as_bytes()), sane, "{id}");
        }
        assert!(!is_sane_request_id("x".repeat(129).as_bytes()));
    }
}
