//! The oracle: whether what came of a case is what the strict reading of its bytes allows.
//!
//! The gateway may refuse more than the reference does, but whatever reaches an upstream has to be a request that the
//! reference read too, unchanged, in order, answered and counted. Behind it, nginx and HAProxy have to read what it
//! sends as the recorder does.

use crate::client::Close;
use crate::corpus::{HOST, KEY};
use crate::mutate::Case;
use crate::recorder::{Record, What};
use crate::reference::{End, Request};
use crate::target;
use crate::world::{BEHIND, Outcome, Seen, usage_of};

/// What the gateway itself writes into a request.
const WRITTEN: [&str; 10] = [
    "host",
    "x-real-ip",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "te",
    "connection",
    "upgrade",
    "content-length",
    "transfer-encoding",
];
/// What says how long a request is; no trailer may.
const FRAMING: [&str; 3] = ["content-length", "transfer-encoding", "host"];

/// Everything that is wrong with what came of a case; empty: nothing.
pub(crate) fn faults(case: &Case, outcome: &Outcome) -> Vec<String> {
    let [direct, others @ ..] = &outcome.seen;
    let mut faults = conversation(direct);
    faults.extend(upstream(case, direct));
    let expected = usage_of(&direct.records);
    if outcome.growth != expected {
        faults.push(format!("counted {:?}, upstream saw {expected:?}", outcome.growth));
    }
    for (other, behind) in others.iter().zip(&BEHIND[1..]) {
        faults.extend(
            differences(direct, other).into_iter().map(|fault| format!("with {behind} behind: {fault}")),
        );
    }
    faults
}

/// What the client saw is what the reference allows.
fn conversation(seen: &Seen) -> Vec<String> {
    let mut faults = Vec::new();
    let (requests, statuses) = (seen.script.requests.len(), &seen.heard.statuses);
    let is_refused = statuses.len() > requests;
    match (&seen.script.end, seen.heard.close) {
        (_, Close::Overdue) => faults.push("neither answered nor closed in time".into()),
        (End::Irregular(why, _), Close::AfterClient) if is_refused => {
            faults.push(format!("refused, but left open behind {why}"));
        }
        (End::Closes, Close::AfterClient) => faults.push("left open although it was to be closed".into()),
        _ => {}
    }
    let allowed = match seen.script.end {
        End::Clean | End::Closes => requests,
        End::Partial(_) | End::Irregular(..) => requests + 1,
    };
    if statuses.len() > allowed {
        faults.push(format!("{} answers to {allowed} requests", statuses.len()));
    }
    if let Some(status) = statuses.iter().find(|status| !matches!(status, 200 | 400..=499 | 501 | 503 | 505))
    {
        faults.push(format!("answered {status}"));
    }
    faults
}

/// What the upstream saw is what the reference read, was answered and was counted.
fn upstream(case: &Case, seen: &Seen) -> Vec<String> {
    let mut faults = Vec::new();
    for record in &seen.records {
        match &record.what {
            What::Irregular(why) => {
                faults.push(format!("sent upstream with {why}: {}", record.raw.escape_ascii()));
            }
            What::Partial(Some(head)) if is_of(case, head) && !begins_any(seen, head) => {
                faults.push(format!("began to send what was not read so: {}", record.raw.escape_ascii()));
            }
            What::Partial(_) | What::Whole(_) => {}
        }
    }
    let admitted: Vec<usize> =
        (0..seen.heard.statuses.len()).filter(|at| seen.heard.statuses[*at] == 200).collect();
    let received: Vec<&Request> = whole(&seen.records).collect();
    for (at, got) in admitted.iter().zip(&received) {
        match seen.script.requests.get(*at) {
            None => faults.push(format!("admitted {} {}: it is no request", got.method, got.target)),
            Some(sent) => {
                let changes = changes(sent, got, &seen.host);
                faults.extend(
                    changes.map(|change| format!("admitted {} {}: {change}", got.method, got.target)),
                );
            }
        }
    }
    if admitted.len() != received.len() {
        faults.push(format!("{} answers of 200, {} requests upstream", admitted.len(), received.len()));
    }
    faults
}

