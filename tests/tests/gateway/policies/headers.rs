//! `headers`: what becomes of requests' headers on their way up and of answers' on their way down.

use crate::policies::{answers, api, comes_to, judge, proxy};
use crate::world::{World, header_seen};

const MARKED: &str = r#"{ policy = "headers", request = [
    { name = "X-Set", value = "mine" },
    { change = "add", name = "X-Add", value = "more" },
    { change = "default", name = "X-Default", value = "gateway" },
    { change = "remove", name = "X-Remove" },
    { name = "X-Who", value = "{application} from {client_address}" },
    { name = "X-Call", value = "{method} {host}{path}" },
    { name = "X-Call-Id", value = "{request_id}" },
    { name = "X-Region", value = "{header.X-Zone}" },
    { name = "X-Query", value = "<{query.q}>" },
    { name = "X-Empty", value = "{query.nothing}" },
    { change = "add", name = "X-Nothing-More", value = "{query.nothing}" },
    { name = "X-Brace", value = "{{{query.q}}}" },
], response = [
    { name = "X-Set", value = "mine" },
    { change = "add", name = "X-Add", value = "more" },
    { change = "default", name = "X-Default", value = "gateway" },
    { change = "remove", name = "X-Remove" },
    { name = "Server", value = "{{weir}}" },
] }"#;

/// One for some calls, and one behind the other.
const SOME: &str = r#"
    { policy = "headers", request = [{ name = "X-In", value = "yes" }], response = [{ name = "X-Out", value = "yes" }],
      when = { paths = ["/in", "/both$"], methods = ["GET", "PUT"] },
      unless = { headers = [{ name = "X-Plain", values = ["1", "2"] }] } }"#;
const TWICE: &str = r#"
    { policy = "headers", request = [{ name = "X-A", value = "1" }] },
    { policy = "headers", request = [{ change = "add", name = "x-a", value = "2" }, { change = "default", name = "X-A", value = "3" }] },
    { policy = "headers", request = [{ change = "remove", name = "X-B" }, { change = "default", name = "X-B", value = "{header.X-A}" }] }"#;

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_changed_both_ways() {
    let [marked, some, twice] = [MARKED, SOME, TWICE].map(proxy);
    let world = World::start(&[api("marked", &marked), api("some", &some), api("twice", &twice)]).await;
    requests(&world);
    answers_too(&world);
    some_alone(&world);
    nothing_is_smuggled(&world);
    world.sends("GET twice.test/?user_key={key}|X-A: 0|X-A: 9", "x-a", "1, 2");
    comes_to(&world, "twice", "app", 1).await;
    judge(
        &world,
        "marked",
        &[
            ("GET /?user_key={key}", "200"),
            ("GET /", "401 credentials_missing"),
            ("GET /?user_key=wrong-s3cret", "403 user_key_invalid"),
        ],
    )
    .await;
    world.finish();
}

fn requests(world: &World) {
    for (sent, name, expected) in [
        ("", "x-set", "mine"),
        ("|X-Set: theirs|x-set: too", "x-set", "mine"),
        // Many backends read both spellings as one.
        ("|X_Set: theirs", "x_set", ""),
        ("|X_Remove: 1", "x_remove", ""),
        ("", "x-add", "more"),
        ("|X-Add: theirs", "x-add", "theirs, more"),
        ("", "x-default", "gateway"),
        ("|X-Default: theirs", "x-default", "theirs"),
        ("|X-Remove: 1|x-remove: 2", "x-remove", ""),
        ("", "x-who", "app from 127.0.0.1"),
        ("", "x-call", "GET marked.test/a"),
        ("|X-Request-Id: chosen-1", "x-call-id", "chosen-1"),
        ("|X-Zone: north", "x-region", "north"),
        ("|X-Zone: north|X-Region: forged", "x-region", "north"),
        ("|X-Region: forged", "x-region", ""),
        ("|X-Empty: forged", "x-empty", ""),
        ("|X-Nothing-More: 1", "x-nothing-more", "1"),
        ("", "x-nothing-more", ""),
        ("|X-Other: untouched", "x-other", "untouched"),
    ] {
        world.sends(&format!("GET marked.test/a?user_key={{key}}{sent}"), name, expected);
    }
    for (query, name, expected) in [
        ("q=plain", "x-query", "<plain>"),
        ("q=first&q=a%20%3Cb%3E%26", "x-query", "<a <b>&>"),
        ("", "x-query", "<>"),
        ("q=v", "x-brace", "{v}"),
        ("q=%7Bapplication%7D", "x-query", "<{application}>"),
    ] {
        world.sends(&format!("GET marked.test/?user_key={{key}}&{query}"), name, expected);
    }
}

fn answers_too(world: &World) {
    for (sent, name, expected) in [
        ("", "x-set", "mine"),
        ("|x-header: X-Set=theirs", "x-set", "mine"),
        ("", "x-add", "more"),
        ("|x-header: X-Add=theirs", "x-add", "theirs, more"),
        ("", "x-default", "gateway"),
        ("|x-header: X-Default=theirs", "x-default", "theirs"),
        ("|x-header: X-Remove=theirs", "x-remove", ""),
        ("|x-header: Server=theirs", "server", "{weir}"),
        ("|x-header: X-Other=untouched", "x-other", "untouched"),
        ("|x-status: 503", "x-set", "mine"),
    ] {
        answers(world, &format!("GET marked.test/?user_key={{key}}{sent}"), name, expected);
    }
    // The gateway's own refusals, too; what requests get, they do not.
    for refused in ["GET marked.test/", "GET marked.test/?user_key=wrong-s3cret"] {
        for (name, expected) in
            [("x-set", "mine"), ("x-add", "more"), ("x-default", "gateway"), ("x-who", "")]
        {
            answers(world, refused, name, expected);
        }
    }
    world.check("GET marked.test/", "401 Authentication parameters missing");
}

fn some_alone(world: &World) {
    for (call, is_one) in [
        ("GET some.test/in/side?user_key={key}", true),
        ("GET some.test/%69n?user_key={key}", true),
        ("PUT some.test/both?user_key={key}", true),
        ("PUT some.test/both/x?user_key={key}", false),
        ("POST some.test/in?user_key={key}", false),
        ("GET some.test/out?user_key={key}", false),
        ("GET some.test/in?user_key={key}|X-Plain: 2", false),
        ("GET some.test/in?user_key={key}|x-plain: 3", true),
    ] {
        let expected = if is_one { "yes" } else { "" };
        world.sends(call, "x-in", expected);
        answers(world, call, "x-out", expected);
    }
}

/// A line's end in a value ends no line.
fn nothing_is_smuggled(world: &World) {
    for query in ["q=a%0d%0aX-Evil:%201", "q=a%0aX-Evil:%201", "q=a%0d%0a%0d%0aX-Evil:%201%00"] {
        let seen = world.seen(&format!("GET marked.test/?user_key={{key}}&{query}"));
        assert_eq!(header_seen(&seen, "x-query"), "<aX-Evil: 1>", "{query}");
        assert_eq!(header_seen(&seen, "x-evil"), "", "{query}");
    }
}
