//! A real OpenID Connect issuer: the npm package `oidc-provider`, run by Node (`tests/clients/oidc-provider`).

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::foreign::Foreign;
use crate::http;
use crate::npm;
use crate::wait::free_port;

/// The audience of the tokens that it gives.
pub const AUDIENCE: &str = "mail_api";

/// A running issuer with the clients `phone`, `desk` and `stranger`; killed when dropped.
pub struct Issuer {
    address: SocketAddr,
    process: Option<Foreign>,
}

impl Issuer {
    /// Starts one.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Self {
        let mut issuer = Self { address: SocketAddr::from(([127, 0, 0, 1], free_port())), process: None };
        issuer.restart();
        issuer
    }

    /// Ends it.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Starts it again, with new keys.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        self.stop();
        let name = "oidc-provider";
        let script = npm::source(name).join("server.mjs");
        self.process = Some(Foreign::node(&script, &npm::installed(name), self.address));
    }

    /// As tokens name it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Logs a client in, and gives its access token, signed by this algorithm.
    ///
    /// # Panics
    /// When it is not let in.
    pub fn log_in(&self, client: &str, algorithm: &str) -> String {
        let form = format!(
            "grant_type=client_credentials&scope=mail&resource=urn:{algorithm}&client_id={client}&client_secret=secret-of-{client}"
        );
        let kind = [("Content-Type", "application/x-www-form-urlencoded")];
        let host = self.address.to_string();
        let headers = [kind[0], ("Host", &host)];
        let answer = http::call(self.address, "POST", "/token", &headers, &form);
        let token = answer.json()["access_token"].as_str().map(str::to_owned);
        token.unwrap_or_else(|| panic!("{answer:?}"))
    }

    /// A token as nobody would give it: with these claims and header, signed by the issuer's key for `key`; as the header
    /// says, or as `signed_as`.
    ///
    /// # Panics
    /// When the issuer does not run.
    pub fn forge(&self, key: &str, header: &Value, claims: &Value, signed_as: &str) -> String {
        let asked = json!({ "key": key, "header": header, "claims": claims, "as": signed_as });
        http::call(self.address, "POST", "/sign", &[], &asked.to_string()).body
    }
}
