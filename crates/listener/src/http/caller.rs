//! Who calls 3scale's API, and about which service: a provider by its key, or whoever has a token of the service.
//!
//! Reference: Service Management API, sections 1.3 (rows 5 to 7 and 10) and 1.4. What memory says is a hint: a refusal
//! is given only after the store was asked again, and what is found is judged once more by the very records that the
//! decision is made by.

use std::sync::Arc;

use futures_util::FutureExt;
use http::StatusCode;
use weir_core::{KeyHasher, Proof, Secret, Service, ServiceId};

use super::reply::Refusal;
use crate::records::Versioned;
use crate::server::Shared;
use crate::status::Failure;

/// How a caller proves itself, and what it says about the service.
pub(super) struct Caller<'a> {
    proof: Proof,
    service_id: Option<&'a str>,
}

/// The service that a call is about.
pub(super) struct Called {
    pub(super) service: Arc<Versioned<Service>>,
    /// To be judged with the decision.
    pub(super) proof: Proof,
}

impl<'a> Caller<'a> {
    /// From the parameters; the key wins over the token.
    ///
    /// # Errors
    /// When neither is there, or a token without its service.
    pub(super) fn read(
        hasher: &KeyHasher,
        provider_key: Option<&str>,
        service_token: Option<&str>,
        service_id: Option<&'a str>,
    ) -> Result<Self, Refusal> {
        let hashes = |text| hasher.hashes(&Secret::new(text)).collect();
        let proof = match (provider_key, service_token, service_id) {
            (Some(key), _, Some(_)) => Proof::ProviderKey(hashes(key)),
            (Some(key), _, None) => Proof::DefaultOf(hashes(key)),
            (None, Some(token), Some(_)) => Proof::ServiceToken(hashes(token)),
            (None, Some(_), None) => {
                let text = "a service_token needs a service_id";
                return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "service_id_missing", text));
            }
            (None, None, _) => {
                let text = "a provider_key, or a service_token with a service_id, is needed";
                return Err(Refusal::forbidden("provider_key_or_service_token_required", text));
            }
        };
        Ok(Self { proof, service_id })
    }

    /// Whether it shows a token: then it is judged before what else a call says.
    pub(super) fn shows_token(&self) -> bool {
        matches!(self.proof, Proof::ServiceToken(_))
    }

    /// The service that it may ask about, as memory has it.
    ///
    /// # Errors
    /// When the store does not answer in time.
    pub(super) async fn find(&self, shared: &Shared) -> Result<Result<Called, Refusal>, Failure> {
        shared.engine.within_deadline(self.find_known(shared)).await
    }

    /// The same where what memory says is too old.
    ///
    /// # Errors
    /// When the store does not answer in time.
    pub(super) async fn find_anew(&self, shared: &Shared) -> Result<Result<Called, Refusal>, Failure> {
        shared.engine.within_deadline(self.look_again(shared).boxed()).await
    }

    async fn find_known(&self, shared: &Shared) -> Result<Result<Called, Refusal>, Failure> {
        match self.service(shared).await?.and_then(|service| self.open(service)) {
            Some(called) => Ok(Ok(called)),
            // Nobody is refused for what was so a moment ago.
            None => self.look_again(shared).boxed().await,
        }
    }

    async fn look_again(&self, shared: &Shared) -> Result<Result<Called, Refusal>, Failure> {
        shared.engine.check_catalog().await?;
        if let Some(service) = self.service(shared).await? {
            shared.engine.records.renew_service(&service.value.id, service.version).await?;
        }
        let found = self.service(shared).await?;
        let is_found = found.is_some();
        Ok(match found.and_then(|service| self.open(service)) {
            Some(called) => Ok(called),
            None => Err(self.refusal(shared, is_found)),
        })
    }

    fn open(&self, service: Arc<Versioned<Service>>) -> Option<Called> {
        let opens = self.proof.check(&service.value).is_ok();
        opens.then(|| Called { service, proof: self.proof.clone() })
    }

    fn refusal(&self, shared: &Shared, service_is_found: bool) -> Refusal {
        let (code, text) = if self.shows_token() {
            ("service_token_invalid", "the service_token or the service_id is not valid")
        } else if service_is_found && !self.is_known(shared) {
            ("provider_key_invalid", "the provider_key is not valid")
        } else if self.service_id.is_none() {
            let text = "the provider_key is not valid, or its provider has no service";
            ("provider_key_invalid_or_service_missing", text)
        } else {
            ("service_id_invalid", "there is no service with this service_id")
        };
        Refusal::forbidden(code, text)
    }

    async fn service(&self, shared: &Shared) -> Result<Option<Arc<Versioned<Service>>>, Failure> {
        for id in self.service_ids(shared) {
            if let Some(service) = shared.engine.records.service(&id).await? {
                return Ok(Some(service));
            }
        }
        Ok(None)
    }

    /// The ids that may be meant, the likeliest first: ids of old had something in front (`x-<id>`).
    fn service_ids(&self, shared: &Shared) -> Vec<ServiceId> {
        let Some(named) = self.service_id else { return self.default_service(shared).into_iter().collect() };
        let behind_dash = named.rsplit_once('-').map(|(_, id)| id).filter(|_| !self.shows_token());
        std::iter::once(named).chain(behind_dash).filter_map(|id| id.parse().ok()).collect()
    }

    /// Whether the key is a provider's.
    fn is_known(&self, shared: &Shared) -> bool {
        self.default_service(shared).is_some()
    }

    /// The default service of the provider that has the key.
    fn default_service(&self, shared: &Shared) -> Option<ServiceId> {
        let (Proof::ProviderKey(hashes) | Proof::DefaultOf(hashes)) = &self.proof else { return None };
        let seen = shared.catalog.seen.borrow();
        let defaults = &seen.snapshot.as_ref()?.default_services;
        hashes.iter().find_map(|hash| defaults.get(hash)).cloned()
    }
}
