//! What is spoken over the gateway's connections: HTTP/2, trailers, upgrades, TLS, gRPC, the PROXY protocol.
//!
//! Each module starts a data plane of real processes and speaks to it over sockets of loopback, byte by byte where a
//! library would be too well-behaved.
#![allow(clippy::unwrap_used, reason = "a test fails by it, with the place")]

mod edge;
mod envoy;
mod equivalence;
mod expect;
mod frames;
mod framing;
mod grpc;
mod http2;
mod http2_bounds;
mod nginx;
mod sockets;
mod tls;
mod trailers;
mod upgrades;
mod upstreams;
mod world;
