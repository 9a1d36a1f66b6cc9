//! Which request counts how much for which metric, as the listener's counters tell.

use crate::world::{Api, PLAIN, World, growth};

const RULES: &str = r#"
{ method = "GET", pattern = "/", metrics = { hits = 1 } },
{ method = "GET", pattern = "/find/{what}/in", metrics = { search = 2 } },
{ method = "POST", pattern = "/send$", metrics = { mail = 3 } },
{ method = ["PUT", "PATCH"], pattern = "/both", metrics = { hits = 1, mail = 1 } },
{ method = "ANY", pattern = "/any", metrics = { mail = 1 } },
{ method = "GET", pattern = "/ask?kind=big&size={any}", metrics = { mail = 10 } },
{ method = "GET", pattern = "/stop", metrics = { mail = 1 }, last = true },
{ method = "GET", pattern = "/stop/here", metrics = { mail = 100 } },
{ method = "GET", pattern = "/dots/v1.0", metrics = { mail = 5 } },
"#;

const ORDERED: &str = r#"
{ method = "GET", pattern = "/", metrics = { hits = 1 }, position = 20 },
{ method = "GET", pattern = "/early", metrics = { mail = 1 }, position = 10, last = true },
"#;

const NO_MATCH: &str = "404 No Mapping Rule matched";

#[tokio::test(flavor = "multi_thread")]
async fn what_matches_adds_up() {
    let world = World::start(&[
        Api { id: "rules", rules: RULES, ..PLAIN },
        Api { id: "ordered", rules: ORDERED, ..PLAIN },
        Api { id: "bare", rules: "", ..PLAIN },
    ])
    .await;
    let key = "user_key={key}";
    for (request, expected) in [
        ("GET rules.test/", "hits=1"),
        ("GET rules.test/find/me/in", "hits=3 search=2"),
        ("GET rules.test/find/me/inside?x", "hits=3 search=2"),
        ("GET rules.test/find/a/b/in", "hits=1"),
        ("GET rules.test/f%69nd/%C3%A9/in", "hits=3 search=2"),
        ("POST rules.test/send", "mail=3"),
        ("PATCH rules.test/both", "hits=1 mail=1"),
        ("DELETE rules.test/any/thing", "mail=1"),
        ("GET rules.test/any", "hits=1 mail=1"),
        ("GET rules.test/ask?kind=big&size=7", "hits=1 mail=10"),
        ("GET rules.test/ask?kind=big", "hits=1"),
        ("GET rules.test/ask?kind=small&size=7", "hits=1"),
        ("GET rules.test/stop/here", "hits=1 mail=1"),
        ("GET rules.test/dots/v1.0", "hits=1 mail=5"),
        ("GET rules.test/dots/v1x0", "hits=1"),
        ("GET ordered.test/early", "mail=1"),
        ("GET ordered.test/late", "hits=1"),
    ] {
        let joint = if request.contains('?') { '&' } else { '?' };
        costs(&world, &format!("{request}{joint}{key}"), "200", expected).await;
    }
    for request in
        ["POST rules.test/send/more", "POST rules.test/SEND", "HEAD rules.test/", "PURGE rules.test/"]
    {
        let expected = if request.starts_with("HEAD") { "404" } else { NO_MATCH };
        costs(&world, &format!("{request}?{key}"), expected, "").await;
    }
    costs(&world, &format!("GET bare.test/?{key}"), NO_MATCH, "").await;
    form_arguments(&world).await;
    world.finish();
}

/// A form's arguments count like those of the URL.
async fn form_arguments(world: &World) {
    let form = "Content-Type: application/x-www-form-urlencoded";
    costs(world, &format!("POST rules.test/send|{form}|||user_key={{key}}"), "200", "mail=3").await;
    costs(world, &format!("PUT rules.test/both?user_key={{key}}|{form}|||a=b"), "200", "hits=1 mail=1").await;
}

/// The request is answered so, and counts so.
async fn costs(world: &World, request: &str, expected: &str, usage: &str) {
    let service = request.split([' ', '.']).nth(1).unwrap();
    let before = world.used(service).await;
    world.check(request, expected);
    assert_eq!(growth(&before, &world.used(service).await), usage, "{request}");
}
