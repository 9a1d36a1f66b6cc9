//! The example's story, as far as it is built: told by the public interfaces, checked on the way.
//!
//! Every step says what it expects before it looks. A step that fails does not end the story; the exit code does.

use std::time::Duration;

use anyhow::{Context, ensure};
use weir_proto::v1::Period;

use super::client::{Answer, ListenerClient, call};
use super::progress::Progress;
use super::setup::{HOST, Setup};
use crate::failure::Failure;

/// How close Initech is to its daily limit when the demo starts: ten mails are left of 1,000.
const INITECH_USED: u64 = 990;

/// How long a change of the catalog may take to be in force.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(5);

const ACME: &str = "api_user=acme&api_key=acme-demo-key-1";
const ACME_SECOND: &str = "api_user=acme&api_key=acme-demo-key-2";
const INITECH: &str = "api_user=initech&api_key=initech-demo-key";
const UMBRELLA: &str = "api_user=umbrella&api_key=umbrella-demo-key";

/// Puts the customers where the story finds them.
///
/// # Errors
/// When the listener takes no report.
pub(super) async fn seed(setup: &Setup) -> anyhow::Result<()> {
    ListenerClient::connect(setup).await?.set("initech", "mail", INITECH_USED).await
}

/// Tells the story.
///
/// # Errors
/// How many steps failed.
pub(super) async fn tell(setup: &Setup, progress: &Progress) -> Result<(), Failure> {
    let mut story = Story { setup, progress, listener: ListenerClient::connect(setup).await?, failed: 0 };
    story.walk().await;
    progress.end();
    match story.failed {
        0 => {
            println!("all steps passed");
            Ok(())
        }
        failed => Err(anyhow::anyhow!("{failed} steps of the story failed").into()),
    }
}

struct Story<'a> {
    setup: &'a Setup,
    progress: &'a Progress,
    listener: ListenerClient,
    failed: usize,
}