/// How a request upstream differs from the one that was sent.
fn changes(sent: &Request, got: &Request, host: &str) -> impl Iterator<Item = &'static str> {
    let asked = target::parse(&sent.target).and_then(|target| target.authority.map(str::to_owned));
    let named = sent.values("host").next().map(|value| String::from_utf8_lossy(value).into_owned());
    let is_key = |name: &str| name == "user-key" || name == "user_key";
    let was_sent = |header: &(String, Vec<u8>)| sent.headers.contains(header);
    let checks = [
        (sent.fault().is_none(), sent.fault().unwrap_or_default()),
        (got.fault().is_none() && got.target.starts_with('/') && got.is_1_1, "sent upstream with a fault"),
        (sent.method == got.method, "the method is another"),
        (target::origin_form(&sent.target).as_ref() == Some(&got.target), "the target is another"),
        (sent.body == got.body, "the body is another"),
        (
            asked.or(named).is_some_and(|authority| target::bare_host(&authority) == host),
            "it was for another host",
        ),
        (sent.headers.iter().any(|(name, value)| is_key(name) && value == KEY.as_bytes()), "it had no key"),
        (
            got.headers.iter().all(|header| WRITTEN.contains(&header.0.as_str()) || was_sent(header)),
            "a header that was not sent",
        ),
        (
            got.trailers
                .iter()
                .all(|trailer| sent.trailers.contains(trailer) && !FRAMING.contains(&trailer.0.as_str())),
            "a trailer that must not be",
        ),
    ];
    checks.into_iter().filter(|(is_well, _)| !is_well).map(|(_, fault)| fault)
}

/// How another server behind the gateway read differently than the reference, which the gateway is held to as well:
/// requests that were admitted without it, each as it was sent. It may refuse.
fn differences(direct: &Seen, other: &Seen) -> Vec<String> {
    let mut faults = Vec::new();
    let mut expected = Vec::new();
    for (at, status) in direct.heard.statuses.iter().enumerate() {
        match (status, other.heard.statuses.get(at)) {
            (200, Some(200)) => expected.extend(other.script.requests.get(at)),
            // Which of several faults a refusal names may depend on how the bytes came in.
            (_, Some(400..)) => {}
            (_, other) => faults.push(format!("answer {at} is {other:?} instead of {status}")),
        }
    }
    let read: Vec<&Request> = whole(&other.records).collect();
    if read.len() != expected.len() || !expected.iter().zip(&read).all(|(sent, got)| is_read(sent, got)) {
        let lines = |requests: Vec<&Request>| -> Vec<String> {
            requests.into_iter().map(|request| line(request, &other.host)).collect()
        };
        faults.push(format!("{:?} reach the upstream instead of {:?}", lines(read), lines(expected)));
    }
    for record in &other.records {
        if let What::Irregular(why) = record.what {
            faults.push(format!("sent on with {why}: {}", record.raw.escape_ascii()));
        }
    }
    faults
}

/// Whether a request arrived with the method, the target and the body that it was sent with.
fn is_read(sent: &Request, got: &Request) -> bool {
    sent.method == got.method
        && target::origin_form(&sent.target).as_ref() == Some(&got.target)
        && sent.body == got.body
}

fn whole(records: &[Record]) -> impl Iterator<Item = &Request> {
    records.iter().filter_map(|record| match &record.what {
        What::Whole(request) => Some(request),
        What::Partial(_) | What::Irregular(_) => None,
    })
}

/// Whether a request that broke off carries this case's marker; else it is late, and was looked at as a whole.
fn is_of(case: &Case, head: &Request) -> bool {
    let start = format!("{}.", case.name);
    head.values("x-case").any(|value| value.starts_with(start.as_bytes()))
}

/// Whether a request that broke off is the start of one that the reference read.
fn begins_any(seen: &Seen, head: &Request) -> bool {
    let last = match &seen.script.end {
        End::Partial(last) | End::Irregular(_, last) => last.as_ref(),
        End::Clean | End::Closes => None,
    };
    seen.script.requests.iter().chain(last).any(|sent| {
        sent.method == head.method
            && target::origin_form(&sent.target).as_ref() == Some(&head.target)
            && sent.body.starts_with(&head.body)
            && sent.fault().is_none()
    })
}

/// A request as the corpus writes it.
fn line(request: &Request, host: &str) -> String {
    let body = match request.body.as_slice() {
        b"" => String::new(),
        body => format!(" [{}]", body.escape_ascii()),
    };
    format!("{} {}{body}", request.method, request.target).replace(host, HOST)
}

/// What came of a case, as the corpus writes it.
pub(crate) fn summary(seen: &Seen) -> String {
    let mut received = whole(&seen.records).map(|request| line(request, &seen.host));
    let said = seen.heard.statuses.iter().map(|status| match status {
        200 => received.next().unwrap_or_else(|| "200".to_owned()),
        status => status.to_string(),
    });
    let mut said: Vec<String> = said.collect();
    said.extend(received.map(|line| format!("unanswered {line}")));
    if let Some(last) = said.last_mut()
        && last == "GET /canary"
    {
        *last = "canary".to_owned();
        return said.join(", ");
    }
    let end = if seen.heard.close == Close::Overdue { "overdue" } else { "closed" };
    format!("{} {end}", said.join(", ")).trim().to_owned()
}

/// Whether a summary is what the corpus expects.
pub(crate) fn is_expected(summary: &str, expected: &str) -> bool {
    expected.split(" or ").any(|one| {
        let is_refusal = one.bytes().last().is_some_and(|byte| byte.is_ascii_digit());
        let either = [format!("{one}, canary"), format!("{one} closed")];
        summary == one || (is_refusal && either.iter().any(|wanted| wanted == summary))
    })
}

