//! An issuer's keys, kept fresh by a task of its own: one that fails or hangs keeps nobody but its own callers waiting.
//!
//! Keys are fetched when the first service asks for them, then every so often, and when a token names a key that is not
//! known, which is bounded by a pause. While fetching fails the last good ones stay, for as long as is configured.

use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use hashbrown::HashMap;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};
use weir_core::oidc::{SigningAlgorithm, is_same_issuer};

use super::fetch::{FetchError, fetch};
use super::keys::Keys;
use crate::meters;
use crate::upstream::Connector;
use weir_core::network::Network;

/// Longest pause between two attempts while fetching fails; the first are a second apart.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);
/// How long a call may wait for keys.
const PATIENCE: Duration = Duration::from_secs(2);

/// How issuers are asked for their keys.
#[derive(Debug, Clone)]
pub struct OidcConfig {
    /// How often their keys are fetched again. Default 300,000 ms.
    pub refresh_interval_ms: u64,
    /// Shortest pause between two fetches that tokens of unknown keys cause. Default 10,000 ms.
    pub renewal_pause_ms: u64,
    /// How long the last good keys of an issuer are used while they cannot be fetched. Default a day.
    pub keys_kept_ms: u64,
    /// Private networks that issuers may be in. Default none: only public addresses are asked.
    pub private_networks: Vec<Network>,
}

impl Default for OidcConfig {
    fn default() -> Self {
        Self {
            refresh_interval_ms: 300_000,
            renewal_pause_ms: 10_000,
            keys_kept_ms: 86_400_000,
            private_networks: vec![],
        }
    }
}

/// All issuers that services name, each once.
pub(crate) struct Issuers {
    connector: Arc<Connector>,
    config: OidcConfig,
    by_url: Mutex<HashMap<String, Weak<Issuer>>>,
}

impl Issuers {
    pub(crate) fn new(connector: Arc<Connector>, config: OidcConfig) -> Self {
        Self { connector, config, by_url: Mutex::default() }
    }

    /// The issuer at a URL; its keys are fetched from now on, for as long as somebody holds it. Needs a runtime.
    pub(super) fn of(&self, url: &str) -> Arc<Issuer> {
        let mut by_url = self.by_url.lock();
        by_url.retain(|_, issuer| issuer.strong_count() > 0);
        if let Some(known) = by_url.get(url).and_then(Weak::upgrade) {
            return known;
        }
        let issuer = Arc::new(Issuer::new(Duration::from_millis(self.config.renewal_pause_ms)));
        by_url.insert(url.to_owned(), Arc::downgrade(&issuer));
        let refresher = Refresher {
            url: url.to_owned(),
            connector: Arc::clone(&self.connector),
            config: self.config.clone(),
            issuer: Arc::downgrade(&issuer),
            wanted: Arc::clone(&issuer.wanted),
        };
        tokio::spawn(refresher.run());
        issuer
    }
}

/// What is known of an issuer.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) keys: Keys,
    /// Those that its configuration names and that are served.
    pub(super) algorithms: Vec<SigningAlgorithm>,
    /// Counts up with every change.
    pub(super) generation: u64,
}

/// An issuer.
pub(super) struct Issuer {
    known: ArcSwapOption<Known>,
    /// Somebody shows a key that is not known.
    wanted: Arc<Notify>,
    /// Counts attempts to fetch.
    attempts: watch::Sender<Attempts>,
    /// Shortest pause between two fetches that tokens cause.
    renewal_pause: Duration,
}

#[derive(Debug, Clone, Copy, Default)]
struct Attempts {
    count: u64,
    last: Option<Instant>,
}

impl Issuer {
    fn new(renewal_pause: Duration) -> Self {
        let attempts = watch::Sender::new(Attempts::default());
        Self { known: ArcSwapOption::empty(), wanted: Arc::default(), attempts, renewal_pause }
    }

    /// Of the keys that are known; 0: none are.
    pub(super) fn generation(&self) -> u64 {
        self.known.load().as_ref().map_or(0, |known| known.generation)
    }

    /// What is known; a call waits a little for the first answer. `None`: nothing is.
    pub(super) async fn known(&self) -> Option<Arc<Known>> {
        if let Some(known) = self.known.load_full() {
            return Some(known);
        }
        let mut attempts = self.attempts.subscribe();
        // Dropped, the refresher would have ended: then nothing comes either.
        let _ = timeout(PATIENCE, attempts.wait_for(|attempts| attempts.count > 0)).await;
        self.known.load_full()
    }

