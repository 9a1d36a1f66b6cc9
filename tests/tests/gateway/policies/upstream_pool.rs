//! `upstream_pool`: calls go round the addresses that are well; what is ill is left alone until it is well again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use weir_tests::http::Answer;
use weir_tests::scripted::Scripted;
use weir_tests::wait::{free_port, until};

use crate::policies::{api, code, comes_to, hits, proxy};
use crate::world::{Api, World};

/// A backend that says which it is, how it was asked, and a status that can be changed.
struct Member {
    server: Scripted,
    status: Arc<AtomicU16>,
    /// What `/well` is answered.
    health: Arc<AtomicU16>,
    calls: Arc<AtomicU64>,
}

impl Member {
    fn start(name: &'static str) -> Self {
        let [status, health] = [(); 2].map(|()| Arc::new(AtomicU16::new(200)));
        let calls = Arc::new(AtomicU64::new(0));
        let (own_status, own_health, own_calls) =
            (Arc::clone(&status), Arc::clone(&health), Arc::clone(&calls));
        let server = Scripted::start(move |mut exchange| {
            let status = match exchange.head.starts_with("GET /well ") {
                true => own_health.load(Ordering::SeqCst),
                false => {
                    own_calls.fetch_add(1, Ordering::SeqCst);
                    own_status.load(Ordering::SeqCst)
                }
            };
            let head = format!("HTTP/1.1 {status} Fine\r\nConnection: close\r\nX-Member: {name}\r\n");
            let body = exchange.head.clone();
            exchange.send(&format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()));
        });
        Self { server, status, health, calls }
    }

    fn answers(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    fn is_well(&self, status: u16) {
        self.health.store(status, Ordering::SeqCst);
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }
}

fn pool(addresses: &[&str], more: &str) -> String {
    let addresses: Vec<String> = addresses.iter().map(|url| format!("\"{url}\"")).collect();
    format!("{{ policy = \"upstream_pool\", addresses = [{}]{more} }}", addresses.join(", "))
}

fn call(world: &World, service: &str) -> Answer {
    world.call(&format!("GET {service}.test/x?user_key={{key}}"))
}

/// Who answered how many of so many calls; what was refused by its status.
fn answered_by(world: &World, service: &str, calls: usize) -> BTreeMap<String, usize> {
    let mut told = BTreeMap::new();
    for _ in 0..calls {
        let answer = call(world, service);
        let by = match answer.header("x-member") {
            name if name.is_empty() => answer.status.to_string(),
            name => name,
        };
        *told.entry(by).or_default() += 1;
    }
    told
}

fn counts<const N: usize>(counts: [(&str, usize); N]) -> BTreeMap<String, usize> {
    counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_round() {
    let members = ["a", "b", "c"].map(Member::start);
    let urls = members.each_ref().map(|member| member.server.url());
    let dead = format!("http://127.0.0.1:{}", free_port());
    let retry = r#", { policy = "retry", pause_ms = 1, budget_min = 100 }"#;
    let lasting = ", breaker = { failures = 2, open_ms = 3600000 }";
    let spread = proxy(&pool(&[&urls[0], &urls[1], &urls[2]], ""));
    let half_dead = proxy(&pool(&[&dead, &urls[0]], lasting));
    let retried = proxy(&format!("{}{retry}", pool(&[&dead, &urls[0]], lasting)));
    let all_dead = proxy(&pool(&[&dead], lasting));
    let base = |id, proxy| Api { backend: "http://origin.test/base?fixed=1", ..api(id, proxy) };
    let world = World::start(&[
        base("spread", &spread),
        base("half-dead", &half_dead),
        base("retried", &retried),
        base("all-dead", &all_dead),
    ])
    .await;
    assert_eq!(answered_by(&world, "spread", 9), counts([("a", 3), ("b", 3), ("c", 3)]));
    comes_to(&world, "spread", "app", 9).await;
    // Path, query and Host are those of the API's own backend.
    let seen = call(&world, "spread").body.to_ascii_lowercase();
    assert!(seen.starts_with("get /base/x?fixed=1&user_key="), "{seen}");
    assert!(seen.contains("\r\nhost: origin.test\r\n"), "{seen}");

    // Who cannot be reached is left alone after two failures.
    assert_eq!(answered_by(&world, "half-dead", 12), counts([("502", 2), ("a", 10)]));
    assert_eq!(answered_by(&world, "retried", 8), counts([("a", 8)]));
    comes_to(&world, "retried", "app", 8).await;

    assert_eq!(answered_by(&world, "all-dead", 2), counts([("502", 2)]));
    let used = hits(&world, "all-dead", "app").await;
    for _ in 0..3 {
        nobody_is_well(&world, "all-dead");
    }
    comes_to(&world, "all-dead", "app", used).await;
    world.finish();
}

fn nobody_is_well(world: &World, service: &str) {
    assert_eq!(code(world, &format!("GET {service}.test/x?user_key={{key}}")), "503 upstream_unhealthy");
    let answer = call(world, service);
    assert_eq!((answer.status, answer.header("retry-after").as_str()), (503, "1"), "{answer:?}");
}

/// Goal: the breaker opens on what is listed, in a row, and closes again.
#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_opens_and_closes() {
    const OPEN_MS: u64 = 1_500;
    let member = Member::start("one");
    let url = member.server.url();
    let breaker =
        format!(", breaker = {{ failures = 3, open_ms = {OPEN_MS}, statuses = [\"500\", \"501\"] }}");
    let policies = proxy(&pool(&[&url], &breaker));
    let synchronous = format!("{policies}\ndecisions = \"synchronous\"");
    let world = World::start(&[api("leased", &policies), api("synchronous", &synchronous)]).await;
    for service in ["leased", "synchronous"] {
        let before = member.calls();
        member.answers(503);
        for _ in 0..6 {
            assert_eq!(call(&world, service).header("x-member"), "one", "503 is not listed here");
        }
        for status in [500, 501, 200, 500, 404, 501, 500] {
            member.answers(status);
            assert_eq!(call(&world, service).status, status, "not three in a row");
        }
        member.answers(500);
        until("the breaker to open", || (call(&world, service).header("x-member").is_empty()).then_some(()));
        nobody_is_well(&world, service);
        // Each time that it has been open for so long, one call tries.
        let calls = member.calls();
        until("a call to try", || {
            call(&world, service);
            (member.calls() > calls).then_some(())
        });
        member.answers(200);
        until("the breaker to close", || (call(&world, service).status == 200).then_some(()));
        for _ in 0..5 {
            assert_eq!(call(&world, service).status, 200, "{service}");
        }
        // What was refused here is not counted, what the member answered is.
        comes_to(&world, service, "app", member.calls() - before).await;
    }
    world.finish();
}

