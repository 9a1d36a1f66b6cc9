//! `edge_limits`: how fast and how many at a time, and that plans do not pay for what was refused.
//!
//! Periods are of an hour: what a bucket holds at the start is all that there is within a test.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use weir_tests::scripted::Scripted;
use weir_tests::wait::until;

use crate::policies::{api, code, comes_to, judge, proxy, to};
use crate::world::{Api, World};

const FAST: &str = "429 edge_rate_exceeded";
const MANY: &str = "429 edge_concurrency_exceeded";

/// Two more applications, one with two keys.
const MORE: &str = r#"
[[providers.services.applications]]
id = "two"
plan = "plan"
app_keys = ["one-s3cret", "other-s3cret"]
"#;

fn limits(limits: &str) -> String {
    format!(r#"{{ policy = "edge_limits", limits = [{limits}] }}"#)
}

/// So many at once per something, and five more in an hour.
fn burst(per: &str, burst: u64) -> String {
    limits(&format!("{{ per = {per}, requests = 5, period_s = 3600, burst = {burst} }}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn rates_are_per_caller() {
    let of = |per, at_once| proxy(&burst(per, at_once));
    let [address, header] = [of("\"address\"", 2), of("\"header\", header = \"X-Tenant\"", 2)];
    let [service, application, client] =
        ["\"service\"", "\"application\"", "\"client\""].map(|per| of(per, 2));
    let front = proxy(&format!("{}, {{ policy = \"authorise\" }}", burst("\"address\"", 2)));
    let some = format!("{{ policy = \"authorise\" }}, {}", burst("\"service\"", 1));
    let some =
        proxy(&some.replace(" }] }", " }], when = { paths = \"/slow\" }, unless = { methods = \"POST\" } }"));
    let pair = |id, proxy| Api { mode: "app_id_and_key", applications: MORE, ..api(id, proxy) };
    let world = World::start_with(
        &[
            api("address", &address),
            api("header", &header),
            api("service", &service),
            pair("application", &application),
            pair("client", &client),
            api("front", &front),
            api("some", &some),
        ],
        "trusted_proxies = [\"127.0.0.1\"]",
    )
    .await;
    by_address(&world).await;
    by_what_is_sent(&world).await;
    by_who_calls(&world).await;
    some_alone(&world).await;
    told_when_to_come_back(&world);
    world.finish();
}

async fn by_address(world: &World) {
    let from = |address: &str| format!("GET /?user_key={{key}}|X-Forwarded-For: {address}");
    let [one, other] = ["192.0.2.1", "192.0.2.2"].map(from);
    // Of IPv6, a customer has the last 64 bits to himself.
    let [six, same_six, other_six] = ["2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1"].map(from);
    judge(
        world,
        "address",
        &[
            (&one, "200"),
            (&one, "200"),
            (&one, FAST),
            (&one, FAST),
            (&other, "200"),
            (&six, "200"),
            (&same_six, "200"),
            (&six, FAST),
            (&same_six, FAST),
            (&other_six, "200"),
            (&other, "200"),
            (&other, FAST),
        ],
    )
    .await;
}

async fn by_what_is_sent(world: &World) {
    judge(
        world,
        "header",
        &[
            ("GET /?user_key={key}|X-Tenant: a", "200"),
            ("POST /x?user_key={key}|x-tenant: a", "200"),
            ("GET /?user_key={key}|X-Tenant: a", FAST),
            ("GET /?user_key={key}|X-Tenant: b", "200"),
            // Nobody who may not call uses anything up: it stands behind.
            ("GET /|X-Tenant: c", "401 credentials_missing"),
            ("GET /?user_key=wrong-s3cret|X-Tenant: c", "403 user_key_invalid"),
            ("GET /?user_key={key}|X-Tenant: c", "200"),
            ("GET /?user_key={key}|X-Tenant: c", "200"),
            ("GET /?user_key={key}|X-Tenant: c", FAST),
        ],
    )
    .await;
    judge(
        world,
        "service",
        &[
            ("GET /a?user_key={key}|X-Forwarded-For: 192.0.2.1", "200"),
            ("GET /b?user_key={key}|X-Forwarded-For: 192.0.2.2", "200"),
            ("GET /c?user_key={key}|X-Forwarded-For: 192.0.2.3", FAST),
        ],
    )
    .await;
    // In front it sees calls before anybody asks whose they are.
    judge(
        world,
        "front",
        &[
            ("GET /", "401 credentials_missing"),
            ("GET /?user_key={key}", "200"),
            ("GET /", FAST),
            ("GET /?user_key={key}", FAST),
            ("GET /?user_key=wrong-s3cret|X-Forwarded-For: 192.0.2.1", "403 user_key_invalid"),
        ],
    )
    .await;
}

async fn by_who_calls(world: &World) {
    let two = |key: &str| format!("GET /?app_id=two&app_key={key}-s3cret");
    let (one, other, app) = (two("one"), two("other"), "GET /?app_id=app&app_key={key}");
    for (service, calls) in [
        ("application", [(&one, "200"), (&other, "200"), (&one, FAST), (&other, FAST)]),
        ("client", [(&one, "200"), (&one, "200"), (&one, FAST), (&other, "200")]),
    ] {
        let passed = calls.iter().filter(|(_, expected)| *expected == "200").count();
        for (call, expected) in calls {
            assert_eq!(code(world, &to(service, call)), expected, "{service}: {call}");
        }
        comes_to(world, service, "two", passed as u64).await;
        judge(world, service, &[(app, "200"), (app, "200"), (app, FAST)]).await;
    }
}

async fn some_alone(world: &World) {
    judge(
        world,
        "some",
        &[
            ("GET /fast?user_key={key}", "200"),
            ("POST /slow?user_key={key}", "200"),
            ("GET /slow?user_key={key}", "200"),
            ("GET /slow/x?user_key={key}", FAST),
            ("POST /slow?user_key={key}", "200"),
            ("GET /fast?user_key={key}", "200"),
        ],
    )
    .await;
}

/// Five in an hour: the next is due in twelve minutes at the latest.
fn told_when_to_come_back(world: &World) {
    for format in ["text/plain", "application/problem+json"] {
        let answer = world.call(&format!("GET service.test/?user_key={{key}}|Accept: {format}"));
        let wait_s: u64 = answer.header("retry-after").parse().unwrap();
        assert_eq!(answer.status, 429, "{answer:?}");
        assert!((600..=720).contains(&wait_s), "{answer:?}");
    }
}

/// Goal: exactly the burst passes, whoever comes at once, and the plan pays for just that.
#[tokio::test(flavor = "multi_thread")]
async fn no_more_pass_at_once_than_the_burst() {
    const BURST: u64 = 20;
    let policies = proxy(&burst("\"application\"", BURST));
    let synchronous = format!("{policies}\ndecisions = \"synchronous\"");
    let max = format!("{{ metric = \"hits\", period = \"eternity\", max = {} }}", BURST + 10);
    let limited = |id, proxy| Api { limits: &max, ..api(id, proxy) };
    let world = World::start(&[limited("leased", &policies), limited("synchronous", &synchronous)]).await;
    for service in ["leased", "synchronous"] {
        let (passed, refused) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let found = code(&world, &format!("GET {service}.test/?user_key={{key}}"));
                        match found.as_str() {
                            "200" => passed.fetch_add(1, Ordering::SeqCst),
                            FAST => refused.fetch_add(1, Ordering::SeqCst),
                            other => panic!("{service}: {other}"),
                        };
                    }
                });
            }
        });
        let found = (passed.into_inner(), refused.into_inner());
        assert_eq!(found, (BURST, 80 - BURST), "{service}");
        comes_to(&world, service, "app", BURST).await;
    }
    assert_eq!(world.stack.upstream.received(), 2 * BURST);
    world.finish();
}

