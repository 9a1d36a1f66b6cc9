//! Decisions by 3scale's HTTP API: authrep under four limits, without a body and with the document, embedded and with
//! Redis on the same core.
//!
//! The floor is a server of hyper's parts that answers each request with nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use super::listener::{OverRedis, listener};
use crate::catalog::Api;
use crate::figure::Figure;
use crate::lab::Lab;
use crate::load::http::{Body, HttpLoad, IN_FLIGHT_MAX, get_with};
use crate::load::{Load, Random};
use crate::question::{SERVICE, USED, user_key};
use crate::serve::Kind;
use crate::turns::{Case, Part, in_turns};
use crate::weir::Store;

const APPLICATIONS: usize = 1_000;
const OPERATIONS: u64 = 40_000;
/// Different requests that a load chooses from.
const REQUESTS: usize = 10_000;
/// What gateways send that want no document.
const NO_BODY: &str = "3scale-Options: rejection_reason_header=1&no_body=1\r\n";

/// Measures all of it.
pub(super) async fn measure(lab: &Lab) -> anyhow::Result<Vec<Figure>> {
    let (floor, floor_address) = lab.own(Kind::Answer, None).await?;
    let floor = vec![Part { name: "floor", processes: floor.processes() }];
    let api = Api::with_token(SERVICE, APPLICATIONS);
    let embedded = listener(lab, "api-embedded", &Store::Embedded, &api).await?;
    let over_redis = OverRedis::start(lab, "api", &api).await;
    let memory = vec![embedded.part()];
    let operations = lab.scale.operations(OPERATIONS);
    let redis_case = |name: &str, options: &'static str, body: Body| {
        let work = |over: &OverRedis| (over.parts(), load(over.listener.http, &api, options, body));
        Case::of(name, &over_redis, work, operations)
    };
    let mut cases = [
        Case::new("floor: hyper", floor, load(floor_address, &api, NO_BODY, Body::None), operations),
        Case::new("no_body", memory.clone(), load(embedded.http, &api, NO_BODY, Body::None), operations),
        Case::new("document", memory, load(embedded.http, &api, "", Body::Some), operations),
        redis_case("Redis, no_body", NO_BODY, Body::None),
        redis_case("Redis, document", "", Body::Some),
    ];
    in_turns(&mut cases, lab).await;
    let [floor, no_body, document, redis, redis_document] = &cases;
    let floor = Figure::cpu("http_answer_floor_cpu_us", "Floor: hyper answers with nothing", floor, &[]);
    let figure = |name: &str, title: &str, case: &Case, most: f64| {
        Figure::cpu(name, title, case, &[]).at_most(most).beside(&floor)
    };
    let listener_part =
        Figure::cpu("http_authrep_redis_listener_cpu_us", "of it the listener", redis, &["listener"]);
    Ok(vec![
        figure("http_authrep_embedded_cpu_us", "Embedded store, no body", no_body, 14.0),
        figure("http_authrep_embedded_xml_cpu_us", "Embedded store, with the document", document, 28.0),
        figure("http_authrep_redis_cpu_us", "Listener and Redis, no body", redis, 30.0),
        listener_part,
        figure(
            "http_authrep_redis_xml_cpu_us",
            "Listener and Redis, with the document",
            redis_document,
            60.0,
        ),
        floor,
    ])
}

fn load(address: SocketAddr, api: &Api, options: &str, body: Body) -> Load {
    let token = api.token.as_deref().unwrap_or_default();
    let mut random = Random::new(1);
    let request = |_| {
        let key = user_key(random.below(api.applications));
        let usage = USED.map(|metric| format!("&usage%5B{metric}%5D=1")).concat();
        let target = format!(
            "/transactions/authrep.xml?service_token={token}&service_id={}&user_key={key}{usage}",
            api.id
        );
        get_with("listener", &target, options)
    };
    let requests: Vec<Vec<u8>> = (0..REQUESTS).map(request).collect();
    Load::Http(HttpLoad { address, requests: Arc::from(requests), connections: IN_FLIGHT_MAX, body })
}
