//! What 3scale's API asks of those who call it, before load goes there: a service, and a key or token that opens it.
//!
//! A provider's key that is given opens all services. Else each has what its mix or catalog says; a catalog may hold
//! hashes alone, and those open nothing.

use std::collections::BTreeSet;
use std::ffi::OsString;

use weir_load::{Group, Proof};

use super::Arguments;
use super::prepare::{Problems, check_services, secret};
use super::target::Scheme;

/// Gives each group its proof, and tells what is in the way.
pub(super) fn prove(
    arguments: &Arguments,
    variable: Option<OsString>,
    scheme: Scheme,
    groups: &mut [Group],
    problems: &mut Problems,
) {
    if scheme.is_decisions() {
        problems.add("--api", "3scale's API is on a listener's HTTP port: give http:// or https:// targets");
    }
    let key =
        secret(&arguments.how.provider_key_file, "--provider-key-file", variable, "WEIR_LOAD_PROVIDER_KEY");
    // A key that cannot be read is told of; that services lack one need not be told as well.
    let Some(key) = problems.one(key) else { return };
    check_services(groups, problems);
    if let Some(key) = key {
        groups.iter_mut().for_each(|group| group.proof = Some(Proof::ProviderKey(key.clone())));
    }
    let closed = groups.iter().filter(|group| group.proof.is_none());
    let closed: BTreeSet<&str> = closed.filter_map(|group| Some(group.service.as_ref()?.as_str())).collect();
    for service in closed {
        let message = format!(
            "nothing opens service {service}: give --provider-key-file, a service_token in the mix, or a catalog with \
             its token or its provider's key in the clear"
        );
        problems.add("--api", &message);
    }
}
