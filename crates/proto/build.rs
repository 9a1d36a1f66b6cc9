//! Compiles `/proto` with a pure-Rust compiler: nothing to install.

use std::path::{Path, PathBuf};

use prost::Message;

const WEIR: [&str; 6] = [
    "weir/v1/usage.proto",
    "weir/v1/authorization.proto",
    "weir/v1/lease.proto",
    "weir/v1/catalog.proto",
    "weir/v1/gateway.proto",
    "weir/v1/events.proto",
];
const ENVOY: [&str; 2] =
    ["envoy/service/auth/v3/external_auth.proto", "envoy/service/ratelimit/v3/rls.proto"];

/// Messages that hold keys or tokens: `Debug` must not print them.
const SECRET: [&str; 9] = [
    ".weir.v1.Credentials",
    ".weir.v1.AppIdAndKey",
    ".weir.v1.Transaction",
    ".weir.v1.Proxy",
    ".envoy.config.core.v3.HeaderValue",
    ".envoy.service.auth.v3.AttributeContext.HttpRequest",
    ".envoy.extensions.common.ratelimit.v3.RateLimitDescriptor.Entry",
    ".envoy.service.auth.v3.DeniedHttpResponse",
    ".envoy.service.auth.v3.OkHttpResponse",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    compile(&root, &out.join("weir.bin"), &WEIR, "weir.rs")?;
    compile(&root, &out.join("envoy.bin"), &ENVOY, "envoy.rs")
}

/// Generates the code of some files, one that has all their modules, and their descriptors.
fn compile(
    root: &Path,
    descriptors: &Path,
    files: &[&str],
    modules: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(files, [root])?;
    std::fs::write(descriptors, files.encode_to_vec())?;
    let mut config = tonic_prost_build::Config::new();
    config.skip_debug(SECRET).include_file(modules);
    tonic_prost_build::configure().codec_path("crate::StrictCodec").compile_fds_with_config(files, config)?;
    Ok(())
}
