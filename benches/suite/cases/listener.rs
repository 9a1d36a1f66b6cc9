//! Decisions: authrep under three limits, by stream and by unary calls, embedded and with Redis on the same core.
//!
//! Floors run beside them: a server with the same messages that decides nothing, and plain increments in the same
//! Redis, which syncs its file every second: syncing each write measures the disk.

use std::net::SocketAddr;

use crate::catalog::{self, Api};
use crate::figure::Figure;
use crate::lab::Lab;
use crate::load::Load;
use crate::load::redis::RedisLoad;
use crate::load::stream::{Shape, StreamLoad};
use crate::load::unary::UnaryLoad;
use crate::peers::Redis;
use crate::question::Questions;
use crate::serve::Kind;
use crate::server::Server;
use crate::turns::{Case, Part, in_turns};
use crate::weir::{Catalog, Listener, Store};

const APPLICATIONS: usize = 1_000;
/// Decisions of a turn, where a decision costs a few microseconds.
const MANY: u64 = 96_000;
/// Decisions of a turn, where it costs tens of them.
const FEW: u64 = 25_600;
/// Increments of a turn.
const INCREMENTS: u64 = 400_000;

/// Measures all of it.
pub(super) async fn measure(lab: &Lab) -> anyhow::Result<Vec<Figure>> {
    let api = Api::usual(1, APPLICATIONS);
    let floor = Floor::start(lab).await?;
    let embedded = listener(lab, "embedded", &Store::Embedded, &api).await?;
    let over_redis = OverRedis::start(lab, "stream", &api).await;
    let memory = vec![embedded.part()];
    let redis_case = |name: &str, work: &dyn Fn(&OverRedis) -> (Vec<Part>, Load), full: u64| {
        Case::of(name, &over_redis, work, lab.scale.operations(full))
    };
    let case = |name: &str, parts: &[Part], load: Load, full: u64| {
        Case::new(name, parts.to_vec(), load, lab.scale.operations(full))
    };
    let alone = "a question a message";
    let mut cases = [
        case("floor: stream", &floor.parts(), stream(floor.address, Shape::CALLERS), MANY),
        case("embedded, stream", &memory, stream(embedded.grpc, Shape::CALLERS), MANY),
        case(&format!("floor: {alone}"), &floor.parts(), stream(floor.address, Shape::ALONE), MANY),
        case(&format!("embedded, {alone}"), &memory, stream(embedded.grpc, Shape::ALONE), MANY),
        case("floor: unary", &floor.parts(), unary(floor.address), FEW),
        case("embedded, unary", &memory, unary(embedded.grpc), FEW),
        redis_case("floor: INCRBY, pipelined", &OverRedis::increments, INCREMENTS),
        redis_case("Redis, stream", &|over| over.asked(Shape::CALLERS), FEW),
        redis_case("Redis, 16 of one application", &|over| over.asked(Shape::TOGETHER), FEW),
    ];
    in_turns(&mut cases, lab).await;
    Ok(figures(&cases))
}

/// The server that decides nothing.
struct Floor {
    server: Server,
    address: SocketAddr,
}

impl Floor {
    async fn start(lab: &Lab) -> anyhow::Result<Self> {
        let (server, address) = lab.own(Kind::Echo, None).await?;
        Ok(Self { server, address })
    }

    fn parts(&self) -> Vec<Part> {
        vec![Part { name: "floor", processes: self.server.processes() }]
    }
}

/// A listener and its Redis.
pub(super) struct OverRedis {
    redis: Redis,
    /// The listener.
    pub(super) listener: Listener,
}

impl OverRedis {
    /// Both, for a service.
    pub(super) async fn start(lab: &Lab, name: &str, api: &Api) -> anyhow::Result<Self> {
        let redis = Redis::start(lab, &format!("{name}-redis")).await?;
        let listener =
            listener(lab, &format!("{name}-over-redis"), &Store::Redis(redis.address), api).await?;
        Ok(Self { redis, listener })
    }

    /// Both of its processes.
    pub(super) fn parts(&self) -> Vec<Part> {
        vec![self.listener.part(), self.redis.part()]
    }

    /// Plain increments in that Redis.
    fn increments(&self) -> (Vec<Part>, Load) {
        (vec![self.redis.part()], Load::Redis(RedisLoad { address: self.redis.address }))
    }

    /// Questions to the listener.
    fn asked(&self, shape: Shape) -> (Vec<Part>, Load) {
        (self.parts(), stream(self.listener.grpc, shape))
    }
}

/// A listener that has one service.
pub(super) async fn listener(lab: &Lab, name: &str, store: &Store, api: &Api) -> anyhow::Result<Listener> {
    // No gateway asks for this catalog, so where its calls would go does not matter.
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let catalog = catalog::text(nowhere, std::slice::from_ref(api));
    Listener::start(lab, name, store, &Catalog::File(&catalog), &[]).await
}

fn stream(address: SocketAddr, shape: Shape) -> Load {
    Load::Stream(StreamLoad { address, questions: Questions::at_random(APPLICATIONS), shape })
}

fn unary(address: SocketAddr) -> Load {
    Load::Unary(UnaryLoad { address, questions: Questions::at_random(APPLICATIONS) })
}

fn figures(cases: &[Case; 9]) -> Vec<Figure> {
    let [echo, embedded, echo_alone, alone, echo_unary, unary, incrby, redis, hot] = cases;
    let all = |name: &str, title: &str, case: &Case| Figure::cpu(name, title, case, &[]);
    let of_listener = |name: &str, title: &str, case: &Case| Figure::cpu(name, title, case, &["listener"]);
    let echo = all("grpc_stream_floor_cpu_us", "Floor: the stream, no decision", echo);
    let echo_alone = all("grpc_single_floor_cpu_us", "Floor: the stream, a question a message", echo_alone);
    let echo_unary = all("grpc_unary_floor_cpu_us", "Floor: unary gRPC, no decision", echo_unary);
    let incrby = all("redis_incrby_cpu_us", "Floor: INCRBY in Redis, pipelines of 64", incrby);
    let embedded = all("authrep_embedded_stream_cpu_us", "Embedded store, stream", embedded);
    let alone = all("authrep_embedded_single_cpu_us", "Embedded store, a question a message", alone);
    let unary = all("authrep_embedded_unary_cpu_us", "Embedded store, unary", unary);
    let part = of_listener("authrep_redis_listener_cpu_us", "of it the listener", redis);
    let redis = all("authrep_redis_cpu_us", "Listener and Redis, applications at random", redis);
    let hot_part = of_listener("authrep_redis_hot_listener_cpu_us", "of it the listener", hot);
    let hot = all("authrep_redis_hot_cpu_us", "Listener and Redis, 16 of one application together", hot);
    vec![
        embedded.at_most(5.0).beside(&echo),
        alone.beside(&echo_alone),
        unary.at_most(14.0).beside(&echo_unary),
        redis.at_most(25.0).beside(&incrby),
        part,
        hot.at_most(6.0).beside(&incrby),
        hot_part,
        echo,
        echo_alone,
        echo_unary,
        incrby,
    ]
}
