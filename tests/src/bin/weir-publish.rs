//! Puts fixtures of the conformance suite into a listener, as a control plane would, and reads error lists.
//!
//! `weir-publish ADDRESS TOKEN SECRET_ID SECRET` reads a line of JSON at a time and answers each with one:
//! `{"services": […], "applications": […], "removed": […]}` is published under the next revision; `{"errors": SERVICE}`
//! is answered with codes, newest first. Keys come in the clear and go on as hashes. Ends with its input.

use std::io::{BufRead, Write};

use anyhow::{Context, bail};
use serde_json::Value;
use tonic::Request;
use tonic::transport::Channel;
use weir_core::{KeyHasher, Secret};
use weir_proto::v1;
use weir_proto::v1::catalog_client::CatalogClient;
use weir_proto::v1::errors_client::ErrorsClient;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, token, secret_id, secret] = &arguments[..] else {
        bail!("weir-publish ADDRESS TOKEN SECRET_ID SECRET")
    };
    let mut publisher = Publisher {
        channel: Channel::from_shared(format!("http://{address}"))?.connect().await?,
        token: token.clone(),
        hasher: KeyHasher::new((secret_id, &Secret::new(secret)), &[]),
        revision: 0,
    };
    let mut out = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        let answer = match publisher.answer(&serde_json::from_str(&line?)?).await {
            Ok(answer) => answer,
            Err(error) => serde_json::json!({ "error": format!("{error:#}") }),
        };
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

struct Publisher {
    channel: Channel,
    token: String,
    hasher: KeyHasher,
    revision: u64,
}

impl Publisher {
    async fn answer(&mut self, asked: &Value) -> anyhow::Result<Value> {
        if let Some(service) = asked["errors"].as_str() {
            return self.errors(service).await;
        }
        let mut changes = vec![];
        for service in list(asked, "services") {
            changes.push(v1::catalog_change::Change::PutService(self.service(service)?));
        }
        for application in list(asked, "applications") {
            changes.push(v1::catalog_change::Change::PutApplication(self.application(application)?));
        }
        for service in list(asked, "removed") {
            changes.push(v1::catalog_change::Change::RemoveService(text(service)));
        }
        self.revision += 1;
        let changes = changes.into_iter().map(|change| v1::CatalogChange { change: Some(change) });
        let request = v1::PublishRequest { revision: self.revision, changes: changes.collect() };
        CatalogClient::new(self.channel.clone()).publish(self.signed(request)?).await?;
        Ok(Value::Null)
    }

    async fn errors(&self, service: &str) -> anyhow::Result<Value> {
        let request = v1::ListErrorsRequest { service_id: service.into(), ..Default::default() };
        let errors = ErrorsClient::new(self.channel.clone()).list_errors(self.signed(request)?).await?;
        let codes = errors.into_inner().errors.into_iter().map(|error| Value::from(error.code));
        Ok(codes.collect())
    }

    fn signed<T>(&self, message: T) -> anyhow::Result<Request<T>> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", format!("Bearer {}", self.token).parse()?);
        Ok(request)
    }

    fn hash(&self, key: &Value) -> String {
        key.as_str().map(|key| self.hasher.hash(&Secret::new(key)).to_string()).unwrap_or_default()
    }

    fn service(&self, service: &Value) -> anyhow::Result<v1::Service> {
        let credentials = match service["backend_version"].as_str() {
            Some("1") => v1::CredentialKind::UserKey,
            Some("oauth") => v1::CredentialKind::ClientId,
            _ => v1::CredentialKind::AppIdAndKey,
        };
        let metrics = service["metrics"].as_object().context("metrics")?;
        let metric =
            |(name, parent): (&String, &Value)| v1::Metric { name: name.clone(), parent: text(parent) };
        let plans =
            service["plans"].as_object().context("plans")?.iter().map(plan).collect::<Result<_, _>>()?;
        Ok(v1::Service {
            id: text(&service["id"]),
            suspended: !matches!(service["state"].as_str(), None | Some("active")),
            credentials: credentials.into(),
            referrer_filters_required: service["referrer_filters_required"] == true,
            metrics: metrics.iter().map(metric).collect(),
            plans,
            provider: Some(v1::Provider {
                name: text(&service["provider"]),
                keys: vec![self.hash(&service["provider_key"])],
            }),
            is_default: service["is_default"] == true,
            tokens: vec![self.hash(&service["token"])],
            ..Default::default()
        })
    }

    fn application(&self, application: &Value) -> anyhow::Result<v1::Application> {
        let state = match application["state"].as_str() {
            Some("active") => v1::ApplicationState::Active,
            Some("pending") => v1::ApplicationState::Pending,
            Some("suspended") => v1::ApplicationState::Suspended,
            other => bail!("the state {other:?}"),
        };
        let key = |key: &Value| v1::AppKey { hash: self.hash(key), until_unix_ms: None };
        Ok(v1::Application {
            service_id: text(&application["service"]),
            app_id: text(&application["id"]),
            state: state.into(),
            plan_id: text(&application["plan"]),
            user_key: self.hash(&application["user_key"]),
            app_keys: list(application, "keys").iter().map(key).collect(),
            referrer_filters: list(application, "referrer_filters").iter().map(text).collect(),
            redirect_url: text(&application["redirect_url"]),
        })
    }
}

fn plan((id, plan): (&String, &Value)) -> anyhow::Result<v1::Plan> {
    let limit = |limit: &Value| -> anyhow::Result<v1::UsageLimit> {
        let period: weir_core::Period = text(&limit[1]).parse()?;
        let max = limit[2].as_u64().context("a limit's maximum")?;
        Ok(v1::UsageLimit { metric: text(&limit[0]), period: v1::Period::from(period).into(), max })
    };
    let limits = list(plan, "limits").iter().map(limit).collect::<Result<_, _>>()?;
    Ok(v1::Plan { id: id.clone(), name: text(&plan["name"]), limits, free_answers: vec![] })
}

fn list<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

/// Empty where there is none.
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
