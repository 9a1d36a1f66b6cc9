//! The rules of API management, pure: what is counted, what is allowed, what is refused.
//!
//! The listener asks it to authenticate and to turn usage into counter increments, the gateway to match
//! mapping rules, the store to judge increments against limits. Everything a rule needs is an argument,
//! the time included, so the same question always has the same answer.
//!
//! It does no I/O, reads no clock and no environment, and logs nothing.

pub mod alert;
pub mod application;
pub mod arguments;
pub mod authenticate;
pub mod backend;
pub mod catalog;
pub mod counter;
pub mod credentials;
pub mod decide;
pub mod denial;
pub mod extract;
pub mod id;
pub mod key_hash;
pub mod lease;
pub mod limit;
pub mod mapping_rule;
pub mod metric;
pub mod network;
pub mod oidc;
pub mod path;
pub mod period;
pub mod plan;
pub mod policy;
pub mod proof;
pub mod provider;
pub mod proxy;
pub mod ratelimit;
pub mod referrer;
pub mod refusal;
pub mod request_id;
pub mod response_code;
pub mod route;
pub mod secret;
pub mod service;
pub mod status_set;
pub mod target;
pub mod usage;

pub use alert::AlertBins;
pub use application::{Application, ApplicationState};
pub use backend::{Backend, ProductRules};
pub use catalog::Catalog;
pub use counter::{COUNT_MAX, Increment, increments};
pub use credentials::{CredentialKind, Credentials, Parameters, Presented};
pub use decide::{Decision, LimitStatus};
pub use denial::Denial;
pub use id::{ApplicationId, ApplicationRef, MetricName, PlanId, ServiceId};
pub use key_hash::{KeyHash, KeyHasher};
pub use limit::UsageLimit;
pub use mapping_rule::{HttpMethod, MappingRule, MappingRules};
pub use metric::{MetricIndex, MetricTree};
pub use oidc::Oidc;
pub use period::{Period, Timestamp, Window};
pub use plan::Plan;
pub use proof::Proof;
pub use provider::Provider;
pub use proxy::{Environment, Proxy};
pub use request_id::{RequestId, RequestIds};
pub use response_code::ResponseCode;
pub use secret::Secret;
pub use service::{Service, ServiceState};
pub use status_set::StatusSet;
pub use usage::{Usage, UsageValue};
