//! AuthRepStream: correlation, batches, failures in their place, and what becomes of a stream that breaks.

use std::collections::BTreeMap;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use weir_proto::v1;
use weir_proto::v1::stream_answer::Answer;
use weir_proto::v1::stream_ask::Ask;
use weir_tests::listener::auth_rep_request;
use weir_tests::stack::{Plan, Stack, catalog};

async fn start(redis: bool) -> Stack {
    let limits = "{ metric = \"hits\", period = \"year\", max = 150 }";
    Stack::start(&Plan { gateways: 0, redis, ..Plan::small(&catalog(1, limits)) }).await
}

fn message(asks: Vec<(u64, Ask)>) -> v1::AuthRepStreamRequest {
    let ask = |(correlation_id, ask)| v1::StreamAsk { correlation_id, ask: Some(ask) };
    v1::AuthRepStreamRequest { asks: asks.into_iter().map(ask).collect() }
}

async fn collect(
    stream: &mut tonic::Streaming<v1::AuthRepStreamResponse>,
    count: usize,
) -> BTreeMap<u64, Answer> {
    let mut answers = BTreeMap::new();
    while answers.len() < count {
        let response = stream.message().await.unwrap().expect("an open stream");
        for answer in response.answers {
            assert!(
                answers.insert(answer.correlation_id, answer.answer.unwrap()).is_none(),
                "answered twice"
            );
        }
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn every_ask_gets_its_own_answer() {
    for redis in [false, true] {
        let stack = start(redis).await;
        let client = stack.listener_client(0);
        let (sender, asks) = mpsc::channel(8);
        let opening = client.client.clone().auth_rep_stream(client.signed(ReceiverStream::new(asks))).await;
        let mut answers = opening.unwrap().into_inner();
        for batch in 0..4 {
            let asks =
                (0..50).map(|n| (batch * 50 + n, Ask::AuthRep(auth_rep_request("key", &[("hits", 1)]))));
            sender.send(message(asks.collect())).await.unwrap();
        }
        let bad = v1::AuthRepRequest { request_id: vec![], ..auth_rep_request("key", &[]) };
        sender.send(message(vec![(900, Ask::AuthRep(bad))])).await.unwrap();
        let nothing = v1::StreamAsk { correlation_id: 901, ask: None };
        sender.send(v1::AuthRepStreamRequest { asks: vec![nothing] }).await.unwrap();

        let answers = collect(&mut answers, 202).await;
        let admitted = answers.values().filter(|answer| match answer {
            Answer::Decision(decision) => decision.denial.is_none(),
            _ => false,
        });
        assert_eq!(admitted.count(), 150, "exactly the limit, whatever travelled together");
        let code = |id: u64| match &answers[&id] {
            Answer::Failure(failure) => failure.code,
            other => panic!("{other:?}"),
        };
        assert_eq!(code(900), Code::InvalidArgument as i32);
        assert_eq!(code(901), Code::Unimplemented as i32);
        assert_eq!(client.used("app", "hits", v1::Period::Year).await.unwrap(), 150);
    }
}

/// Goal: a message with more questions than a stream may have in work is answered all the same, and so is the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_may_be_longer_than_what_a_stream_has_in_work() {
    let plan = Plan {
        gateways: 0,
        redis: true,
        listener_tables: "[limits]\nstream_requests_max = 4\n".into(),
        ..Plan::small(&catalog(1, "{ metric = \"hits\", period = \"year\", max = 150 }"))
    };
    let stack = Stack::start(&plan).await;
    let client = stack.listener_client(0);
    let (sender, asks) = mpsc::channel(8);
    let opening = client.client.clone().auth_rep_stream(client.signed(ReceiverStream::new(asks))).await;
    let mut answers = opening.unwrap().into_inner();
    for batch in 0..2 {
        let asks = (0..10).map(|n| (batch * 10 + n, Ask::AuthRep(auth_rep_request("key", &[("hits", 1)]))));
        sender.send(message(asks.collect())).await.unwrap();
    }
    let answers = collect(&mut answers, 20).await;
    assert!(answers.values().all(|answer| matches!(answer, Answer::Decision(_))), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_travels_in_the_stream() {
    let stack = start(false).await;
    let client = stack.listener_client(0);
    let (sender, asks) = mpsc::channel(8);
    let opening = client.client.clone().auth_rep_stream(client.signed(ReceiverStream::new(asks))).await;
    let mut answers = opening.unwrap().into_inner();
    let request = auth_rep_request("key", &[("hits", 7)]);
    let cancel = v1::CancelRequest {
        service_id: request.service_id.clone(),
        credentials: request.credentials.clone(),
        request_id: request.request_id.clone(),
        attempt: None,
    };
    sender.send(message(vec![(1, Ask::AuthRep(request))])).await.unwrap();
    collect(&mut answers, 1).await;
    sender
        .send(message(vec![
            (2, Ask::Cancel(cancel.clone())),
            (3, Ask::AuthRep(auth_rep_request("key", &[]))),
        ]))
        .await
        .unwrap();
    let answers = collect(&mut answers, 2).await;
    assert_eq!(answers[&2], Answer::Cancelled(v1::CancelResponse { taken_back: true }));
    assert_eq!(client.used("app", "hits", v1::Period::Year).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broken_stream_asked_and_never_heard_is_taken_back() {
    let stack = start(true).await;
    let client = stack.listener_client(0);
    client.auth_rep("key", &[("hits", 1)]).await.unwrap();
    // While Redis holds everything back, no answer can come.
    let redis = stack.redis.as_ref().unwrap();
    assert_eq!(redis.command("CLIENT PAUSE 700 ALL"), "+OK");
    let (sender, asks) = mpsc::channel(8);
    sender
        .send(message((0..20).map(|n| (n, Ask::AuthRep(auth_rep_request("key", &[("hits", 1)])))).collect()))
        .await
        .unwrap();
    let opening = client.client.clone().auth_rep_stream(client.signed(ReceiverStream::new(asks))).await;
    let mut answers = opening.unwrap().into_inner();
    let unheard = tokio::time::timeout(std::time::Duration::from_millis(150), answers.message()).await;
    assert!(unheard.is_err(), "no answer yet");
    drop((sender, answers));
    stack.counter_settles_at("app", "hits", 1).await;
}
