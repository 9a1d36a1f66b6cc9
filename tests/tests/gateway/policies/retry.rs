//! `retry`: calls are sent again where that does no harm, as often as they may be, and are counted once.

use crate::policies::{api, comes_to, hits, proxy, to, with};
use crate::world::{Api, World, header_seen};

/// Two more times, without a pause worth a name, within a budget that is not reached.
const TWICE: &str = r#"{ policy = "retry", retries_max = 2, pause_ms = 1, budget_min = 1000 }"#;
const LISTED: &str = r#"{ policy = "retry", statuses = ["429", "5xx"], pause_ms = 1, budget_min = 1000, unless = { paths = "/once" } }"#;
const POOR: &str = r#"{ policy = "retry", pause_ms = 0, budget_min = 0, budget_percent = 0 }"#;
const TWO_IN_ALL: &str = r#"{ policy = "retry", pause_ms = 0, budget_min = 2, budget_percent = 0 }"#;

/// Failures cost nothing.
const FREE: &str = r#"{ method = "ANY", pattern = "/", metrics = { hits = 1 }, free_answers = ["5xx"] }"#;

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_sent_again() {
    let [twice, listed, poor, two] = [TWICE, LISTED, POOR, TWO_IN_ALL].map(proxy);
    let impatient = format!("{twice}\ntimeouts = {{ response_ms = 300 }}");
    let synchronous = format!("{twice}\ndecisions = \"synchronous\"");
    let bare = format!("{twice}\nstrip_credentials = true");
    let world = World::start(&[
        api("twice", &twice),
        api("synchronous", &synchronous),
        api("impatient", &impatient),
        api("listed", &listed),
        api("poor", &poor),
        api("two", &two),
        Api { rules: FREE, ..api("free", &twice) },
        api("bare", &bare),
        api("without", ""),
    ])
    .await;
    for service in ["twice", "synchronous"] {
        by_answer(&world, service).await;
        by_method_and_body(&world, service).await;
    }
    others(&world).await;
    bodies(&world);
    budgets(&world).await;
    free_failures(&world).await;
    world.finish();
}

/// Makes calls, each of which fails first as the table says, with a key of its own: `TIMES,HOW`. Expected are the
/// status that the client is told and how often the upstream was asked. Each call is counted once.
async fn tries(world: &World, service: &str, calls: &[(&str, &str, u16, u64)]) {
    let used = hits(world, service, "app").await;
    for (at, (call, failing, status, tries)) in calls.iter().enumerate() {
        let sent = world.stack.upstream.received();
        let wish = format!("x-fail-first: {service}-{used}-{at},{failing}");
        let request = to(service, &with(call, &wish));
        let answer = world.call(&request);
        let found = (answer.status, world.stack.upstream.received() - sent);
        assert_eq!(found, (*status, *tries), "{service}: {call} {failing}");
    }
    comes_to(world, service, "app", used + calls.len() as u64).await;
}

async fn by_answer(world: &World, service: &str) {
    let get = "GET /a?user_key={key}";
    tries(
        world,
        service,
        &[
            (get, "0,503", 200, 1),
            (get, "1,503", 200, 2),
            (get, "2,502", 200, 3),
            (get, "2,504", 200, 3),
            (get, "3,503", 503, 3),
            (get, "9,504", 504, 3),
            (get, "1,500", 500, 1),
            (get, "1,429", 429, 1),
            (get, "1,404", 404, 1),
            (get, "1,break", 200, 2),
            (get, "2,break", 200, 3),
            (get, "9,break", 502, 3),
        ],
    )
    .await;
}

/// What could do harm twice is sent once.
async fn by_method_and_body(world: &World, service: &str) {
    tries(
        world,
        service,
        &[
            ("HEAD /a?user_key={key}", "1,503", 200, 2),
            ("OPTIONS /a?user_key={key}", "1,503", 200, 2),
            ("DELETE /a?user_key={key}", "1,break", 200, 2),
            ("DELETE /a?user_key={key}|||body", "1,503", 200, 2),
            ("PUT /a?user_key={key}", "1,503", 200, 2),
            ("PUT /a?user_key={key}|||body", "1,break", 200, 2),
            ("POST /a?user_key={key}", "1,503", 503, 1),
            ("POST /a?user_key={key}|||body", "1,503", 503, 1),
            ("POST /a?user_key={key}|||body", "1,break", 502, 1),
            ("PATCH /a?user_key={key}|||body", "1,503", 503, 1),
            ("PATCH /a?user_key={key}", "1,break", 502, 1),
            ("PURGE /a?user_key={key}", "1,503", 503, 1),
        ],
    )
    .await;
}

