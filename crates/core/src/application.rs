//! An account's subscription to a service under one plan; it holds the credentials.
//!
//! The data plane knows no account: an application, its state, its plan and keyed hashes of its keys are
//! all that a decision needs.

use crate::id::{ApplicationRef, PlanId};
use crate::key_hash::KeyHash;
use crate::period::Timestamp;

/// Most `app_key`s of one application at a time: enough to rotate, few enough to check each.
pub const APP_KEYS_MAX: usize = 5;
/// Most referrer filters of one application.
pub const REFERRER_FILTERS_MAX: usize = 25;

/// Longest redirect URL of an application.
pub const REDIRECT_URL_BYTES_MAX: usize = 2_048;

/// Whether an application may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ApplicationState {
    /// It may.
    #[default]
    Active,
    /// Waiting for approval.
    Pending,
    /// Taken out of service by the provider.
    Suspended,
}

/// One `app_key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppKey {
    /// Keyed hash of the key.
    pub hash: KeyHash,
    /// The key opens the door before this instant only; `None` = no end.
    pub until: Option<Timestamp>,
}

/// An application as the data plane knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// Service and `app_id`.
    pub reference: ApplicationRef,
    /// Only an active one is admitted.
    pub state: ApplicationState,
    /// The plan it lives under.
    pub plan: PlanId,
    /// Hash of its `user_key`, for services with that credential mode.
    pub user_key: Option<KeyHash>,
    /// Its `app_key`s, at most [`APP_KEYS_MAX`]; with none, no key is asked for.
    pub app_keys: Vec<AppKey>,
    /// At most [`REFERRER_FILTERS_MAX`]; see [`crate::referrer`].
    pub referrer_filters: Vec<String>,
    /// Where its users may be sent back to, at most [`REDIRECT_URL_BYTES_MAX`] long; for 3scale's OAuth calls.
    pub redirect_url: Option<String>,
}
