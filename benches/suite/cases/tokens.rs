//! Access tokens as credentials, beside user keys: the same gateway, services that differ in nothing else, decided within
//! leases. And tokens that are forged, each of them another one: what they cost beside a call without credentials, and
//! whether they leave anything behind.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;

use super::proxied::{APPLICATIONS, OPERATIONS, Proxied, RULES, load};
use crate::catalog::Api;
use crate::figure::Figure;
use crate::issuer::Issuer;
use crate::lab::Lab;
use crate::load::http::{Body, HttpLoad, IN_FLIGHT_MAX, get, get_with};
use crate::load::{Load, Random};
use crate::turns::{Case, count, in_turns};

/// Different forged tokens: more than a gateway remembers good ones.
const FORGED: usize = 20_000;
/// A refusal by a signature takes several times as long as a call that passes.
const FORGED_SHARE: u64 = 4;

/// Measures all of it.
pub(super) async fn measure(lab: &Lab) -> anyhow::Result<Vec<Figure>> {
    let issuer = Issuer::start().await?;
    let keys = Api::leased("keys", RULES, APPLICATIONS);
    let tokens = Api { issuer: Some(issuer.url.clone()), ..Api::leased("tokens", RULES, APPLICATIONS) };
    let weir = Proxied::start(lab, "tokens", &[keys.clone(), tokens.clone()]).await?;
    let good = (0..APPLICATIONS).map(|number| issuer.token(&format!("app-{number}"), false));
    let good = good.collect::<anyhow::Result<Vec<_>>>()?;
    let forged = (0..FORGED).map(|number| issuer.token(&format!("app-{number}"), true));
    let forged = forged.collect::<anyhow::Result<Vec<_>>>()?;
    let address = weir.gateway.address;
    let operations = lab.scale.operations(OPERATIONS);
    let case = |name: &str, load: Load, operations| Case::new(name, weir.parts(), load, operations);
    let mut cases = [
        case("user keys", load(address, std::slice::from_ref(&keys)), operations),
        case("tokens", shown(address, &tokens, &good, Body::Origin), operations),
        case("no token", without(address, &tokens), operations),
        case(
            "forged tokens",
            shown(address, &tokens, &forged, Body::Refused(403)),
            operations / FORGED_SHARE,
        ),
    ];
    in_turns(&mut cases, lab).await;
    let before = weir.gateway.memory_bytes().context("memory")?;
    let forging = shown(address, &tokens, &forged, Body::Refused(403));
    let mut again = [case("forged tokens, again", forging, operations / FORGED_SHARE)];
    in_turns(&mut again, lab).await;
    let grown = count(weir.gateway.memory_bytes()?.saturating_sub(before)) / 1024.0;
    let verification: Vec<f64> =
        (0..lab.scale.rounds).map(|_| issuer.verification_us(&forged[..2_000])).collect();
    Ok(figures(&cases, verification, grown))
}

/// Requests with one of these tokens each.
fn shown(address: SocketAddr, api: &Api, tokens: &[String], body: Body) -> Load {
    let mut random = Random::new(13);
    let request = |token: &String| {
        get_with(&api.host(), &bare_target(api, &mut random), &format!("Authorization: Bearer {token}\r\n"))
    };
    let requests: Vec<Vec<u8>> = tokens.iter().map(request).collect();
    Load::Http(HttpLoad { address, requests: Arc::from(requests), connections: IN_FLIGHT_MAX, body })
}

fn without(address: SocketAddr, api: &Api) -> Load {
    let mut random = Random::new(17);
    let requests: Vec<Vec<u8>> =
        (0..1_000).map(|_| get(&api.host(), &bare_target(api, &mut random))).collect();
    let body = Body::Refused(401);
    Load::Http(HttpLoad { address, requests: Arc::from(requests), connections: IN_FLIGHT_MAX, body })
}

fn bare_target(api: &Api, random: &mut Random) -> String {
    let target = api.target(random.below(api.rules), 0);
    target.split('?').next().unwrap_or_default().to_owned()
}

fn figures([keys, tokens, without, forged]: &[Case; 4], verification: Vec<f64>, grown: f64) -> Vec<Figure> {
    let gateway = |name: &str, title: &str, case: &Case| Figure::cpu(name, title, case, &["gateway"]);
    let keys = gateway("keyed_cpu_us", "A call with a user key", keys);
    let tokens = gateway("token_cpu_us", "A call with a token that is remembered", tokens).beside(&keys);
    let without = gateway("tokenless_cpu_us", "A call without a token: 401", without);
    let forged = gateway("forged_token_cpu_us", "A call with a forged token: 403", forged).beside(&without);
    let verification =
        Figure::new("token_verification_us", "Floor: verifying such a token", "µs", Ok(verification));
    let added =
        Figure::less("token_added_us", "What a remembered token adds to a keyed call", &tokens, &keys);
    let forging = Figure::less("forged_token_added_us", "What a forged token costs", &forged, &without)
        .beside(&verification);
    let memory = Figure::new(
        "forged_tokens_memory_kib",
        "Memory that a further round of forged tokens takes",
        "KiB",
        Ok(vec![grown]),
    );
    vec![keys, tokens, added.at_most(1.0), without, forged, verification, forging, memory.at_most(1_024.0)]
}