async fn others(world: &World) {
    let get = "GET /a?user_key={key}";
    tries(world, "without", &[(get, "1,503", 503, 1), ("PUT /a?user_key={key}|||body", "1,503", 503, 1)])
        .await;
    tries(
        world,
        "impatient",
        &[(get, "1,hang", 200, 2), (get, "9,hang", 504, 3), ("POST /a?user_key={key}", "1,hang", 504, 1)],
    )
    .await;
    tries(
        world,
        "listed",
        &[
            (get, "1,429", 200, 2),
            (get, "1,500", 200, 2),
            (get, "1,599", 200, 2),
            (get, "1,404", 404, 1),
            (get, "1,break", 200, 2),
            (get, "2,429", 429, 2),
            ("GET /once?user_key={key}", "1,429", 429, 1),
            ("GET /once?user_key={key}", "1,break", 502, 1),
        ],
    )
    .await;
}

/// A body is sent again whole, up to 16 KiB; one that is longer, or does not say how long it is, is not kept.
fn bodies(world: &World) {
    let put = |key: &str, bytes: usize| {
        let body: String = ('a'..='z').cycle().take(bytes).collect();
        let request = format!("PUT twice.test/?user_key={{key}}|x-fail-first: {key},2,503|||{body}");
        let sent = world.stack.upstream.received();
        let answer = world.call(&request);
        if answer.status == 200 {
            assert_eq!(answer.json()["body"], body, "{bytes}");
        }
        (answer.status, world.stack.upstream.received() - sent)
    };
    assert_eq!(put("short", 1), (200, 3));
    assert_eq!(put("most", 16 << 10), (200, 3));
    assert_eq!(put("more", (16 << 10) + 1), (503, 1));
    let sent = world.stack.upstream.received();
    let chunked = world.raw(
        "PUT /?user_key={key} HTTP/1.1\r\nHost: twice.test\r\nx-fail-first: chunked,1,503\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    );
    assert_eq!((chunked.status, world.stack.upstream.received() - sent), (503, 1));
    // Of a form, the credentials stay here each time.
    let form = "Content-Type: application/x-www-form-urlencoded|x-fail-first: form,2,503";
    let seen = world.seen(&format!("PUT bare.test/|{form}|||user_key={{key}}&a=b"));
    assert_eq!((&seen["body"], header_seen(&seen, "content-length").as_str()), (&"a=b".into(), "3"));
    // What the client was told is what the last try answered, its headers among it.
    let told = world.call("GET twice.test/?user_key={key}|x-fail-first: told,1,503|x-header: X-Told=last");
    assert_eq!((told.status, told.header("x-told").as_str()), (200, "last"));
}

/// A budget keeps an upstream that is down from being asked more than ever.
async fn budgets(world: &World) {
    let get = "GET /a?user_key={key}";
    tries(world, "poor", &[(get, "1,503", 503, 1), (get, "1,break", 502, 1), (get, "0,503", 200, 1)]).await;
    let used_up = [
        (get, "1,503", 200, 2),
        (get, "0,503", 200, 1),
        (get, "1,break", 200, 2),
        (get, "1,503", 503, 1),
        (get, "1,break", 502, 1),
    ];
    tries(world, "two", &used_up).await;
}

/// Whether a call failed goes by its last try.
async fn free_failures(world: &World) {
    let call = |failing: &str| {
        world.call(&format!("GET free.test/?user_key={{key}}|x-fail-first: {failing}")).status
    };
    assert_eq!(call("free-a,2,503"), 200);
    assert_eq!(call("free-b,3,503"), 503);
    assert_eq!(call("free-c,1,500"), 500);
    comes_to(world, "free", "app", 1).await;
}
