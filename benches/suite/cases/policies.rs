//! What policies cost: the same gateway, services that differ in nothing else, decided within leases. And, where an older
//! build is given, what it costs to have none: that build and this one in turns.

use std::net::SocketAddr;
use std::sync::Arc;

use super::proxied::{APPLICATIONS, OPERATIONS, Proxied, RULES};
use crate::catalog::Api;
use crate::figure::Figure;
use crate::lab::Lab;
use crate::load::http::{Body, HttpLoad, IN_FLIGHT_MAX, get_with};
use crate::load::{Load, Random};
use crate::turns::{Case, in_turns};

/// Turns of each case: as many as are needed to see the spread.
const ROUNDS: usize = 10;
/// Different requests that a load chooses from.
const REQUESTS: usize = 10_000;

/// As a provider has them whose customers call from browsers and from their own servers.
const FIVE: &str = r#"policies = [
  { policy = "cors", origins = ["https://app.example.org", "https://*.customer.example"], exposed_headers = ["X-Request-Id"] },
  { policy = "ip_check", allow = ["127.0.0.0/8", "10.0.0.0/8", "192.168.0.0/16", "fd00::/8"], deny = ["127.0.1.0/24", "10.9.0.0/16"] },
  { policy = "url_rewriting", path = [{ pattern = "^/v3/(resource[0-9]+)/", replacement = "/internal/$1/" }], query = [{ name = "source", value = "gateway" }] },
  { policy = "edge_limits", limits = [{ per = "application", requests = 1_000_000_000 }] },
  { policy = "headers", request = [{ name = "X-Application", value = "{application}" }, { name = "X-Tenant", value = "mail" }], response = [{ name = "Cache-Control", value = "no-store" }, { change = "remove", name = "Server" }] },
]"#;

/// Measures all of it.
pub(super) async fn measure(lab: &Lab) -> anyhow::Result<Vec<Figure>> {
    let lab = &lab.again(lab.scale.with_rounds(ROUNDS), &lab.weir)?;
    let none = Api::leased("none", RULES, APPLICATIONS);
    let five = Api { proxy: FIVE.to_owned(), ..Api::leased("five", RULES, APPLICATIONS) };
    let weir = Proxied::start(lab, "policies", &[none.clone(), five.clone()]).await?;
    let operations = lab.scale.operations(OPERATIONS);
    let case = |name: &str, weir: &Proxied, api: &Api| {
        Case::new(name, weir.parts(), called_by_a_page(weir.gateway.address, api), operations)
    };
    let mut cases = vec![case("no policies", &weir, &none), case("five policies", &weir, &five)];
    // Each serves nothing else, as an older build could.
    let mut builds = vec![];
    if let Some(before) = &lab.before {
        for (name, weir) in [("no policies, this build", &lab.weir), ("no policies, older build", before)] {
            let lab = lab.again(lab.scale, weir)?;
            let build = Proxied::start(&lab, "build", std::slice::from_ref(&none)).await?;
            cases.push(case(name, &build, &none));
            builds.push((build, lab));
        }
    }
    in_turns(&mut cases, lab).await;
    Ok(figures(&cases))
}

/// Requests as a browser makes them, for a page of another origin.
fn called_by_a_page(address: SocketAddr, api: &Api) -> Load {
    let mut random = Random::new(19);
    let request = |_| {
        let target = api.target(random.below(api.rules), random.below(api.applications));
        get_with(&api.host(), &target, "Origin: https://app.example.org\r\n")
    };
    let requests: Vec<Vec<u8>> = (0..REQUESTS).map(request).collect();
    Load::Http(HttpLoad {
        address,
        requests: Arc::from(requests),
        connections: IN_FLIGHT_MAX,
        body: Body::Origin,
    })
}

fn figures(cases: &[Case]) -> Vec<Figure> {
    let gateway = |name: &str, title: &str, case: &Case| Figure::cpu(name, title, case, &["gateway"]);
    let none = gateway("no_policies_cpu_us", "A call to a service without policies", &cases[0]);
    let five = gateway("five_policies_cpu_us", "The same with five policies", &cases[1]).beside(&none);
    let added = Figure::less(
        "five_policies_added_us",
        "What CORS, an IP list, rewriting, an edge limit and headers add",
        &five,
        &none,
    );
    let mut figures = vec![none.clone(), five, added.at_most(3.0)];
    if let [_, _, this, older] = cases {
        let none = gateway("this_build_cpu_us", "This build, without policies", this);
        let older = gateway("older_build_cpu_us", "An older build, without policies", older);
        figures.push(Figure::less(
            "no_policies_added_us",
            "What this build takes more than the older one, without policies",
            &none,
            &older,
        ));
        figures.extend([none, older]);
    }
    figures
}