    /// Something newer than a generation; `None`: there is nothing, or it has been looked for a moment ago.
    pub(super) async fn renewed(&self, generation: u64) -> Option<Arc<Known>> {
        let newer = || self.known.load_full().filter(|known| known.generation > generation);
        let mut attempts = self.attempts.subscribe();
        let before = *attempts.borrow_and_update();
        let is_due = before.last.is_none_or(|last| last.elapsed() >= self.renewal_pause);
        if let (None, true) = (newer(), is_due) {
            self.wanted.notify_one();
            let _ = timeout(PATIENCE, attempts.wait_for(|attempts| attempts.count > before.count)).await;
        }
        newer()
    }
}

/// Fetches an issuer's keys until nobody needs them.
struct Refresher {
    url: String,
    connector: Arc<Connector>,
    config: OidcConfig,
    issuer: Weak<Issuer>,
    wanted: Arc<Notify>,
}

/// What discovery finds (OpenID Connect Discovery 1.0, section 3).
#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    jwks_uri: String,
    #[serde(default)]
    id_token_signing_alg_values_supported: Vec<String>,
}

impl Refresher {
    async fn run(self) {
        let refresh = Duration::from_millis(self.config.refresh_interval_ms);
        let (mut last_good, mut failures, mut generation) = (None, 0_u32, 0);
        loop {
            let begun = Instant::now();
            let fetched = self.fetch().await;
            let Some(issuer) = self.issuer.upgrade() else { return };
            let pause = match fetched {
                Ok((keys, algorithms)) => {
                    let is_new = !issuer
                        .known
                        .load()
                        .as_ref()
                        .is_some_and(|k| k.keys == keys && k.algorithms == algorithms);
                    if is_new {
                        generation += 1;
                        info!(issuer = self.url, "the issuer's keys are in force");
                        issuer.known.store(Some(Arc::new(Known { keys, algorithms, generation })));
                    }
                    (last_good, failures) = (Some(begun), 0);
                    meters::issuer_asked("good");
                    refresh
                }
                Err(error) => {
                    let kept = Duration::from_millis(self.config.keys_kept_ms);
                    let is_over = last_good.is_some_and(|at: Instant| at.elapsed() >= kept);
                    if is_over {
                        issuer.known.store(None);
                    }
                    let has_keys = issuer.known.load().is_some();
                    warn!(issuer = self.url, %error, has_keys, "an issuer's keys cannot be fetched");
                    meters::issuer_asked("failed");
                    failures = failures.saturating_add(1);
                    let pause = Duration::from_secs(1 << failures.min(6)).min(RETRY_PAUSE_MAX) / 2;
                    pause.min(refresh)
                }
            };
            issuer.attempts.send_modify(|attempts| {
                attempts.count += 1;
                attempts.last = Some(begun);
            });
            drop(issuer);
            tokio::select! {
                () = sleep_until(begun + pause) => {}
                () = self.wanted.notified() => {}
            }
        }
    }

    async fn fetch(&self) -> Result<(Keys, Vec<SigningAlgorithm>), FetchError> {
        let networks = &self.config.private_networks;
        let base = self.url.strip_suffix('/').unwrap_or(&self.url);
        let url = format!("{base}/.well-known/openid-configuration");
        let wrong = |url: &str, what| FetchError::Content(url.to_owned(), what);
        let document = fetch(&self.connector, &url, networks).await?;
        let found: Discovered =
            serde_json::from_slice(&document).map_err(|_| wrong(&url, "no configuration of an issuer"))?;
        if !is_same_issuer(&found.issuer, &self.url) {
            return Err(wrong(&url, "it is another issuer's"));
        }
        if self.url.starts_with("https://") && !found.jwks_uri.starts_with("https://") {
            return Err(wrong(&url, "its keys would come over plain http://"));
        }
        let document = fetch(&self.connector, &found.jwks_uri, networks).await?;
        let keys = Keys::read(&document).ok_or_else(|| wrong(&found.jwks_uri, "no set of keys"))?;
        if keys.len() == 0 {
            return Err(wrong(&found.jwks_uri, "no key in it can be used"));
        }
        let named = found.id_token_signing_alg_values_supported.iter();
        Ok((keys, named.filter_map(|name| name.parse().ok()).collect()))
    }
}