/// Goal: an address that says that it is ill gets no calls until it says that it is well.
#[tokio::test(flavor = "multi_thread")]
async fn probes_say_who_is_well() {
    let members = ["p", "q"].map(Member::start);
    let urls = members.each_ref().map(|member| member.server.url());
    let probe = ", probe = { path = \"/well\", interval_ms = 100, timeout_ms = 2000, healthy_after = 2, unhealthy_after = 2 }";
    let policies = proxy(&pool(&[&urls[0], &urls[1]], probe));
    let world = World::start(&[api("probed", &policies)]).await;
    let [p, q] = &members;
    let six = || answered_by(&world, "probed", 6);
    assert_eq!(six(), counts([("p", 3), ("q", 3)]));
    p.is_well(500);
    until("p to be left alone", || (six() == counts([("q", 6)])).then_some(()));
    q.is_well(404);
    until("nobody to be well", || (six() == counts([("503", 6)])).then_some(()));
    nobody_is_well(&world, "probed");
    let calls = p.calls() + q.calls();
    nobody_is_well(&world, "probed");
    assert_eq!(p.calls() + q.calls(), calls);
    // Probes cost nothing, nor do refused calls.
    comes_to(&world, "probed", "app", calls).await;
    p.is_well(204);
    until("p to be back", || (six() == counts([("p", 6)])).then_some(()));
    q.is_well(302);
    until("both to be back", || (six() == counts([("p", 3), ("q", 3)])).then_some(()));
    comes_to(&world, "probed", "app", p.calls() + q.calls()).await;
    world.finish();
}

/// Goal: an address that hangs is found out under load, too: who found no place there has nothing to say of it.
#[tokio::test(flavor = "multi_thread")]
async fn calls_without_a_place_say_nothing() {
    let breaker = ", breaker = { failures = 2, open_ms = 3600000 }";
    let policies = proxy(&pool(&["{upstream}"], breaker));
    let hanging = format!("{policies}\ntimeouts = {{ connect_ms = 100, response_ms = 1500 }}");
    let lines = "[limits]\nupstream_in_flight_max = 1\n";
    let world = World::start_with(&[api("hanging", &hanging)], lines).await;
    let request = "GET hanging.test/?user_key={key}";
    for _ in 0..2 {
        let sent = world.stack.upstream.received();
        std::thread::scope(|scope| {
            let first = scope.spawn(|| code(&world, &format!("{request}|x-delay-ms: 20000")));
            until("the first call upstream", || (world.stack.upstream.received() > sent).then_some(()));
            assert_eq!(code(&world, request), "503 upstream_busy");
            assert_eq!(first.join().unwrap(), "504 upstream_timeout");
        });
    }
    assert_eq!(
        code(&world, request),
        "503 upstream_unhealthy",
        "two failed, and none went well between them"
    );
    comes_to(&world, "hanging", "app", 2).await;
    world.finish();
}

/// Goal: what a client did wrong says nothing of the upstream either.
#[tokio::test(flavor = "multi_thread")]
async fn faults_of_clients_say_nothing() {
    let breaker = ", breaker = { failures = 2, open_ms = 3600000 }";
    let short = r#"{ policy = "payload_limits", request_bytes_max = 10 }"#;
    let failing = proxy(&format!("{}, {short}", pool(&["{upstream}"], breaker)));
    let world = World::start(&[api("failing", &failing)]).await;
    let call = "GET failing.test/?user_key={key}|x-status: 503";
    assert_eq!(code(&world, call), "503");
    let too_long = world.raw(
        "POST /?user_key={key} HTTP/1.1\r\nHost: failing.test\r\nTransfer-Encoding: chunked\r\n\
         Connection: close\r\n\r\n14\r\n12345678901234567890\r\n0\r\n\r\n",
    );
    assert_eq!(too_long.status, 413);
    assert_eq!(code(&world, call), "503");
    assert_eq!(code(&world, call), "503 upstream_unhealthy");
    comes_to(&world, "failing", "app", 2).await;
    world.finish();
}
