//! Micro-benchmarks: what single steps of a decision cost, each by itself.
//!
//! Run by `make bench`, or alone by `cargo bench -p weir-benches`. The figures depend on the machine; compare only inside
//! one run. What a whole request costs is the load suite's business.

mod core;
mod journal;
mod lease;
mod store;
mod wire;

fn main() {
    divan::main();
}
