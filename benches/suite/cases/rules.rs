//! 10 to 10,000 mapping rules: one gateway that serves a service of each size, a random rule hit by each request.

use super::proxied::{APPLICATIONS, Proxied};
use crate::catalog::Api;
use crate::figure::{Figure, thousands};
use crate::lab::Lab;
use crate::turns::{Case, in_turns};

const RULES: [usize; 4] = [10, 100, 1_000, 10_000];

/// Measures all of it.
pub(super) async fn measure(lab: &Lab) -> anyhow::Result<Vec<Figure>> {
    let api = |rules: usize| Api::new(&format!("rules-{rules}"), rules, APPLICATIONS);
    let apis = RULES.map(api);
    let weir = Proxied::start(lab, "rules", &apis).await?;
    let case = |api: &Api| weir.case(lab, &format!("{} rules", api.rules), std::slice::from_ref(api));
    let mut cases: Vec<Case> = apis.iter().map(case).collect();
    in_turns(&mut cases, lab).await;
    let costs: [Figure; 4] = std::array::from_fn(|at| {
        let (name, title) = (
            format!("rules_{}_cpu_us", RULES[at]),
            format!("Gateway with {} rules", thousands(&RULES[at].to_string())),
        );
        Figure::cpu(name, title, &cases[at], &["gateway"])
    });
    let times = Figure::times("rules_10000_vs_10", "10,000 rules against 10", &costs[3], &costs[0]);
    let mut figures = costs.to_vec();
    figures.push(times.at_most(2.0));
    Ok(figures)
}
