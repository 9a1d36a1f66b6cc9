//! `ip_check` and `default_credentials`: who may call, and who is meant when nobody says so.

use serde_json::Value as Json;
use weir_core::{ApplicationId, CredentialKind};

use super::{OPENS, Reading, table, text, texts};

/// Most networks of one list.
const NETWORKS_MAX: usize = 1_024;

impl<'a> Reading<'a> {
    pub(super) fn ip_check(&mut self) {
        let key = match self.text("check_type") {
            Some("whitelist") => "allow",
            Some("blacklist") => "deny",
            _ => {
                let why = "it is neither whitelist nor blacklist: 3scale's gateway checks nothing, either";
                self.left_out("check_type", why);
                return;
            }
        };
        let networks = self.networks(key);
        self.mapped("check_type", &format!("ip_check.{key}"));
        self.address_sources();
        if self.text("error_msg").is_some() {
            self.changed("error_msg", "the answer has the gateway's own words, and the code address_denied");
        }
        self.rest(&["check_type", "ips", "client_ip_sources", "error_msg"]);
        if !networks.is_empty() {
            self.write("ip_check", table([(key, texts(networks))]));
        } else if key == "allow" {
            // An empty list would let everybody pass.
            self.changed("ips", "names no address that may call, so none may: all are denied");
            self.write("ip_check", table([("deny", texts(["0.0.0.0/0", "::/0"]))]));
        } else {
            self.changed("ips", "names nobody, so there is nothing to check");
        }
    }

    /// The networks that can be read.
    fn networks(&mut self, key: &'static str) -> Vec<&'a str> {
        let mut networks = Vec::new();
        for (at, network) in self.list("ips").iter().enumerate() {
            let field = format!("ips[{at}]");
            let judged = match network.as_str() {
                Some(network) => self.judge("ip_check", &table([(key, text(network))])).map(|()| network),
                None => Err("it is no text".to_owned()),
            };
            match judged {
                Ok(network) if networks.len() < NETWORKS_MAX => {
                    networks.push(network);
                    self.mapped(&field, &format!("ip_check.{key}"));
                }
                Ok(_) => self.left_out(&field, &surplus(key)),
                Err(why) if key == "deny" => self.left_out(&field, &format!("{why}; {OPENS}")),
                Err(why) => self.left_out(&field, &why),
            }
        }
        networks
    }

    fn address_sources(&mut self) {
        let sources: Vec<&str> = self.list("client_ip_sources").iter().filter_map(Json::as_str).collect();
        match sources.as_slice() {
            [] => {}
            ["last_caller" | "proxy_protocol_addr"] => {
                self.mapped(
                    "client_ip_sources",
                    "the address is that of the connection, or PROXY protocol's",
                );
            }
            _ => self.changed(
                "client_ip_sources",
                "the address is that of the connection: name your load balancers in trusted_proxies of \
                 gateway.toml, and it is what their X-Forwarded-For says",
            ),
        }
    }

    /// 3scale's policy holds keys; ours names an application, so that no key stands there.
    pub(super) fn default_credentials(&mut self) {
        let of = self.written.of.credentials;
        if self.text("user_key").is_some() && of != CredentialKind::AppIdAndKey {
            self.left_out(
                "user_key",
                "anonymous names an application, not a key: write { policy = \"anonymous\", application = … } with \
                 the id of the one whose key that is",
            );
        }
        if let Some(id) = self.text("app_id") {
            match (of, id.parse::<ApplicationId>()) {
                (CredentialKind::AppIdAndKey, Ok(_)) => self.anonymous(id),
                (CredentialKind::AppIdAndKey, Err(_)) => {
                    self.left_out("app_id", "it is no id of an application")
                }
                _ => {
                    self.left_out("app_id", "credentials are others here: 3scale's gateway uses it as little")
                }
            }
        }
        self.rest(&["auth_type", "user_key", "app_id", "app_key"]);
    }

    fn anonymous(&mut self, id: &str) {
        if !self.write("anonymous", table([("application", text(id))])) {
            return;
        }
        self.changed(
            "app_id",
            "policies: anonymous.application; it is written suspended, so calls without credentials are refused \
             until it has its plan and is active",
        );
        if self.text("app_key").is_some() {
            self.changed("app_key", "it is not needed: anonymous names the application alone");
        }
        self.written.anonymous = Some(id.to_owned());
    }
}

fn surplus(key: &str) -> String {
    let opens = if key == "deny" { format!("; {OPENS}") } else { String::new() };
    format!("a list has 1,024 of them at most{opens}")
}
