//! A listener that decides nothing: the same messages both ways, the same library, no work in between.
//!
//! What a decision costs beside it is what deciding and counting cost.

use std::net::SocketAddr;
use std::pin::Pin;

use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use weir_proto::v1;
use weir_proto::v1::authorization_server::{Authorization, AuthorizationServer};
use weir_proto::v1::stream_answer::Answer;

/// Answers until the process ends.
pub(super) async fn serve(address: SocketAddr) -> anyhow::Result<()> {
    let server = Server::builder().tcp_nodelay(true).add_service(AuthorizationServer::new(Echo));
    Ok(server.serve(address).await?)
}

struct Echo;

/// As large as a listener's for the questions of the suite.
fn admission() -> v1::Decision {
    let limit = |metric: &str, period: v1::Period| v1::LimitStatus {
        metric: metric.into(),
        period: period.into(),
        max: crate::catalog::LIMIT,
        used: 1_234,
        window_start_unix_ms: 1_795_404_660_000,
        window_end_unix_ms: Some(1_795_404_720_000),
        held: 0,
    };
    v1::Decision {
        free_answers: vec![],
        denial: None,
        limits: vec![
            limit("hits", v1::Period::Minute),
            limit("api_0", v1::Period::Day),
            limit("api_0", v1::Period::Month),
        ],
        application_id: "app-123".into(),
        decided_at_unix_ms: 1_795_404_719_000,
        records_version: 0x5eed_5eed_5eed_5eed,
        accepted_for_ms: None,
        accepted_for_any_referrer: true,
    }
}

fn answer(ask: &v1::StreamAsk) -> v1::StreamAnswer {
    v1::StreamAnswer { correlation_id: ask.correlation_id, answer: Some(Answer::Decision(admission())) }
}

#[tonic::async_trait]
impl Authorization for Echo {
    type AuthRepStreamStream =
        Pin<Box<dyn Stream<Item = Result<v1::AuthRepStreamResponse, Status>> + Send + 'static>>;

    async fn auth_rep(&self, _: Request<v1::AuthRepRequest>) -> Result<Response<v1::Decision>, Status> {
        Ok(Response::new(admission()))
    }

    async fn auth_rep_stream(
        &self,
        request: Request<Streaming<v1::AuthRepStreamRequest>>,
    ) -> Result<Response<Self::AuthRepStreamStream>, Status> {
        let echoed = request.into_inner().map(|message| {
            message.map(|message| v1::AuthRepStreamResponse {
                answers: message.asks.iter().map(answer).collect(),
            })
        });
        Ok(Response::new(Box::pin(echoed)))
    }

    async fn authorize(&self, _: Request<v1::AuthorizeRequest>) -> Result<Response<v1::Decision>, Status> {
        Err(Status::unimplemented("only echoes"))
    }

    async fn report(&self, _: Request<v1::ReportRequest>) -> Result<Response<v1::ReportResponse>, Status> {
        Err(Status::unimplemented("only echoes"))
    }

    async fn usage(&self, _: Request<v1::UsageRequest>) -> Result<Response<v1::UsageResponse>, Status> {
        Err(Status::unimplemented("only echoes"))
    }

    async fn cancel(&self, _: Request<v1::CancelRequest>) -> Result<Response<v1::CancelResponse>, Status> {
        Err(Status::unimplemented("only echoes"))
    }
}
