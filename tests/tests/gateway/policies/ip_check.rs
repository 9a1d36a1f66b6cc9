//! `ip_check`: calls pass by the address that they come from, through proxies that are trusted and no others.

use std::io::Write;
use std::net::SocketAddr;

use weir_tests::http::read_answer;

use crate::policies::{api, judge, proxy};
use crate::world::{KEY, World};

const ALLOW: &str = r#"{ policy = "ip_check", allow = ["192.0.2.0/24", "2001:db8::/32", "127.0.0.2"] }"#;
const DENY: &str = r#"{ policy = "ip_check", deny = ["192.0.2.7", "127.0.0.3", "2001:db8::7"] }"#;
const BOTH: &str = r#"{ policy = "ip_check", allow = ["192.0.2.0/24"], deny = ["192.0.2.64/26"] }"#;
const SOME: &str = r#"{ policy = "ip_check", allow = "10.0.0.0/8", when = { paths = "/admin" },
    unless = { headers = [{ name = "X-Pass", values = "yes" }] } }"#;
const SEEN: &str = r#"{ policy = "headers", request = [{ name = "X-From", value = "{client_address}" }] }"#;

const DENIED: &str = "403 address_denied";

#[tokio::test(flavor = "multi_thread")]
async fn calls_pass_by_their_address() {
    let [allow, deny, both, some, seen] = [ALLOW, DENY, BOTH, SOME, SEEN].map(proxy);
    let apis = [
        api("allow", &allow),
        api("deny", &deny),
        api("both", &both),
        api("some", &some),
        api("seen", &seen),
    ];
    let world = World::start_with(&apis, "trusted_proxies = [\"127.0.0.1\"]").await;
    through_a_proxy(&world).await;
    some_alone(&world).await;
    from_elsewhere(&world);
    who_is_seen(&world);
    world.check("GET allow.test/?user_key={key}", "403 Calls from this address are not allowed.");
    world.check("GET allow.test/", "403 Calls from this address are not allowed.");
    world.finish();
}

/// The peer is trusted: what it adds to X-Forwarded-For is believed, and not what stood there before.
async fn through_a_proxy(world: &World) {
    for (service, forwarded, passes) in [
        ("allow", "", false),
        ("allow", "192.0.2.9", true),
        ("allow", "2001:db8::9", true),
        ("allow", "2001:db9::9", false),
        ("allow", "10.0.0.1, 192.0.2.9", true),
        ("allow", "192.0.2.9, 10.0.0.1", false),
        ("allow", "192.0.2.9 ,127.0.0.1", true),
        ("allow", "192.0.2.9,127.0.0.1,127.0.0.1", true),
        ("allow", "10.0.0.1, 192.0.2.9, 127.0.0.1", true),
        ("allow", "127.0.0.1", false),
        ("allow", "127.0.0.2", true),
        // Where the chain cannot be read, nobody in front of the break is believed.
        ("allow", "garbage", false),
        ("allow", "192.0.2.9, garbage", false),
        ("allow", "192.0.2.9, 127.0.0.1, 192.0.2", false),
        ("allow", "192.0.2.9, unknown, 127.0.0.1", false),
        ("allow", "garbage, 192.0.2.9", true),
        ("allow", "10.0.0.1|X-Forwarded-For: 192.0.2.9", true),
        ("allow", "192.0.2.9|x-forwarded-for: 10.0.0.1", false),
        ("allow", "|X-Real-IP: 192.0.2.9", false),
        ("deny", "", true),
        ("deny", "192.0.2.8", true),
        ("deny", "192.0.2.7", false),
        ("deny", "::ffff:192.0.2.7", false),
        ("deny", "2001:DB8:0::7", false),
        ("deny", "192.0.2.7, 192.0.2.8", true),
        ("deny", "192.0.2.8, 192.0.2.7", false),
        ("both", "192.0.2.63", true),
        ("both", "192.0.2.64", false),
        ("both", "192.0.3.1", false),
    ] {
        let call = format!("GET /?user_key={{key}}|X-Forwarded-For: {forwarded}");
        judge(world, service, &[(&call, if passes { "200" } else { DENIED })]).await;
    }
    judge(
        world,
        "both",
        &[
            ("GET /|X-Forwarded-For: 192.0.2.64", DENIED),
            ("GET /?user_key=wrong-s3cret|X-Forwarded-For: 192.0.2.64", DENIED),
            ("GET /?user_key=wrong-s3cret|X-Forwarded-For: 192.0.2.1", "403 user_key_invalid"),
            ("GET /|X-Forwarded-For: 192.0.2.1", "401 credentials_missing"),
        ],
    )
    .await;
}

async fn some_alone(world: &World) {
    judge(
        world,
        "some",
        &[
            ("GET /?user_key={key}", "200"),
            ("GET /admin/x?user_key={key}", DENIED),
            ("GET /%61dmin?user_key={key}", DENIED),
            ("GET /admin?user_key={key}|X-Forwarded-For: 10.1.2.3", "200"),
            ("GET /admin?user_key={key}|X-Pass: yes", "200"),
            ("GET /admin?user_key={key}|X-Pass: no", DENIED),
        ],
    )
    .await;
}

/// Of a peer that is not trusted, nothing is believed.
fn from_elsewhere(world: &World) {
    let forwarded = |address: &str| format!("X-Forwarded-For: {address}\r\n");
    for (service, peer, header, status) in [
        ("allow", "127.0.0.2", String::new(), 200),
        ("allow", "127.0.0.2", forwarded("10.0.0.1"), 200),
        ("allow", "127.0.0.3", String::new(), 403),
        ("allow", "127.0.0.3", forwarded("192.0.2.9"), 403),
        ("deny", "127.0.0.3", String::new(), 403),
        ("deny", "127.0.0.3", forwarded("192.0.2.9"), 403),
        ("deny", "127.0.0.4", forwarded("192.0.2.7"), 200),
    ] {
        let request = format!(
            "GET /?user_key={KEY} HTTP/1.1\r\nHost: {service}.test\r\n{header}Connection: close\r\n\r\n"
        );
        assert_eq!(send_from(world, peer, &request), status, "{service} {peer} {header}");
    }
}

/// Sends bytes from another address of loopback.
fn send_from(world: &World, peer: &str, bytes: &str) -> u16 {
    let gateway = world.stack.gateways[0].address;
    let local = SocketAddr::new(peer.parse().unwrap(), 0);
    let connect = async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(local)?;
        socket.connect(gateway).await?.into_std()
    };
    let connected = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(connect));
    let mut stream = connected.unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    read_answer(&mut stream, false).status
}

/// The same address is the one that `headers` knows.
fn who_is_seen(world: &World) {
    for (forwarded, expected) in [
        ("", "127.0.0.1"),
        ("|X-Forwarded-For: 192.0.2.9", "192.0.2.9"),
        ("|X-Forwarded-For: 10.0.0.1, 2001:db8:0::9, 127.0.0.1", "2001:db8::9"),
        ("|X-Forwarded-For: garbage", "127.0.0.1"),
    ] {
        world.sends(&format!("GET seen.test/?user_key={{key}}{forwarded}"), "x-from", expected);
    }
}