/// Goal: a place is taken from the call to the end of its answer, however that ends, and is free again then.
#[tokio::test(flavor = "multi_thread")]
async fn places_are_free_again() {
    let one = |per: &str| proxy(&limits(&format!("{{ per = {per}, concurrent_max = 1 }}")));
    let [service, application] = ["\"service\"", "\"application\""].map(one);
    let synchronous = format!("{application}\ndecisions = \"synchronous\"");
    let impatient = format!("{service}\ntimeouts = {{ response_ms = 300 }}");
    let (is_over, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let slow = slow(Arc::clone(&is_over), Arc::clone(&begun));
    let slow_url = slow.url();
    let world = World::start(&[
        api("service", &service),
        api("application", &application),
        api("synchronous", &synchronous),
        api("impatient", &impatient),
        Api { backend: "http://127.0.0.1:1", ..api("away", &service) },
        Api { backend: &slow_url, ..api("slow", &service) },
    ])
    .await;
    for service in ["service", "application", "synchronous"] {
        while_one_is_there(&world, service).await;
    }
    for (service, call, expected) in [
        ("impatient", "GET /?user_key={key}|x-delay-ms: 5000", "504 upstream_timeout"),
        ("away", "GET /?user_key={key}", "502 upstream_unreachable"),
        ("service", "GET /?user_key=wrong-s3cret", "403 user_key_invalid"),
        ("service", "GET /?user_key={key}|x-status: 503", "503"),
    ] {
        for _ in 0..3 {
            let request = to(service, call);
            until(&format!("{expected} of {request}"), || (code(&world, &request) == expected).then_some(()));
        }
    }
    until_the_answers_end(&world, &is_over, &begun);
    until_the_client_leaves(&world);
    world.finish();
}

/// A second call meanwhile is refused, and not counted.
async fn while_one_is_there(world: &World, service: &str) {
    let sent = world.stack.upstream.received();
    let host = format!("{service}.test");
    let request = format!("GET {host}/?user_key={{key}}");
    std::thread::scope(|scope| {
        let first = scope.spawn(|| world.call(&format!("{request}|x-delay-ms: 1500")).status);
        until("the first call upstream", || (world.stack.upstream.received() > sent).then_some(()));
        for _ in 0..3 {
            let second = world.call(&request);
            assert_eq!((second.status, second.header("retry-after").as_str()), (429, "1"), "{second:?}");
        }
        assert_eq!(code(world, &request), MANY);
        assert_eq!(first.join().unwrap(), 200);
    });
    // The client may know that it is over before the gateway does.
    until("the place", || (code(world, &request) == "200").then_some(()));
    assert_eq!(world.stack.upstream.received(), sent + 2);
    comes_to(world, service, "app", 2).await;
}

/// Gives the head of its answer and half of the body; the rest when it is told to.
fn slow(is_over: Arc<AtomicBool>, begun: Arc<AtomicU64>) -> Scripted {
    Scripted::start(move |mut exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nha");
        begun.fetch_add(1, Ordering::SeqCst);
        until("the word to go on", || is_over.load(Ordering::SeqCst).then_some(()));
        exchange.send("lf");
    })
}