impl Story<'_> {
    async fn walk(&mut self) {
        let counted = self.a_good_call_is_counted().await;
        self.report("1  a good call: 200, through the gateway, counted for method, hits and API", counted);
        let refused = self.bad_calls_are_refused().await;
        self.report("2  bad calls: 401, 403, 404 in the provider's words and as problem+json", refused);
        let limited = self.a_limit_holds_exactly().await;
        self.report("3a a limit by day: exactly what is left passes, then 429 with Retry-After", limited);
        let opened = self.the_next_window_opens().await;
        self.report("3b a limit by minute: parallel calls pass exactly to it, the next minute opens", opened);
        let revoked = self.a_revoked_key_is_refused().await;
        self.report("4  two keys work; the old one is revoked and refused", revoked);
        let round = self.the_backend_refuses_what_comes_round().await;
        self.report("5  a call round the gateway: the backend refuses it", round);
    }

    fn report(&mut self, step: &str, outcome: anyhow::Result<String>) {
        match outcome {
            Ok(seen) => self.progress.line(&format!("ok      {step}\n        {seen}")),
            Err(error) => {
                self.failed += 1;
                self.progress.line(&format!("FAILED  {step}\n        {error:#}"));
            }
        }
        self.progress.show("telling the story");
    }

    async fn api(&self, method: &str, path: &str, credentials: &str) -> anyhow::Result<Answer> {
        let target = format!("{path}?{credentials}");
        call(&self.setup.production(), method, &target, &[("host", HOST)]).await
    }

    async fn send(&self, credentials: &str) -> anyhow::Result<Answer> {
        self.api("POST", "/v3/mail/send", credentials).await
    }

    async fn a_good_call_is_counted(&mut self) -> anyhow::Result<String> {
        let (before, _) = self.listener.used("acme", Period::Eternity).await?;
        let answer = self.send(ACME).await?;
        ensure!(answer.status == 200, "status {} with {:?}", answer.status, answer.body);
        ensure!(answer.body.contains("queued"), "not the backend's answer: {:?}", answer.body);
        let (after, _) = self.listener.used("acme", Period::Eternity).await?;
        for metric in ["mail_send", "hits", "mail"] {
            let rose = after[metric] - before[metric];
            ensure!(rose == 1, "{metric} rose by {rose}");
        }
        ensure!(after["stats"] == before["stats"], "stats rose");
        Ok(format!("{}; mail_send, hits and mail rose by 1", answer.body.trim()))
    }

    async fn bad_calls_are_refused(&self) -> anyhow::Result<String> {
        let cases = [
            (401, "POST", "/v3/mail/send", "", "Postbote does not know who is calling"),
            (
                403,
                "POST",
                "/v3/mail/send",
                "api_user=acme&api_key=wrong",
                "Postbote cannot let this call pass",
            ),
            (403, "POST", "/v3/mail/send", UMBRELLA, "Postbote cannot let this call pass"),
            (404, "GET", "/v3/unknown", ACME, "Postbote has no such endpoint"),
            (403, "GET", "/v3/stats", INITECH, "Postbote cannot let this call pass"),
        ];
        let mut codes = Vec::new();
        for (status, method, path, credentials, text) in cases {
            let answer = self.api(method, path, credentials).await?;
            ensure!(answer.status == status, "{method} {path}: {} instead of {status}", answer.status);
            ensure!(answer.body.contains(text), "{method} {path}: {:?}", answer.body);
            let target = format!("{path}?{credentials}");
            let headers = [("host", HOST), ("accept", "application/problem+json")];
            let problem = call(&self.setup.production(), method, &target, &headers).await?;
            let kind = problem.header("content-type");
            ensure!(kind.starts_with("application/problem+json"), "a problem as {kind:?}");
            let value: serde_json::Value =
                serde_json::from_str(&problem.body).context("a problem document")?;
            ensure!(value["status"] == status, "a problem with status {}", value["status"]);
            codes.push(value["code"].as_str().unwrap_or("no code").to_owned());
        }
        Ok(codes.join(", "))
    }

    async fn a_limit_holds_exactly(&mut self) -> anyhow::Result<String> {
        let (before, day) = self.listener.used("initech", Period::Day).await?;
        let left = usize::try_from(1_000_u64.saturating_sub(before["mail"]))?;
        let (passed, refusal) = self.send_in_parallel(INITECH, left + 5).await?;
        let (after, same_day) = self.listener.used("initech", Period::Day).await?;
        if day != same_day {
            return Ok("skipped: midnight passed meanwhile".into());
        }
        ensure!(passed == left, "{passed} calls passed, {left} were left");
        ensure!(after["mail"] == 1_000, "the counter says {}", after["mail"]);
        let refusal = refusal.context("nothing was refused")?;
        ensure!(refusal.body.contains("You have reached a limit"), "{:?}", refusal.body);
        let wait_s: u64 = refusal.header("retry-after").parse().context("Retry-After")?;
        ensure!((1..=86_400).contains(&wait_s), "Retry-After: {wait_s}");
        for name in ["ratelimit", "ratelimit-policy"] {
            ensure!(!refusal.header(name).is_empty(), "no {name} header");
        }
        Ok(format!("{passed} passed; RateLimit: {}; Retry-After: {wait_s}", refusal.header("ratelimit")))
    }

    /// Sends calls in parallel; returns how many passed, and one of the refusals.
    async fn send_in_parallel(
        &self,
        credentials: &str,
        calls: usize,
    ) -> anyhow::Result<(usize, Option<Answer>)> {
        let sent = (0..calls).map(|_| self.send(credentials));
        let answers = futures_util::future::try_join_all(sent).await?;
        let passed = answers.iter().filter(|answer| answer.status == 200).count();
        let refusal = answers.into_iter().find(|answer| answer.status == 429);
        Ok((passed, refusal))
    }

    async fn the_next_window_opens(&mut self) -> anyhow::Result<String> {
        const LIMIT: u64 = 300;
        // Should the minute end while the calls are under way, the next one gives a whole minute.
        for _ in 0..3 {
            let (before, minute) = self.listener.used("acme", Period::Minute).await?;
            let left = usize::try_from(LIMIT.saturating_sub(before["hits"]))?;
            let (passed, refusal) = self.send_in_parallel(ACME, left + 20).await?;
            let (after, same_minute) = self.listener.used("acme", Period::Minute).await?;
            if minute != same_minute {
                continue;
            }
            ensure!(passed == left, "{passed} calls passed, {left} were left");
            ensure!(after["hits"] == LIMIT, "the counter says {}", after["hits"]);
            let refusal = refusal.context("nothing was refused")?;
            let wait_s: u64 = refusal.header("retry-after").parse().context("Retry-After")?;
            self.progress.show(&format!("waiting {wait_s} s for the next minute, as Retry-After says"));
            tokio::time::sleep(Duration::from_secs(wait_s)).await;
            let answer = self.send(ACME).await?;
            ensure!(answer.status == 200, "{} after the wait of Retry-After", answer.status);
            return Ok(format!("{passed} of {} passed; open again after {wait_s} s", left + 20));
        }
        anyhow::bail!("three minutes ended at the wrong moment")
    }

    async fn a_revoked_key_is_refused(&self) -> anyhow::Result<String> {
        for credentials in [ACME, ACME_SECOND] {
            let answer = self.send(credentials).await?;
            ensure!(answer.status == 200, "{} before the key was revoked", answer.status);
        }
        self.setup.put_catalog(|catalog| catalog.replace("\"acme-demo-key-1\", ", ""))?;
        let start = std::time::Instant::now();
        while self.send(ACME).await?.status != 403 {
            ensure!(start.elapsed() < RELOAD_TIMEOUT, "the old key still passes");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let took_ms = start.elapsed().as_millis();
        let answer = self.send(ACME_SECOND).await?;
        ensure!(answer.status == 200, "{} with the key that stays", answer.status);
        Ok(format!("in force {took_ms} ms after the catalog file changed"))
    }

    async fn the_backend_refuses_what_comes_round(&self) -> anyhow::Result<String> {
        let target = format!("/v3/mail/send?{ACME_SECOND}");
        let answer = call(&self.setup.upstream(), "POST", &target, &[]).await?;
        ensure!(answer.status == 401, "the backend answered {}", answer.status);
        Ok(answer.body.trim().to_owned())
    }
}
