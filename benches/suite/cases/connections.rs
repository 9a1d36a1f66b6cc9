//! 1 to 10,000 client connections, at most 64 requests at a time: what a connection costs that is merely open.

use super::proxied::{APPLICATIONS, Proxied, RULES};
use crate::catalog::Api;
use crate::figure::{Figure, thousands};
use crate::lab::Lab;
use crate::turns::{Case, in_turns};

const CONNECTIONS: [usize; 4] = [1, 64, 1_000, 10_000];
/// Files that a process has open beside its clients' connections.
const OTHER_FILES: u64 = 500;

/// Measures all of it.
pub(super) async fn measure(lab: &Lab) -> anyhow::Result<Vec<Figure>> {
    let apis = [Api::usual(RULES, APPLICATIONS)];
    let weir = Proxied::start(lab, "connections", &apis).await?;
    let most = usize::try_from(lab.open_files.saturating_sub(OTHER_FILES))?;
    let sizes: Vec<usize> = CONNECTIONS.into_iter().filter(|count| *count <= most).collect();
    if sizes.len() < CONNECTIONS.len() {
        eprintln!("  only {} files may be open: larger numbers of connections are left out", lab.open_files);
    }
    let case = |count: usize| weir.case_over(lab, &format!("{count} connections"), &apis, count);
    let mut cases: Vec<Case> = sizes.iter().copied().map(case).collect();
    in_turns(&mut cases, lab).await;
    let figure = |(count, case): (&usize, &Case)| {
        let number = thousands(&count.to_string());
        let title = format!("Gateway with {number} connection{}", if *count == 1 { "" } else { "s" });
        Figure::cpu(format!("connections_{count}_cpu_us"), title, case, &["gateway"])
    };
    Ok(sizes.iter().zip(&cases).map(figure).collect())
}
