//! `ip_check`: lets calls pass by the address that they come from.

use std::net::IpAddr;

use super::form::Form;
use super::{Kind, Place, Policy, Repeats};
use crate::network::Network;

/// Most networks of each list.
const NETWORKS_MAX: usize = 1_024;

/// Which addresses may call.
#[derive(Debug, Clone)]
pub struct IpCheck {
    allow: Vec<Network>,
    deny: Vec<Network>,
}

impl IpCheck {
    pub(super) const KIND: Kind = Kind {
        name: "ip_check",
        meaning: "Refuses calls by the address that they come from.",
        place: Place::Front,
        repeats: Repeats::Freely,
        has_conditions: true,
        read: |form| Policy::IpCheck(Self::read(form)),
    };

    fn read(form: &Form<'_>) -> Self {
        let check = Self {
            allow: form.texts(
                "allow",
                "Networks that may call, and no other; without, all but those denied.",
                "network",
                NETWORKS_MAX,
            ),
            deny: form.texts("deny", "Networks that may not, allowed or not.", "network", NETWORKS_MAX),
        };
        if !form.gives("allow") && !form.gives("deny") {
            form.wrong("", "allow and deny are both missing: it would let everybody pass");
        }
        check
    }

    /// Whether an address may call.
    pub fn permits(&self, address: IpAddr) -> bool {
        let within = |networks: &[Network]| networks.iter().any(|network| network.contains(address));
        !within(&self.deny) && (self.allow.is_empty() || within(&self.allow))
    }
}
