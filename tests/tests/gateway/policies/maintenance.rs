//! `maintenance`: the gateway answers in the API's place, before anything is asked or counted.

use crate::policies::{api, judge, proxy};
use crate::world::World;

const PLAIN_TEXT: &str = r#"{ policy = "maintenance" }"#;
const CUSTOM: &str = r#"{ policy = "maintenance", status = 429, body = '{"back":"soon"}', content_type = "application/json", retry_after_s = 120 }"#;
const SOME: &str = r#"{ policy = "maintenance", status = 410, body = "Gone for good", when = { methods = ["POST", "PUT"], paths = "/v1" },
    unless = { query = [{ name = "tester", values = "yes" }] } }"#;
/// Both have to stand in front, in the order in which they are written.
const DENY: &str = r#"{ policy = "ip_check", deny = "127.0.0.1" }"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_answers_in_the_apis_place() {
    let [down, custom, some] = [PLAIN_TEXT, CUSTOM, SOME].map(proxy);
    let first = proxy(&format!("{PLAIN_TEXT}, {DENY}"));
    let second = proxy(&format!("{DENY}, {PLAIN_TEXT}"));
    let fine = proxy(r#"{ policy = "maintenance", status = 200, body = "" }"#);
    let world = World::start(&[
        api("down", &down),
        api("custom", &custom),
        api("some", &some),
        api("first", &first),
        api("second", &second),
        api("fine", &fine),
    ])
    .await;
    answered(&world);
    judge(
        &world,
        "down",
        &[
            ("GET /?user_key={key}", "503 maintenance"),
            ("GET /", "503 maintenance"),
            ("POST /x?user_key=wrong-s3cret|||body", "503 maintenance"),
        ],
    )
    .await;
    judge(&world, "custom", &[("DELETE /?user_key={key}", "429 maintenance")]).await;
    judge(
        &world,
        "some",
        &[
            ("GET /v1?user_key={key}", "200"),
            ("POST /v1/x?user_key={key}", "410 maintenance"),
            ("PUT /v1/x", "410 maintenance"),
            ("POST /v2?user_key={key}", "200"),
            ("POST /v1?user_key={key}&tester=yes", "200"),
            ("POST /v1?tester=yes", "401 credentials_missing"),
            ("POST /v1?user_key={key}&tester=no", "410 maintenance"),
        ],
    )
    .await;
    judge(&world, "first", &[("GET /?user_key={key}", "503 maintenance")]).await;
    judge(&world, "second", &[("GET /?user_key={key}", "403 address_denied")]).await;
    world.finish();
}

fn answered(world: &World) {
    for (call, status, body, content_type, retry_after) in [
        ("GET down.test/", 503, "Service Unavailable - Maintenance", "text/plain; charset=utf-8", ""),
        ("HEAD down.test/", 503, "", "text/plain; charset=utf-8", ""),
        ("GET custom.test/", 429, r#"{"back":"soon"}"#, "application/json", "120"),
        ("POST some.test/v1", 410, "Gone for good", "text/plain; charset=utf-8", ""),
        ("GET fine.test/", 200, "", "text/plain; charset=utf-8", ""),
    ] {
        let answer = world.call(call);
        assert_eq!((answer.status, answer.body.as_str()), (status, body), "{call}");
        assert_eq!(answer.header("content-type"), content_type, "{call}");
        assert_eq!(answer.header("retry-after"), retry_after, "{call}");
    }
    let problem = world.call("GET custom.test/|Accept: application/problem+json");
    assert_eq!((problem.status, problem.header("retry-after").as_str()), (429, "120"));
    assert_eq!(problem.json()["code"], "maintenance");
    assert_eq!(world.stack.upstream.received(), 0);
}
