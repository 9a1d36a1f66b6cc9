//! 1 to 64 services: a gateway for each number, all of one listener, requests to its services at random.

use super::proxied::{OPERATIONS, RULES, load, start_listener};
use crate::catalog::{self, Api};
use crate::figure::Figure;
use crate::lab::Lab;
use crate::origin::Origin;
use crate::turns::{Case, in_turns};
use crate::weir::{AccessLog, Gateway};

const SERVICES: [usize; 3] = [1, 8, 64];
const APPLICATIONS: usize = 10;

/// Measures all of it.
pub(super) async fn measure(lab: &Lab) -> anyhow::Result<Vec<Figure>> {
    let api = |number| Api::new(&format!("service-{number}"), RULES, APPLICATIONS);
    let apis: Vec<Api> = (0..64).map(api).collect();
    let origin = Origin::start().await?;
    let ids = |count: usize| apis[..count].iter().map(|api| api.id.clone()).collect();
    // A token for each gateway, so that it serves as many services as its token is for.
    let tokens = SERVICES.map(|count| (format!("token-{count}"), ids(count)));
    let listener = start_listener(lab, "services", &catalog::text(origin.address, &apis), &tokens).await?;
    let (mut gateways, mut cases) = (vec![], vec![]);
    for (count, (token, _)) in SERVICES.into_iter().zip(&tokens) {
        let name = format!("services-{count}");
        let mut gateway = Gateway::start(lab, &name, &listener, token, AccessLog::Off).await?;
        let served = &apis[..count];
        gateway.wait_for(&served[count - 1].host(), &served[count - 1].target(0, 0)).await?;
        let parts = vec![gateway.part(), listener.part()];
        let operations = lab.scale.operations(OPERATIONS);
        cases.push(Case::new(&format!("{count} services"), parts, load(gateway.address, served), operations));
        gateways.push(gateway);
    }
    in_turns(&mut cases, lab).await;
    let figure = |(count, case): (usize, &Case)| {
        let title = format!("Gateway with {count} service{}", if count == 1 { "" } else { "s" });
        Figure::cpu(format!("services_{count}_cpu_us"), title, case, &["gateway"])
    };
    Ok(SERVICES.into_iter().zip(&cases).map(figure).collect())
}
