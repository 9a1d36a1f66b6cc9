//! What gateways with leases are to hear at once, and who waits in this process to pass it on.

use std::fmt;
use std::str::FromStr;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use weir_core::{ApplicationRef, ServiceId};

/// Most recalls that wait for a hearer; further ones are lost to it.
pub(crate) const WAITING_MAX: usize = 1_024;

/// Most applications that a publication names; where more have changed, their services are named.
const NAMED_MAX: usize = 256;

/// Why gateways have to look at their leases of an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recall {
    /// What they hold and do not spend is needed elsewhere.
    Needed(ApplicationRef),
    /// Its records are others than before.
    Changed(ApplicationRef),
    /// Those of a service are: of all its applications.
    ServiceChanged(ServiceId),
}

impl Recall {
    /// Whose gateways are to hear of it.
    pub fn service(&self) -> &ServiceId {
        match self {
            Self::Needed(application) | Self::Changed(application) => &application.service,
            Self::ServiceChanged(service) => service,
        }
    }

    /// Names what a publication has changed.
    pub(crate) fn of_changes(
        services: impl IntoIterator<Item = ServiceId>,
        applications: Vec<ApplicationRef>,
    ) -> Vec<Self> {
        let mut services: Vec<ServiceId> = services.into_iter().collect();
        let mut named = vec![];
        if applications.len() > NAMED_MAX {
            services.extend(applications.into_iter().map(|application| application.service));
            services.sort();
            services.dedup();
        } else {
            named = applications;
        }
        services.into_iter().map(Self::ServiceChanged).chain(named.into_iter().map(Self::Changed)).collect()
    }
}

/// `needed service/application`, `changed service/application` or `changed service`.
impl fmt::Display for Recall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Needed(application) => write!(f, "needed {application}"),
            Self::Changed(application) => write!(f, "changed {application}"),
            Self::ServiceChanged(service) => write!(f, "changed {service}"),
        }
    }
}

impl FromStr for Recall {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (why, name) = text.split_once(' ').ok_or(())?;
        match (why, name.contains('/')) {
            ("needed", true) => name.parse().map(Self::Needed).map_err(|_| ()),
            ("changed", true) => name.parse().map(Self::Changed).map_err(|_| ()),
            ("changed", false) => name.parse().map(Self::ServiceChanged).map_err(|_| ()),
            _ => Err(()),
        }
    }
}

/// The hearers of a store in this process.
#[derive(Default)]
pub(crate) struct Hearers(Mutex<Vec<mpsc::Sender<Recall>>>);

impl Hearers {
    pub(crate) fn join(&self) -> mpsc::Receiver<Recall> {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let mut hearers = self.0.lock();
        hearers.retain(|hearer| !hearer.is_closed());
        hearers.push(sender);
        receiver
    }

    pub(crate) fn tell(&self, recall: &Recall) {
        for hearer in &*self.0.lock() {
            // What is lost is made good by the end of the lease.
            let _ = hearer.try_send(recall.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recalls_are_read_as_written() {
        for text in ["needed api/app", "changed api/app", "changed api"] {
            assert_eq!(text.parse().map(|recall: Recall| recall.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "needed", "needed api", "api/app", "changed ", "changed a/b/c d"] {
            assert_eq!(Recall::from_str(text), Err(()), "{text}");
        }
    }

    #[test]
    fn many_changed_applications_are_named_by_their_services() {
        let application = |at: usize| format!("api-{}/app-{at}", at % 2).parse().unwrap();
        let told = |count| {
            let recalls = Recall::of_changes(["own".parse().unwrap()], (0..count).map(application).collect());
            recalls.iter().map(Recall::to_string).collect::<Vec<_>>()
        };
        assert_eq!(told(2), ["changed own", "changed api-0/app-0", "changed api-1/app-1"]);
        assert_eq!(told(NAMED_MAX + 1), ["changed api-0", "changed api-1", "changed own"]);
    }
}