/// How a proxy's reading of a case relates to the strict one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Relation {
    /// It read the same requests.
    Same,
    /// It left out some.
    Less,
    /// It sent on what must not be, or something else.
    More,
}

/// Compares what a proxy sent on with what it might have.
pub(crate) fn relation(seen: &Seen) -> Relation {
    let mut sound: Vec<&Request> =
        seen.script.requests.iter().filter(|sent| sent.fault().is_none()).collect();
    let all = sound.len();
    // A proxy may also leave a target as it is.
    let is_same = |sent: &Request, got: &Request| {
        is_read(sent, got)
            || (&sent.method, &sent.target, &sent.body) == (&got.method, &got.target, &got.body)
    };
    let is_irregular = seen.records.iter().any(|record| matches!(record.what, What::Irregular(_)));
    let mut count = 0;
    for got in whole(&seen.records) {
        let Some(at) = sound.iter().position(|sent| is_same(sent, got)) else { return Relation::More };
        sound.drain(..=at);
        count += 1;
    }
    match (is_irregular, count == all) {
        (true, _) => Relation::More,
        (false, true) => Relation::Same,
        (false, false) => Relation::Less,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Heard;
    use crate::corpus::render;
    use crate::reference::read_all;

    const PLAIN: &[u8] = b"GET /a HTTP/1.1|{h}|{m}||";

    fn seen(sent: &[u8], statuses: &[u16], upstream: &[u8]) -> Seen {
        let raw = render(upstream, "t");
        let whole = read_all(&raw).requests.into_iter().map(What::Whole);
        Seen {
            script: read_all(&render(sent, "t")),
            heard: Heard { statuses: statuses.to_vec(), close: Close::ByServer },
            records: whole.map(|what| Record { raw: raw.clone(), what }).collect(),
            host: HOST.to_owned(),
        }
    }

    #[track_caller]
    fn check(sent: &[u8], statuses: &[u16], upstream: &[u8], expected: &str) {
        let seen = seen(sent, statuses, upstream);
        let found = [conversation(&seen), super::upstream(&Case::of(sent, 0), &seen)].concat();
        assert_eq!(found.join("; "), expected);
    }

    #[test]
    fn what_was_sent_may_arrive_or_not() {
        check(PLAIN, &[200], PLAIN, "");
        check(PLAIN, &[401], b"", "");
        check(b"GET //a HTTP/1.1|{h}|{m}||GET /b HTTP/1.1|{h}|{m}||", &[200, 404], PLAIN, "");
    }

    #[test]
    fn what_was_not_sent_may_not() {
        check(b"GET /a HTTP/1.1\n{h}|{m}||", &[200], PLAIN, "admitted GET /a: it is no request");
        check(b"GET /b HTTP/1.1|{h}|{m}||", &[200], PLAIN, "admitted GET /a: the target is another");
        check(b"{p}{m}||", &[200], b"{p}Content-Length: 1|{m}||x", "admitted POST /a: the body is another");
        check(b"GET /a HTTP/1.1|{h}||", &[200], b"GET /a HTTP/1.1|{h}||", "admitted GET /a: it had no key");
        check(
            PLAIN,
            &[200],
            b"GET /a HTTP/1.1|{h}|X: y|{m}||",
            "admitted GET /a: a header that was not sent",
        );
        check(b"GET /a HTTP/1.1|{h}|{h}|{m}||", &[200], PLAIN, "admitted GET /a: several Hosts");
    }

    #[test]
    fn answers_counters_and_requests_agree() {
        let twice = [PLAIN, PLAIN].concat();
        check(PLAIN, &[200], &twice, "1 answers of 200, 2 requests upstream");
        check(PLAIN, &[401], PLAIN, "0 answers of 200, 1 requests upstream");
        let outcome = Outcome {
            seen: [b"", b"", b""].map(|upstream| seen(PLAIN, &[401], upstream)),
            growth: [("hits".to_owned(), 1)].into(),
        };
        assert_eq!(faults(&Case::of(PLAIN, 0), &outcome), ["counted {\"hits\": 1}, upstream saw {}"]);
    }

    #[test]
    fn who_stands_behind_may_refuse_and_no_more() {
        let check = |statuses: &[u16], upstream: &[u8], expected: &[&str]| {
            let direct = seen(PLAIN, &[200], PLAIN);
            assert_eq!(differences(&direct, &seen(PLAIN, statuses, upstream)), expected);
        };
        check(&[200], PLAIN, &[]);
        check(&[400], b"", &[]);
        let other = "[\"GET /b\"] reach the upstream instead of [\"GET /a\"]";
        check(&[200], b"GET /b HTTP/1.1|{h}|{m}||", &[other]);
        check(&[400], PLAIN, &["[\"GET /a\"] reach the upstream instead of []"]);
    }
}
