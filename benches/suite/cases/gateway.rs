//! The gateway beside other proxies: the same requests, the same origin, 64 connections that stay open.
//!
//! nginx as a plain proxy and a proxy of hyper's parts do nothing but pass on. nginx with `auth_request` asks a stub
//! about each request as the gateway asks its listener; the stub, another nginx, says yes and counts nothing.

use std::net::SocketAddr;

use super::proxied::{APPLICATIONS, OPERATIONS, Proxied, RULES, load};
use crate::catalog::Api;
use crate::figure::Figure;
use crate::lab::Lab;
use crate::peers::Nginx;
use crate::question::TOKEN;
use crate::serve::Kind;
use crate::turns::{Case, Part, in_turns};
use crate::weir::{AccessLog, Gateway};

/// Measures all of it.
pub(super) async fn measure(lab: &Lab) -> anyhow::Result<Vec<Figure>> {
    let both = [Api::usual(RULES, APPLICATIONS), Api::leased("leased", RULES, APPLICATIONS)];
    let (apis, leased) = both.split_at(1);
    let weir = Proxied::start(lab, "proxies", &both).await?;
    let mut logging = Gateway::start(lab, "logging-gateway", &weir.listener, TOKEN, AccessLog::On).await?;
    logging.wait_for(&apis[0].host(), &apis[0].target(0, 0)).await?;
    let (hyper, hyper_address) = lab.own(Kind::Proxy, Some(weir.origin.address)).await?;
    let nginx = Nginx::start(lab, weir.origin.address).await;
    let operations = lab.scale.operations(OPERATIONS);
    let case =
        |name: &str, parts: Vec<Part>, address| Case::new(name, parts, load(address, apis), operations);
    let nginx_case = |name: &str, work: &dyn Fn(&Nginx) -> (Vec<Part>, SocketAddr)| {
        let work = |nginx: &Nginx| {
            let (parts, address) = work(nginx);
            (parts, load(address, apis))
        };
        Case::of(name, &nginx, work, operations)
    };
    let hyper_part = Part { name: "proxy", processes: hyper.processes() };
    let mut cases = [
        nginx_case("nginx, plain proxy", &|nginx| (vec![nginx.part()], nginx.plain)),
        case("weir gateway and listener", weir.parts(), weir.gateway.address),
        Case::new("weir, leases", weir.parts(), load(weir.gateway.address, leased), operations),
        nginx_case("nginx, auth_request", &|nginx| (vec![nginx.part(), nginx.stub_part()], nginx.asking)),
        case("minimal hyper proxy", vec![hyper_part], hyper_address),
        nginx_case("nginx, plain proxy, access log", &|nginx| (vec![nginx.part()], nginx.logged)),
        case("weir, access log", vec![logging.part(), weir.listener.part()], logging.address),
    ];
    in_turns(&mut cases, lab).await;
    Ok(figures(&cases))
}

fn figures([plain, weir, leased, asking, hyper, plain_logged, weir_logged]: &[Case; 7]) -> Vec<Figure> {
    let nginx = Figure::cpu("nginx_proxy_cpu_us", "nginx, plain proxy", plain, &[]);
    let nginx_asking =
        Figure::cpu("nginx_auth_request_cpu_us", "nginx with auth_request", asking, &["nginx"]);
    let nginx_and_stub = Figure::cpu(
        "nginx_auth_request_and_stub_cpu_us",
        "nginx with auth_request, and its stub",
        asking,
        &[],
    );
    let hyper = Figure::cpu("hyper_proxy_cpu_us", "Minimal hyper proxy", hyper, &[]).beside(&nginx);
    let nginx_logged =
        Figure::cpu("nginx_proxy_logged_cpu_us", "nginx, plain proxy, access log on", plain_logged, &[]);
    let gateway = Figure::cpu("gateway_cpu_us", "Weir's gateway", weir, &["gateway"]).beside(&nginx);
    let leasing =
        Figure::cpu("lease_gateway_cpu_us", "Weir's gateway, deciding within leases", leased, &["gateway"])
            .beside(&nginx);
    let leasing_against_nginx = Figure::times(
        "lease_gateway_cpu_vs_nginx",
        "Weir's gateway within leases against nginx as a plain proxy",
        &leasing,
        &nginx,
    );
    let leasing_both = Figure::cpu(
        "lease_gateway_and_listener_cpu_us",
        "Weir's gateway and listener, within leases",
        leased,
        &[],
    );
    let both = Figure::cpu("gateway_and_listener_cpu_us", "Weir's gateway and listener", weir, &[])
        .beside(&nginx_and_stub);
    let gateway_logged =
        Figure::cpu("gateway_logged_cpu_us", "Weir's gateway, access log on", weir_logged, &["gateway"])
            .beside(&nginx_logged);
    let against_nginx = Figure::times(
        "gateway_cpu_vs_nginx",
        "Weir's gateway against nginx as a plain proxy",
        &gateway,
        &nginx,
    );
    let against_asking = Figure::times(
        "gateway_and_listener_cpu_vs_nginx_auth_request",
        "Gateway and listener against nginx with auth_request and its stub",
        &both,
        &nginx_and_stub,
    );
    vec![
        nginx,
        hyper,
        gateway,
        against_nginx.at_most(1.35),
        leasing,
        leasing_against_nginx.at_most(1.1),
        leasing_both,
        nginx_asking,
        nginx_and_stub,
        both,
        against_asking.at_most(1.0),
        nginx_logged,
        gateway_logged,
    ]
}
