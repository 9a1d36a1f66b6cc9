//! Where credentials are looked for, under which names, and how they are taken out.

use crate::world::{Api, PLAIN, World, header_seen};

const MISSING: &str = "401 Authentication parameters missing";
const FAILED: &str = "403 Authentication failed";
const PAIR: &str = "app_id_and_key";
const NAMES: &str =
    r#"credential_names = { user_key = "Api-Key", app_id = "api_user", app_key = "api_key" }"#;

/// A keyless application beside a suspended one and one with two keys.
const MORE: &str = r#"
[[providers.services.applications]]
id = "keyless"
plan = "plan"
[[providers.services.applications]]
id = "closed"
plan = "plan"
state = "suspended"
app_keys = ["closed-s3cret"]
[[providers.services.applications]]
id = "two+keys&co"
plan = "plan"
app_keys = ["old&s3cret", { key = "gone-s3cret", until = 2020-01-31T00:00:00Z }, "n%65w+s3cret"]
"#;

fn at(location: &str) -> String {
    format!("{NAMES}\ncredentials_location = \"{location}\"")
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_open_the_door() {
    let [query, headers, authorization] = ["query", "headers", "authorization"].map(at);
    let stripped =
        [&query, &headers, &authorization].map(|proxy| format!("{proxy}\nstrip_credentials = true"));
    let api = |id, proxy| Api { id, proxy, ..PLAIN };
    let world = World::start(&[
        api("plain", ""),
        api("query", &query),
        api("headers", &headers),
        api("basic", &authorization),
        Api { mode: PAIR, applications: MORE, ..api("pair-query", &query) },
        Api { mode: PAIR, applications: MORE, ..api("pair-headers", &headers) },
        Api { mode: PAIR, ..api("pair-basic", &authorization) },
        Api { mode: PAIR, ..api("bare-query", &stripped[0]) },
        Api { mode: PAIR, ..api("bare-headers", &stripped[1]) },
        api("bare-basic", &stripped[2]),
    ])
    .await;
    keys_in_the_query(&world);
    pairs_in_the_query(&world);
    in_forms(&world);
    in_headers(&world);
    in_authorization(&world);
    taken_out(&world);
    world.finish();
}

fn keys_in_the_query(world: &World) {
    world.check("GET plain.test/?user_key={key}", "200");
    world.check("GET plain.test/?a=b&USER_KEY=open%2Ds3cret", "200");
    world.check("GET plain.test/?user_key={key}&user_key=wrong-s3cret", "200");
    world.check("GET plain.test/?user_key=wrong-s3cret&user_key={key}", FAILED);
    world.check("GET plain.test/?user_key=wrong-s3cret", FAILED);
    world.check(&format!("GET plain.test/?user_key={}-s3cret", "x".repeat(3000)), FAILED);
    world.check("GET plain.test/?user_key=", MISSING);
    world.check("GET plain.test/", MISSING);
    world.check("GET plain.test/|user_key: {key}|Authorization: Bearer {key}", MISSING);
    world.check("GET query.test/?Api-Key={key}", "200");
    world.check("GET query.test/?user_key={key}", MISSING);
}

fn pairs_in_the_query(world: &World) {
    for (query, expected) in [
        ("api_user=app&api_key={key}", "200"),
        ("api_key={key}&x=y&api_user=app", "200"),
        ("api_user=two%2Bkeys%26co&api_key=old%26s3cret", "200"),
        ("api_user=two%2bkeys%26co&api_key=n%2565w%2Bs3cret", "200"),
        ("api_user=two%2Bkeys%26co&api_key=gone-s3cret", FAILED),
        ("api_user=two%2Bkeys%26co&api_key={key}", FAILED),
        ("api_user=keyless&api_key=", "200"),
        ("api_user=app&api_key=", FAILED),
        ("api_user=app&api_key=wrong-s3cret", FAILED),
        ("api_user=nobody&api_key={key}", FAILED),
        ("api_user=closed&api_key=closed-s3cret", FAILED),
        ("api_user=app", MISSING),
        ("api_user=&api_key={key}", MISSING),
        ("api_key={key}", MISSING),
        ("app_id=app&app_key={key}", MISSING),
        ("user_key={key}", MISSING),
    ] {
        world.check(&format!("GET pair-query.test/?{query}"), expected);
    }
}

fn in_forms(world: &World) {
    let form = "Content-Type: application/x-www-form-urlencoded";
    world.check(&format!("POST plain.test/|{form}|||a=b&user_key={{key}}"), "200");
    world.check(&format!("POST pair-query.test/?api_user=app|{form}|||api_key={{key}}"), "200");
    world.check(&format!("POST plain.test/?user_key=|{form}|||user_key={{key}}"), "200");
    world.check("POST plain.test/|Content-Type: text/plain|||user_key={key}", MISSING);
    let long = "x".repeat(17 << 10);
    world.check(&format!("POST plain.test/|{form}|||user_key={{key}}&a={long}"), MISSING);
    let seen = world.seen(&format!("PUT plain.test/|{form}|||user_key={{key}}&b=c"));
    assert_eq!(seen["body"], "user_key=open-s3cret&b=c");
}

fn in_headers(world: &World) {
    world.check("GET headers.test/|Api-Key: {key}", "200");
    world.check("GET headers.test/|api_key: {key}", "200");
    world.check("GET headers.test/|API-KEY: wrong-s3cret", FAILED);
    world.check("GET headers.test/?Api-Key={key}", MISSING);
    world.check("GET headers.test/|Api-Key: ", MISSING);
    world.check("GET pair-headers.test/|api_user: app|api_key: {key}", "200");
    world.check("GET pair-headers.test/|Api-User: two+keys&co|Api-Key: old&s3cret", "200");
    world.check("GET pair-headers.test/|Api-User: two+keys&co|Api-Key: n%65w+s3cret", "200");
    world.check("GET pair-headers.test/|api_user: app", MISSING);
}

fn in_authorization(world: &World) {
    for (host, value, expected) in [
        ("basic", "Basic b3Blbi1zM2NyZXQ6", "200"),
        ("basic", "BASIC OjpvcGVuLXMzY3JldA==", FAILED),
        ("basic", "basic Om9wZW4tczNjcmV0", "200"),
        ("basic", "Bearer {key}", "200"),
        ("basic", "bearer wrong-s3cret", FAILED),
        ("basic", "Bearer", MISSING),
        ("basic", "Digest {key}", MISSING),
        ("basic", "Basic ***", MISSING),
        ("pair-basic", "Basic YXBwOm9wZW4tczNjcmV0", "200"),
        ("pair-basic", "Basic YXBwOndyb25nLXMzY3JldA==", FAILED),
        ("pair-basic", "Basic YXBwOg==", FAILED),
        ("pair-basic", "Basic YXBw", MISSING),
        ("pair-basic", "Bearer {key}", MISSING),
    ] {
        world.check(&format!("GET {host}.test/|Authorization: {value}"), expected);
    }
    world.check("GET basic.test/?Api-Key={key}|Api-Key: {key}", MISSING);
}

fn taken_out(world: &World) {
    world.lands("GET query.test/a?x=1&Api-Key={key}", "/a?x=1&Api-Key=open-s3cret");
    world.sends("GET headers.test/|Api_Key: {key}", "api_key", "open-s3cret");
    world.sends("GET basic.test/|Authorization: Bearer {key}", "authorization", "Bearer open-s3cret");
    world.lands("GET bare-query.test/a?x=%41&api_user=app&y&API_KEY={key}&=z", "/a?x=%41&y&=z");
    world.lands("GET bare-query.test/a?api_user=app&api_key={key}", "/a");
    let form = "Content-Type: application/x-www-form-urlencoded";
    let seen = world.seen(&format!("POST bare-query.test/?api_user=app|{form}|||api_key={{key}}&b=c"));
    assert_eq!((&seen["body"], &seen["target"]), (&"b=c".into(), &"/".into()));
    assert_eq!(header_seen(&seen, "content-length"), "3");
    let seen = world.seen("GET bare-headers.test/|Api_User: app|api-key: {key}|Api-Keys: left");
    let shown = seen["headers"].to_string();
    assert!(!shown.contains("s3cret") && !shown.contains("user") && shown.contains("left"), "{shown}");
    world.sends("GET bare-basic.test/|Authorization: Bearer {key}", "authorization", "");
}
