//! Clients of 3scale's Service Management API that nobody here wrote, against a live listener.
//!
//! Goal: whoever uses one of them notices no difference but the address. Method: one catalog with a service of each kind
//! of credentials; what the clients make of the answers is compared, not the answers' bytes (those are the conformance
//! suite's).

mod npm;
mod threescalers;

/// Opens all services of [`CATALOG`].
const PROVIDER_KEY: &str = "clients-provider-key";

/// A plan's name has a character that XML escapes. Windows are long: none ends during a test.
const CATALOG: &str = r#"
revision = 1
[[providers]]
name = "Clients"
provider_keys = ["clients-provider-key"]

[[providers.services]]
id = "plain"
credentials = "user_key"
service_tokens = ["token-of-plain"]
metrics = [{ name = "hits" }, { name = "search", parent = "hits" }, { name = "mail" }]
applications = [
  { id = "reader", plan = "small", user_key = "key-of-reader" },
  { id = "writer", plan = "small", user_key = "key-of-writer" },
  { id = "away", plan = "small", user_key = "key-of-away", state = "suspended" },
]
[[providers.services.plans]]
id = "small"
name = "Small & cheap"
limits = [
  { metric = "hits", period = "year", max = 50 },
  { metric = "hits", period = "month", max = 5 },
  { metric = "search", period = "year", max = 40 },
]

[[providers.services]]
id = "keyed"
credentials = "app_id_and_key"
service_tokens = ["token-of-keyed"]
metrics = [{ name = "hits" }, { name = "search", parent = "hits" }]
plans = [{ id = "free", name = "Free", limits = [{ metric = "hits", period = "year", max = 9 }] }]
applications = [{ id = "shop", plan = "free", app_keys = ["key-of-shop"] }]

[[providers.services]]
id = "tokens"
credentials = "client_id"
service_tokens = ["token-of-tokens"]
metrics = [{ name = "hits" }]
plans = [{ id = "open", name = "Open" }]
applications = [{ id = "phone", plan = "open", redirect_url = "https://phone.example/back" }]
"#;