fn until_the_answers_end(world: &World, is_over: &AtomicBool, begun: &AtomicU64) {
    let request = "GET slow.test/?user_key={key}";
    std::thread::scope(|scope| {
        let first = scope.spawn(|| world.call(request).body);
        until("the answer to begin", || (begun.load(Ordering::SeqCst) == 1).then_some(()));
        assert_eq!(code(world, request), MANY);
        is_over.store(true, Ordering::SeqCst);
        assert_eq!(first.join().unwrap(), "half");
    });
    until("the place", || (code(world, request) == "200").then_some(()));
}

fn until_the_client_leaves(world: &World) {
    use std::io::Write;
    let sent = world.stack.upstream.received();
    let mut client = std::net::TcpStream::connect(world.stack.gateways[0].address).unwrap();
    let head = format!("GET /?user_key={}", crate::world::KEY);
    write!(client, "{head} HTTP/1.1\r\nHost: service.test\r\nx-delay-ms: 20000\r\n\r\n").unwrap();
    until("the call upstream", || (world.stack.upstream.received() > sent).then_some(()));
    let request = "GET service.test/?user_key={key}";
    assert_eq!(code(world, request), MANY);
    drop(client);
    until("the place", || (code(world, request) == "200").then_some(()));
}

/// Goal: a connection that has left HTTP keeps its place until it ends.
#[tokio::test(flavor = "multi_thread")]
async fn tunnels_keep_their_places() {
    use std::io::{Read, Write};
    let tunnel = Scripted::start(|mut exchange| {
        exchange.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n");
        // Until the client leaves.
        while !exchange.receive().is_empty() {}
    });
    let policies = proxy(&limits("{ per = \"service\", concurrent_max = 1 }"));
    let url = tunnel.url();
    let world = World::start(&[Api { backend: &url, ..api("chats", &policies) }]).await;
    let mut client = std::net::TcpStream::connect(world.stack.gateways[0].address).unwrap();
    let head = format!("GET /?user_key={} HTTP/1.1\r\nHost: chats.test", crate::world::KEY);
    write!(client, "{head}\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n").unwrap();
    let mut answer = [0; 12];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
    let request = "GET chats.test/?user_key={key}";
    assert_eq!(code(&world, request), MANY);
    drop(client);
    // Without a wish to leave HTTP a 101 is no answer.
    until("the place", || (code(&world, request) == "502 upstream_failed").then_some(()));
    world.finish();
}
